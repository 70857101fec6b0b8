// Where eigenvectors live while reflectors and rotations pass over them.
//
// The eigenvectors are kept as row panels: panel column j holds entry j of a few vectors of rows,
// and all that happens to a panel is "combine whole columns with some coefficients". That serves
// two arrangements:
//
//   kMatrices  The lanes of a vector are one row of kLanes<T> matrices; a coefficient is a vector,
//              one value a matrix. For small n: no lane is ever idle.
//   kRows      The lanes are kLanes<T> rows of one matrix; a coefficient is one value, broadcast.
//              For large n: a panel fits the first-level cache.
//
// Coefficients come from lanes of D across matrices (eigh_lanes.h); `scatter` brings them to
// either. A unit is what advances together: kLanes<T> matrices, or one.
#pragma once

#include "csrc/cpu/eigh_lanes.h"

namespace kronext::cpu::KRONEXT_CPU {

// Sweeps of rotations that pass over a panel together.
constexpr int kWavefront = 4;

enum class LanesHold { kMatrices, kRows };

template <class T, class D, LanesHold kLanesHold>
struct Panels {
  using Value = T;
  using LaneValue = D;
  using V = Vector<T>;
  using Lane = Vector<D>;
  static constexpr int kLaneCount = kLanes<D>;
  static constexpr int kMatrices = kEighMatrices<D>;
  static constexpr int kVector = kLanes<T>;
  // Matrices of a unit, and values of a coefficient.
  static constexpr int kWidth = kLanesHold == LanesHold::kMatrices ? kVector : 1;
  // Matrices whose reflectors are in memory at a time.
  static constexpr int kReflected = maximum(kWidth, kLaneCount);
  static constexpr int kRowsPerVector = kVector / kWidth;
  static constexpr int kUnits = kMatrices / kWidth;
  // Vectors of rows in a panel: a wavefront of rotations keeps that many chains in registers for
  // each sweep.
  static constexpr int kMaxHeight = kVectorRegisters / 8;
  // Columns of zeros on both sides, for a wavefront to run in and out.
  static constexpr int64_t kMargin = kWavefront;

  static KRONEXT_INLINE V coefficient(const T* p, int64_t index) {
    if constexpr (kWidth == 1) return splat(p[index]);
    return load(p + index * kWidth);
  }

  // What lanes across matrices hold, in the precision of the panels.
  template <class From = D>
  using Narrow = Vector<T, kLanes<From>>;
  template <class From = D>
  static KRONEXT_INLINE Narrow<From> narrow(Vector<From> x) {
    return convert<T, From, kLanes<From>>(x);
  }

  // Coefficients position .. position + kLanes<From> - 1 of the matrices first .. first +
  // kLanes<From> - 1, which lie in `x` in lanes, to the `stride` values that each unit has from
  // `base` on.
  template <class From>
  static KRONEXT_INLINE void scatter(const Vector<From>* x, int first, T* base, int64_t stride,
                                     int64_t position) {
    constexpr int kCount = kLanes<From>;
    Narrow<From> block[kCount];
#pragma GCC unroll 16
    for (int q = 0; q < kCount; ++q) block[q] = narrow<From>(x[q]);
    if constexpr (kWidth == 1) Transpose<T, kCount>::run(block);
    T* out = base + first / kWidth * stride + position * kWidth + first % kWidth;
#pragma GCC unroll 16
    for (int q = 0; q < kCount; ++q)
      store<T, kCount>(out + q * (kWidth == 1 ? stride : kWidth), block[q]);
  }

  explicit Panels(int64_t n)
      : n(n),
        vectors(ceil_divide<int64_t>(n, kRowsPerVector)),
        count(ceil_divide<int64_t>(vectors, kMaxHeight)) {}

  // The vectors of rows are dealt out evenly.
  int height(int64_t panel) const { return int(vectors / count + (panel < vectors % count)); }
  int64_t first_vector(int64_t panel) const {
    return panel * (vectors / count) + minimum(panel, vectors % count);
  }
  // Column 0 of a panel; the next column is height * kVector values further on.
  T* panel(T* unit, int64_t panel) const {
    return unit + (first_vector(panel) * (n + 2 * kMargin) + height(panel) * kMargin) * kVector;
  }
  int64_t unit_size() const { return vectors * (n + 2 * kMargin) * kVector; }

  int64_t n;
  int64_t vectors;  // of rows
  int64_t count;    // of panels
};

// Calls f with `height` as a compile-time constant.
template <int Value>
struct Constant {
  static constexpr int value = Value;
};
template <int Max, class F>
KRONEXT_INLINE void with_height(int height, const F& f) {
  if constexpr (Max > 1) {
    if (height < Max) return with_height<Max - 1>(height, f);
  }
  f(Constant<Max>{});
}

}  // namespace kronext::cpu::KRONEXT_CPU
