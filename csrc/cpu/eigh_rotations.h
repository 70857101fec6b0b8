// Q <- Q G for the Givens rotations G of the QL sweeps.
//
// A rotation by theta of columns (z, x) is three shears, z -= t x, x += s z, z -= t x with t =
// tan(theta / 2) and s = sin(theta): three fused operations instead of two and two products, and no
// less orthogonal. 3 n^2 operations a sweep. Four sweeps pass over a panel at a time, each a column
// behind the one before, so that a column is read and written once for four rotations.
#pragma once

#include "csrc/cpu/eigh_panels.h"
#include "csrc/cpu/eigh_ql.h"

namespace kronext::cpu::KRONEXT_CPU {

// The recorded rotations of each unit, {t, s} as coefficients, in wavefronts of kWavefront sweeps.
//
// The rotation of columns (i, i + 1) in sweep w stands at step n - 2 - i + w: each sweep trails the
// one before it by a step, which is the order in which they are used.
template <class P>
class RotationStream {
 public:
  using T = typename P::Value;
  using D = typename P::LaneValue;
  using Lane = Vector<D>;

  // The rows that the matrices of a unit touched; none if low >= high.
  struct Window {
    int32_t low, high;
  };

  // Wavefronts between visits to the panels, which bring a panel in once for 16 sweeps.
  static constexpr int64_t kWaves = 4;
  static constexpr int64_t values_size(int64_t n) { return P::kUnits * kWaves * wave_size(n); }
  static constexpr int64_t windows_size() { return P::kUnits * kWaves; }
  // Units of one matrix collect a wavefront in lanes first, to transpose it.
  static constexpr int64_t buffer_size(int64_t n) {
    return P::kWidth > 1 ? 0 : steps(n) * kValues * P::kMatrices;
  }

  RotationStream(int64_t n, T* values, Window* windows, T* buffer)
      : n_(n), values_(values), windows_(windows), buffer_(buffer) {}

  // Records up to kWavefront sweeps; false if there was nothing left to do.
  bool record(LockstepQl<D>& ql);

  bool full() const { return filled_ == kWaves; }
  void clear() { filled_ = 0; }
  int64_t filled() const { return filled_; }

  const Window& window(int64_t unit, int64_t wave) const {
    return windows_[wave * P::kUnits + unit];
  }
  // From the step on at which a sweep over the rows up to `high` begins.
  const T* rotations(int64_t unit, int64_t wave, int64_t high) const {
    return wave_of(unit, wave) + (n_ - 1 - high) * kStep;
  }
  static constexpr int kValues = 2 * kWavefront;
  static constexpr int64_t kStep = kValues * P::kWidth;

 private:
  static constexpr int64_t steps(int64_t n) { return n + kWavefront; }
  static constexpr int64_t wave_size(int64_t n) { return steps(n) * kStep; }

  T* wave_of(int64_t unit, int64_t wave) const {
    return values_ + (unit * kWaves + wave) * wave_size(n_);
  }
  // Where a sweep has its t of a group of lanes, and s after it; steps are kLaneWidth * kValues
  // values apart.
  static constexpr int64_t kLaneWidth = P::kWidth > 1 ? P::kWidth : P::kLaneCount;
  T* lanes_of(int group, int64_t step, int sweep) const;
  static KRONEXT_INLINE void put(T* to, Lane t, Lane s);
  void transpose_buffer(int64_t first_step, int64_t last_step);
  void set_windows(const LaneWindows<D>& lanes);

  int64_t n_;
  T* values_;
  Window* windows_;
  T* buffer_;
  int64_t filled_ = 0;
};

template <class P>
auto RotationStream<P>::lanes_of(int group, int64_t step, int sweep) const -> T* {
  const int first = group * P::kLaneCount;
  T* lanes = P::kWidth > 1 ? wave_of(first / P::kWidth, filled_) + first % P::kWidth
                           : buffer_ + group * steps(n_) * kValues * P::kLaneCount;
  return lanes + (step * kValues + 2 * sweep) * kLaneWidth;
}

template <class P>
KRONEXT_INLINE void RotationStream<P>::put(T* to, Lane t, Lane s) {
  store<T, P::kLaneCount>(to, P::template narrow<D>(t));
  store<T, P::kLaneCount>(to + kLaneWidth, P::template narrow<D>(s));
}

template <class P>
void RotationStream<P>::transpose_buffer(int64_t first_step, int64_t last_step) {
  constexpr int kCount = P::kLaneCount;
  Vector<T, kCount> block[kCount];
  for (int g = 0; g < kEighGroups; ++g) {
    const T* from = lanes_of(g, first_step, 0);
    for (int64_t k = first_step * kValues; k < last_step * kValues; k += kCount) {
#pragma GCC unroll 16
      for (int q = 0; q < kCount; ++q, from += kCount) block[q] = load<T, kCount>(from);
      Transpose<T, kCount>::run(block);
#pragma GCC unroll 16
      for (int q = 0; q < kCount; ++q)
        store<T, kCount>(wave_of(g * kCount + q, filled_) + k, block[q]);
    }
  }
}

template <class P>
void RotationStream<P>::set_windows(const LaneWindows<D>& lanes) {
  Window* windows = windows_ + filled_ * P::kUnits;
  for (int unit = 0; unit < P::kUnits; ++unit) windows[unit] = {int32_t(n_), -1};
  for (int m = 0; m < P::kMatrices; ++m) {
    Window& all = windows[m / P::kWidth];
    all.low = minimum(all.low, int32_t(lanes.low[m / P::kLaneCount][m % P::kLaneCount]));
    all.high = maximum(all.high, int32_t(lanes.high[m / P::kLaneCount][m % P::kLaneCount]));
  }
}

template <class P>
bool RotationStream<P>::record(LockstepQl<D>& ql) {
  SweepRange ranges[kWavefront], range{n_, 0};
  LaneWindows<D> windows;
  for (int g = 0; g < kEighGroups; ++g) {
    windows.low[g] = typename IntegerOf<D>::type(n_) - Mask<D>{};
    windows.high[g] = -1 - Mask<D>{};
  }
  int sweeps = 0;
  for (; sweeps < kWavefront; ++sweeps) {
    LaneWindows<D> own;
    struct {
      T* end[kEighGroups];
      KRONEXT_INLINE void operator()(int group, int64_t i, Lane t, Lane s) const {
        put(end[group] - i * kValues * kLaneWidth, t, s);
      }
    } record;
    for (int g = 0; g < kEighGroups; ++g) record.end[g] = lanes_of(g, n_ - 2 + sweeps, sweeps);
    if (!ql.sweep(record, ranges[sweeps], own)) break;
    range.low = minimum(range.low, ranges[sweeps].low);
    range.high = maximum(range.high, ranges[sweeps].high);
    for (int g = 0; g < kEighGroups; ++g) {
      windows.low[g] = minimum(windows.low[g], own.low[g]);
      windows.high[g] = maximum(windows.high[g], own.high[g]);
    }
  }
  if (sweeps == 0) return false;

  // Identities wherever a step has no rotation of a sweep.
  const int64_t first = n_ - 1 - range.high, last = n_ - 2 - range.low + kWavefront;
  for (int w = 0; w < kWavefront; ++w) {
    const int64_t begin = w < sweeps ? n_ - 1 - ranges[w].high + w : last;
    const int64_t end = w < sweeps ? n_ - 1 - ranges[w].low + w : last;
    for (int g = 0; g < kEighGroups; ++g) {
      for (int64_t step = first; step < begin; ++step) put(lanes_of(g, step, w), Lane{}, Lane{});
      for (int64_t step = end; step < last; ++step) put(lanes_of(g, step, w), Lane{}, Lane{});
    }
  }
  if constexpr (P::kWidth == 1) transpose_buffer(first, last);
  set_windows(windows);
  ++filled_;
  return true;
}

// One wavefront over one panel; `rotations` begins at the step of columns (high - 1, high).
template <class P, int Height, class T = typename P::Value, class V = typename P::V>
KRONEXT_INLINE void rotate(V* __restrict panel, const T* __restrict rotations, int64_t low,
                           int64_t high) {
  V x[kWavefront][Height];
  for (int w = 0; w < kWavefront; ++w)
    for (int h = 0; h < Height; ++h) x[w][h] = panel[(high + w) * Height + h];
  V* column = panel + (high - 1) * Height;
  const int64_t steps = high - low + kWavefront - 1;
  for (int64_t step = 0; step < steps; ++step, column -= Height) {
    V y[Height];
    for (int h = 0; h < Height; ++h) y[h] = column[h];
#pragma GCC unroll 4
    for (int w = 0; w < kWavefront; ++w) {
      const V t = P::coefficient(rotations, 2 * w), s = P::coefficient(rotations, 2 * w + 1);
      for (int h = 0; h < Height; ++h) {
        const V z = y[h] - t * x[w][h];
        y[h] = x[w][h] + s * z;
        x[w][h] = z - t * y[h];
      }
    }
    for (int h = 0; h < Height; ++h) column[kWavefront * Height + h] = y[h];
    rotations += 2 * kWavefront * P::kWidth;
  }
  for (int w = 0; w < kWavefront; ++w)
    for (int h = 0; h < Height; ++h) panel[(low - kWavefront + 1 + w) * Height + h] = x[w][h];
}

// All wavefronts of the stream over the panels of one unit.
template <class P>
void rotate_vectors(const P& panels, const RotationStream<P>& stream, int64_t unit,
                    typename P::Value* vectors) {
  using T = typename P::Value;
  for (int64_t p = 0; p < panels.count; ++p) {
    with_height<P::kMaxHeight>(panels.height(p), [&](auto height) {
      auto* panel = reinterpret_cast<Vector<T>*>(panels.panel(vectors, p));
      for (int64_t wave = 0; wave < stream.filled(); ++wave) {
        const auto window = stream.window(unit, wave);
        if (window.low < window.high)
          rotate<P, decltype(height)::value>(panel, stream.rotations(unit, wave, window.high),
                                             window.low, window.high);
      }
    });
  }
}

}  // namespace kronext::cpu::KRONEXT_CPU
