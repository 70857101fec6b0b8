// The tiles that outer_update is built for, and their kernels' names.
#pragma once

#include "csrc/cuda/double_tile.cuh"
#include "csrc/cuda/outer.h"
#include "csrc/cuda/tensor_tile.cuh"

namespace kronext::cuda {

// Two parts of float32 rounded x: only all four of their products make a positive semi-definite
// Gram matrix, that of the rounded number.
constexpr int gram_order(int parts) { return parts == 2 ? 2 : parts - 1; }

template <class Shape, Dtype dtype, int parts>
using SquareTile = TensorTile<Shape, dtype, parts, dtype, parts, gram_order(parts)>;

template <class Shape, Dtype dtype, int parts = 1>
struct GramTile : SquareTile<Shape, dtype, parts> {
  using Base = SquareTile<Shape, dtype, parts>;

  // A gradient that is one tile is read once, whole, and serves both sides.
  static constexpr bool kPairs = Base::kTile <= 64;
  using WholeShape =
      TileShape<Base::kTile, Base::kTile, Shape::kWarpRows, Shape::kWarpColumns, 1, Base::kBlocks>;
  using Whole = SquareTile<WholeShape, dtype, parts>;
  using Panel = typename Whole::Left;
  static constexpr int kPlanesAt = Base::kTileBytes + (Panel::kSplits ? Panel::kStageBytes : 0);
  static constexpr int kPairBytes =
      kPlanesAt + (Panel::kSplits ? Panel::kPlanesBytes : Panel::kStageBytes);
  static constexpr int kSharedBytes =
      kPairs && kPairBytes > Base::kSharedBytes ? kPairBytes : Base::kSharedBytes;

  // All of X, for both sides of a pair, behind the tile of the epilogue.
  static __device__ __forceinline__ void load_pair(unsigned char* shared, const Operand& x) {
    Panel::template load<false>(shared + Base::kTileBytes, x, 0, 0);
    copy_async_commit();
    copy_async_wait<0>();
    if constexpr (Panel::kSplits) {
      Panel::template split<false>(shared + Base::kTileBytes, shared + kPlanesAt);
    }
    __syncthreads();
  }

  static __device__ __forceinline__ void multiply_pair(typename Base::Sums& sums,
                                                       const unsigned char* shared,
                                                       bool transposed) {
    constexpr int kUnroll = Panel::kSplits ? 1 : Base::kTile / 16;  // parts need the registers
    const unsigned char* const x = shared + kPlanesAt;
    if (transposed) {
      Whole::template multiply<true, true, kUnroll>(sums, x, x);
    } else {
      Whole::template multiply<false, false, kUnroll>(sums, x, x);
    }
  }
};

struct DoubleGramTile : DoubleTile {
  static constexpr bool kPairs = false;
};

//                   tile depth warps lead blocks
using Small16 = TileShape<64, 64, 2, 2, 2, 3>;
using Large16 = TileShape<128, 32, 2, 4, 3, 1>;
using BFloat16Small = GramTile<Small16, Dtype::kBFloat16>;
using BFloat16Large = GramTile<Large16, Dtype::kBFloat16>;
using Float16Small = GramTile<Small16, Dtype::kFloat16>;
using Float16Large = GramTile<Large16, Dtype::kFloat16>;
using OnePartSmall = GramTile<TileShape<64, 32, 2, 2, 2, 3>, Dtype::kFloat32, 1>;
using TwoPartsSmall = GramTile<TileShape<64, 32, 2, 2, 2, 2>, Dtype::kFloat32, 2>;
using ThreePartsSmall = GramTile<TileShape<64, 32, 2, 2, 2, 2>, Dtype::kFloat32, 3>;
using Large32 = TileShape<128, 16, 2, 4, 3, 1>;
using OnePartLarge = GramTile<Large32, Dtype::kFloat32, 1>;
using TwoPartsLarge = GramTile<Large32, Dtype::kFloat32, 2>;
using ThreePartsLarge = GramTile<Large32, Dtype::kFloat32, 3>;

// Calls f with the tile of a kernel.
template <class F>
auto with_tile(OuterKernel kernel, const F& f) {
  switch (kernel) {
    case OuterKernel::kBFloat16Small:
      return f(BFloat16Small{});
    case OuterKernel::kBFloat16Large:
      return f(BFloat16Large{});
    case OuterKernel::kFloat16Small:
      return f(Float16Small{});
    case OuterKernel::kFloat16Large:
      return f(Float16Large{});
    case OuterKernel::kOnePartSmall:
      return f(OnePartSmall{});
    case OuterKernel::kOnePartLarge:
      return f(OnePartLarge{});
    case OuterKernel::kTwoPartsSmall:
      return f(TwoPartsSmall{});
    case OuterKernel::kTwoPartsLarge:
      return f(TwoPartsLarge{});
    case OuterKernel::kThreePartsSmall:
      return f(ThreePartsSmall{});
    case OuterKernel::kThreePartsLarge:
      return f(ThreePartsLarge{});
    case OuterKernel::kDouble:
      break;
  }
  return f(DoubleGramTile{});
}

}  // namespace kronext::cuda
