// Writing tiles of a symmetric product: C <- decay C + weight tile, and the same bits to the
// mirror.
//
// Only the lower triangle of C is read; the upper one receives the transposed vectors, so the
// result is symmetric bit for bit and a tile costs one read and two writes of its memory.
#pragma once

#include "csrc/cpu/product.h"

namespace kronext::cpu::KRONEXT_CPU {

template <class T, class C>
struct SymmetricTile {
  static constexpr int kW = kPanel<T>, kL = kLanes<T>;
  using Narrow = Vector<C, kL>;
  T decay, weight;  // decay 0: C is not read

  KRONEXT_INLINE T blend(T sum, const C* old) const {
    return decay == T(0) ? weight * sum : weight * sum + decay * T(*old);
  }

  // A full tile on or below the diagonal: lower points at its first element, upper at the first
  // element of its mirror (the same one on the diagonal).
  void write_full(const T* tile, C* lower, C* upper, int64_t stride, bool diagonal) const {
    const Vector<T> old_scale = splat(decay), new_scale = splat(weight);
    Mask<T> lane;
    for (int i = 0; i < kL; ++i) lane[i] = i;
    for (int r0 = 0; r0 < kW; r0 += kL) {
      for (int c0 = 0; c0 < (diagonal ? r0 + kL : kW); c0 += kL) {
        Vector<T> square[kL], mirror[kL];
#pragma GCC unroll 16
        for (int r = 0; r < kL; ++r) {
          square[r] = new_scale * load(tile + (r0 + r) * kW + c0);
          if (decay != T(0)) {
            square[r] += old_scale * load_converted<T>(lower + (r0 + r) * stride + c0);
          }
          mirror[r] = square[r];
        }
        Transpose<T>::run(mirror);
        const bool on_diagonal = diagonal && r0 == c0;
#pragma GCC unroll 16
        for (int r = 0; r < kL; ++r) {
          const Mask<T> from_lower = on_diagonal ? lane <= r : lane >= 0;
          store<C, kL>(lower + (r0 + r) * stride + c0,
                       __builtin_convertvector(from_lower ? square[r] : mirror[r], Narrow));
          if (!on_diagonal) {
            store<C, kL>(upper + (c0 + r) * stride + r0,
                         __builtin_convertvector(mirror[r], Narrow));
          }
        }
      }
    }
  }

  // A tile that the edge cuts.
  void write_partial(const T* tile, C* lower, C* upper, int64_t stride, int rows, int columns,
                     bool diagonal) const {
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < (diagonal ? r + 1 : columns); ++c) {
        const C value = C(blend(tile[r * kW + c], lower + r * stride + c));
        lower[r * stride + c] = value;
        upper[c * stride + r] = value;
      }
    }
  }

  // Tile (row, column) of a dim x dim matrix, row >= column.
  void write(const T* tile, C* matrix, int64_t dim, int64_t stride, int64_t row,
             int64_t column) const {
    C* lower = matrix + row * kW * stride + column * kW;
    C* upper = matrix + column * kW * stride + row * kW;
    const int rows = panel_extent<T>(dim, row);
    if (rows == kW) {
      write_full(tile, lower, upper, stride, row == column);
    } else {
      write_partial(tile, lower, upper, stride, rows, panel_extent<T>(dim, column), row == column);
    }
  }
};

}  // namespace kronext::cpu::KRONEXT_CPU
