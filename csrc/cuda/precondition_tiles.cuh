// The tiles that precondition is built for.
#pragma once

#include <type_traits>

#include "csrc/cuda/double_tile.cuh"
#include "csrc/cuda/precondition.h"
#include "csrc/cuda/precondition_fused.cuh"
#include "csrc/cuda/tensor_tile.cuh"

namespace kronext::cuda {

//                        tile depth warps lead blocks
using FusedShape = TileShape<64, 64, 4, 1, 1, 2>;
using SmallShape = TileShape<64, 32, 2, 2, 2, 2>;
using LargeShape = TileShape<128, 16, 2, 4, 3, 1>;

// float16 is exact in two parts at every precision, as bfloat16 is in one.
constexpr int parts_of_g(Dtype g, int factor_parts) {
  return g == Dtype::kFloat32 ? factor_parts : g == Dtype::kFloat16 ? 2 : 1;
}

template <class Shape, Dtype g, int parts>
using ProductTile = TensorTile<Shape, Dtype::kFloat32, parts, g, parts_of_g(g, parts)>;

// Calls f(g, parts) with constants.
template <class F>
auto with_arithmetic(const ProductKernel& kernel, const F& f) {
  const auto with_parts = [&](auto g) {
    switch (kernel.precision) {
      case MatmulPrecision::kMedium:
        return f(g, std::integral_constant<int, 1>{});
      case MatmulPrecision::kHigh:
        return f(g, std::integral_constant<int, 2>{});
      case MatmulPrecision::kHighest:
        break;
    }
    return f(g, std::integral_constant<int, 3>{});
  };
  switch (kernel.g) {
    case Dtype::kBFloat16:
      return with_parts(std::integral_constant<Dtype, Dtype::kBFloat16>{});
    case Dtype::kFloat16:
      return with_parts(std::integral_constant<Dtype, Dtype::kFloat16>{});
    default:
      return with_parts(std::integral_constant<Dtype, Dtype::kFloat32>{});
  }
}

// Calls f with the tile of a kernel of product_kernel.
template <class F>
auto with_product_tile(const ProductKernel& kernel, const F& f) {
  if (kernel.g == Dtype::kFloat64) return f(DoubleTile{});
  return with_arithmetic(kernel, [&](auto g, auto parts) {
    constexpr Dtype kG = decltype(g)::value;
    constexpr int kParts = decltype(parts)::value;
    return kernel.tiles == ProductTiles::kSmall ? f(ProductTile<SmallShape, kG, kParts>{})
                                                : f(ProductTile<LargeShape, kG, kParts>{});
  });
}

// Calls f with both tiles of a kernel of fused_kernel.
template <class F>
auto with_fused_tiles(const ProductKernel& kernel, const F& f) {
  return with_arithmetic(kernel, [&](auto g, auto parts) {
    constexpr int kParts = decltype(parts)::value;
    return f(ProductTile<FusedShape, decltype(g)::value, kParts>{},
             ProductTile<FusedShape, Dtype::kFloat32, kParts>{});
  });
}

}  // namespace kronext::cuda
