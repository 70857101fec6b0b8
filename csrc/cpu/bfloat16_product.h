// Products on the processor's bfloat16 units, and which matrices go there.
//
// vdpbf16ps (AVX512_BF16) multiplies as many pairs as an FMA multiplies float32 numbers, so it
// takes the micro-kernel of product.h with pairs for values. AMX multiplies by matrix tiles
// (tile_product.h). Products of bfloat16 numbers are exact in float32, and either unit sums them in
// float32.
#pragma once

#include "csrc/core/outer.h"
#include "csrc/core/precondition.h"
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

// In outer, bfloat16 does at every size. float32 does where fewer parts than three are allowed or,
// on AMX, at all, and from a size on at which the microsecond that asking for the precision takes
// is nothing.
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

// In precondition the factors are rounded or split whatever G is. So bfloat16 needs the permission
// too; beside three parts of a factor it would be multiplied by zeros. float16 is not exact in one
// part, and stays as it is. The size counts matrix by matrix, in lists too, where asking would be
// cheap: a matrix has the same bits in a list as alone.
constexpr double kLeastProduct = 1.5e6;  // multiply-adds; 96 x 96 with both factors has more

inline bool rounds_factors(const PreconditionProblem& p) {
  const double sides =
      (p.left.data ? double(p.g.rows) : 0) + (p.right.data ? double(p.g.columns) : 0);
  return p.out.dtype == Dtype::kFloat32 && p.g.dtype != Dtype::kFloat16 &&
         double(p.g.rows) * double(p.g.columns) * sides >= kLeastProduct;
}

inline int bfloat16_parts(const PreconditionProblem& p) {
  const int most = p.g.dtype == Dtype::kBFloat16 ? minimum(2, kMaxParts) : kMaxParts;
  return rounds_factors(p) && p.parts <= most ? p.parts : 0;
}

// As PlainProduct.
template <int parts>
struct BFloat16Product {
  using Value = BFloat16Pair;
  using Sum = float;
  using Panel = PairPanel<parts, kTiles>;
#if defined(KRONEXT_TILES)
  using Ready = ConfiguredTiles;
#else
  struct Ready {};
#endif

  static int64_t stride(int64_t depth) { return Panel::stride(depth); }

  static int64_t streamed_bytes(int64_t depth) {
    return stride(depth) * int64_t(sizeof(BFloat16Pair)) / (kTiles ? 2 : 1);
  }

  static void pack(const Matrix& x, int64_t first_row, BFloat16Pair* panel) {
    x.dtype == Dtype::kBFloat16 ? PairPacker<BFloat16, parts, kTiles>::run(x, first_row, panel)
                                : PairPacker<float, parts, kTiles>::run(x, first_row, panel);
  }

  static double scale(const BFloat16Pair* panel, int64_t depth) {
    return double(*reinterpret_cast<const float*>(panel + Panel::scale(depth)));
  }

  template <class Fetch>
  static void multiply_lower(const BFloat16Pair* panels, int64_t depth, const Strip& strip,
                             int rows, const Fetch& fetch, float* tiles) {
#if defined(KRONEXT_TILES)
    TileProduct<parts, GramTerms<parts>>::multiply_lower_strip(panels, stride(depth), depth, strip,
                                                               rows, fetch, tiles);
#else
    multiply_lower_strip(panels, stride(depth), ceil_divide<int64_t>(depth, 2), strip, rows, fetch,
                         tiles);
#endif
  }

  static void multiply(const PanelRun<BFloat16Pair>& rows, const PanelRun<BFloat16Pair>& columns,
                       int64_t depth, float* tiles) {
#if defined(KRONEXT_TILES)
    TileProduct<parts, ProductTerms<parts>>::multiply_block(rows, columns, depth, tiles);
#else
    multiply_block(rows, columns, ceil_divide<int64_t>(depth, 2), false, tiles);
#endif
  }

  // A panel whose tiles are rounded or split as soon as they are made.
  class Intermediate {
   public:
    Intermediate(BFloat16Pair* panel, float* tile, int rows, int64_t depth)
        : packer_(rows, depth, panel), tile_(tile) {}
    float* tile(int64_t) const { return tile_; }
    // The tile in the place that tile(index) named, times `scale`.
    void pack(int64_t index, double scale) {
      if (scale != 1) scale_tile(tile_, kPanel<float>, float(scale));
      packer_.pack_tile(tile_, index);
    }
    void finish() { packer_.lift(); }

   private:
    PairPacker<float, parts, kTiles> packer_;
    float* tile_;
  };
};

}  // namespace kronext::cpu::KRONEXT_CPU
