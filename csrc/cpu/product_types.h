// The kinds of products of packed panels, with one interface: what outer and precondition are
// written in. Here that of plain arithmetic; bfloat16_product.h has those of the bfloat16 units.
#pragma once

#include "csrc/cpu/product.h"

namespace kronext::cpu::KRONEXT_CPU {

// Products in arithmetic of type T.
template <class T>
struct PlainProduct {
  using Value = T;  // of a packed panel
  using Sum = T;
  struct Ready {};  // what a thread holds while it multiplies

  // Values of a packed panel, up to the next one.
  static int64_t stride(int64_t depth) { return panel_stride<T>(depth); }

  // Of what the second-level cache should keep: a panel as right operand.
  static int64_t streamed_bytes(int64_t depth) { return stride(depth) * int64_t(sizeof(T)); }

  static void pack(const Matrix& x, int64_t first_row, T* panel) {
    pack_panel<T>(x, first_row, panel);
  }

  // What the numbers of a packed panel are to be multiplied by.
  static double scale(const T*, int64_t) { return 1; }

  // Tiles on or below the diagonal of X XT.
  template <class Fetch>
  static void multiply_lower(const T* panels, int64_t depth, const Strip& strip, int rows,
                             const Fetch& fetch, T* tiles) {
    multiply_lower_strip(panels, stride(depth), depth, strip, rows, fetch, tiles);
  }

  static void multiply(const PanelRun<T>& rows, const PanelRun<T>& columns, int64_t depth,
                       T* tiles) {
    multiply_block<T>(rows, columns, depth, false, tiles);
  }

  // A panel made of tiles [depth][row] that products leave, one after another: as they lie.
  class Intermediate {
   public:
    Intermediate(T* panel, T*, int, int64_t) : panel_(panel) {}
    T* tile(int64_t index) const { return panel_ + index * kTileSize<T>; }
    void pack(int64_t, double) {}
    void finish() {}

   private:
    T* panel_;
  };
};

}  // namespace kronext::cpu::KRONEXT_CPU

#if defined(__AVX512BF16__)
#include "csrc/cpu/bfloat16_product.h"
#endif
