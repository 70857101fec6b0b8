// X XT on the processor's bfloat16 product units, and which matrices go there.
//
// vdpbf16ps (AVX512_BF16) multiplies as many pairs as an FMA multiplies float32 numbers, so it
// takes the micro-kernel of product.h with pairs for values. AMX multiplies by matrix tiles
// (tile_product.h). Products of bfloat16 numbers are exact in float32, and either unit sums them in
// float32.
#pragma once

#include "csrc/core/outer.h"
#include "csrc/cpu/bfloat16_panels.h"
#include "csrc/cpu/product.h"

#if defined(__AMX_BF16__) || defined(KRONEXT_EMULATED_TILES)
#define KRONEXT_TILES
#include "csrc/cpu/tile_product.h"
#endif

namespace kronext::cpu::KRONEXT_CPU {

#if defined(KRONEXT_TILES)
constexpr bool kTiles = true;
constexpr int kMaxParts = 3;
#else
constexpr bool kTiles = false;
constexpr int kMaxParts = 1;  // more are slower than float32
#endif

template <>
struct PanelValue<BFloat16Pair> {
  using Sum = float;
  static KRONEXT_INLINE Vector<float> multiply_add(Vector<BFloat16Pair> a, Vector<BFloat16Pair> b,
                                                   Vector<float> sum) {
    return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};

// ---- which matrices go to the unit --------------------------------------------------------------

// bfloat16 does at every size. float32 does where fewer parts than three are allowed or, on AMX, at
// all, and from a size on at which the microsecond that asking for the precision takes is nothing.
constexpr double kLeastSize = kTiles ? 1e6 : 4e6;  // rows^2 columns

inline bool is_large_float32(const OuterSide& side) {
  return side.x.dtype == Dtype::kFloat32 && side.factor.dtype == Dtype::kFloat32 &&
         double(side.x.rows) * double(side.x.rows) * double(side.x.columns) >= kLeastSize;
}

// The parts that the unit multiplies for each number of x; 0: float32 arithmetic.
inline int bfloat16_parts(const OuterSide& side) {
  if (side.factor.dtype != Dtype::kFloat32) return 0;
  if (side.x.dtype == Dtype::kBFloat16) return 1;
  return is_large_float32(side) && side.parts <= kMaxParts ? side.parts : 0;
}

// How outer.cpp takes the tiles of a product from the unit.
template <int parts>
struct BFloat16Product {
  using Sum = float;
  using Panel = PairPanel<parts, kTiles>;

  static int64_t panel_bytes(int64_t depth) {
    return Panel::stride(depth) * int64_t(sizeof(BFloat16Pair));
  }

  static int64_t streamed_bytes(int64_t depth) { return panel_bytes(depth) / (kTiles ? 2 : 1); }

  static void pack(const Matrix& x, int64_t first_row, void* panel) {
    BFloat16Pair* pairs = static_cast<BFloat16Pair*>(panel);
    if constexpr (parts == 1) {
      if (x.dtype == Dtype::kBFloat16)
        return PairPacker<BFloat16, parts, kTiles>::run(x, first_row, pairs);
    }
    PairPacker<float, parts, kTiles>::run(x, first_row, pairs);
  }

  template <class Fetch>
  static void multiply(const void* panels, int64_t depth, const Strip& strip, int rows,
                       const Fetch& fetch, float* tiles) {
    const BFloat16Pair* pairs = static_cast<const BFloat16Pair*>(panels);
#if defined(KRONEXT_TILES)
    TileProduct<parts>::multiply_strip(pairs, Panel::stride(depth), depth, strip, rows, fetch,
                                       tiles);
#else
    multiply_lower_strip(pairs, Panel::stride(depth), ceil_divide<int64_t>(depth, 2), strip, rows,
                         fetch, tiles);
#endif
  }

  static double scale(const void* panels, int64_t depth, int64_t panel) {
    const BFloat16Pair* pairs = static_cast<const BFloat16Pair*>(panels);
    const int64_t place = panel * Panel::stride(depth) + Panel::scale(depth);
    return double(*reinterpret_cast<const float*>(pairs + place));
  }
};

}  // namespace kronext::cpu::KRONEXT_CPU
