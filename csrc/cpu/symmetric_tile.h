// Writing tiles of a symmetric product: C <- decay C + weight tile, and the same bits to the
// mirror.
//
// Only the lower triangle of C is read; the upper one receives the transposed vectors, so the
// result is symmetric bit for bit and a tile costs one read and two writes of its memory.
#pragma once

#include "csrc/core/prefetch.h"
#include "csrc/cpu/product.h"

namespace kronext::cpu::KRONEXT_CPU {

template <class T, class C>
struct SymmetricTile {
  static constexpr int kW = kPanel<T>, kL = kLanes<T>;
  T decay, weight;  // decay 0: C is not read

  // A square of the tile, of which `rows` x `columns` lie in the matrix (kWhole: all): lower points
  // at its first element, upper at the first element of its mirror (the same one on the diagonal).
  template <bool kWhole>
  KRONEXT_INLINE void write_square(const T* tile, C* lower, C* upper, int64_t stride, int64_t rows,
                                   int64_t columns, bool on_diagonal) const {
    const Vector<T> old_scale = splat(decay), new_scale = splat(weight);
    if (kWhole) rows = columns = kL;
    Mask<T> lane;
    for (int i = 0; i < kL; ++i) lane[i] = i;
    Vector<T> square[kL], mirror[kL];
#pragma GCC unroll 16
    for (int r = 0; r < kL; ++r) {
      square[r] = Vector<T>{};
      if (kWhole || r < rows) {
        square[r] = new_scale * load(tile + r * kW);
        if (decay != T(0)) {
          const Vector<C, kL> old = load_first<C, kL>(lower + r * stride, columns);
          square[r] += old_scale * __builtin_convertvector(old, Vector<T>);
        }
      }
      mirror[r] = square[r];
    }
    Transpose<T>::run(mirror);
#pragma GCC unroll 16
    for (int r = 0; r < kL; ++r) {
      const Mask<T> from_lower = on_diagonal ? lane <= r : lane >= 0;
      const Vector<T> value = from_lower ? square[r] : mirror[r];
      if (kWhole || r < rows)
        store_first<C, kL>(lower + r * stride, convert<C, T, kL>(value), columns);
      if (!on_diagonal && (kWhole || r < columns))
        store_first<C, kL>(upper + r * stride, convert<C, T, kL>(mirror[r]), rows);
    }
  }

  // Brings tile (row, column) and its mirror into the second-level cache while the product is being
  // made: where a training step has pushed the factors out, the epilogue would wait for every line.
  static void prefetch(const Matrix& matrix, int64_t row, int64_t column) {
    prefetch_block(matrix, row, column);
    if (row != column) prefetch_block(matrix, column, row);
  }

  // Tile (row, column) of a dim x dim matrix, row >= column.
  void write(const T* tile, C* matrix, int64_t dim, int64_t stride, int64_t row,
             int64_t column) const {
    C* lower = matrix + row * kW * stride + column * kW;
    C* upper = matrix + column * kW * stride + row * kW;
    const int rows = panel_extent<T>(dim, row), columns = panel_extent<T>(dim, column);
    for (int r = 0; r < rows; r += kL) {
      for (int c = 0; c < (row == column ? r + 1 : columns); c += kL) {
        const T* square = tile + r * kW + c;
        C *below = lower + r * stride + c, *above = upper + c * stride + r;
        const bool on_diagonal = row == column && r == c;
        if (r + kL <= rows && c + kL <= columns) {
          write_square<true>(square, below, above, stride, kL, kL, on_diagonal);
        } else {
          write_square<false>(square, below, above, stride, rows - r, columns - c, on_diagonal);
        }
      }
    }
  }

 private:
  static void prefetch_block(const Matrix& matrix, int64_t row, int64_t column) {
    Matrix block = matrix;
    block.data = static_cast<C*>(matrix.data) + row * kW * matrix.row_stride + column * kW;
    block.rows = panel_extent<T>(matrix.rows, row);
    block.columns = panel_extent<T>(matrix.columns, column);
    prefetch_slice({block, true}, 0, 1);
  }
};

}  // namespace kronext::cpu::KRONEXT_CPU
