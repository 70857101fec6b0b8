// The arithmetics that sums of congruences are built for.
#pragma once

#include "csrc/cuda/double_tile.cuh"
#include "csrc/cuda/power_iteration.h"
#include "csrc/cuda/tensor_tile.cuh"

namespace kronext::cuda {

// The left operand is made of samples, the right one of samples too (pairs) or of float32 numbers.
using PairShape = TileShape<64, 64, 2, 2, 2, 3>;
using MixedShape = TileShape<64, 32, 2, 2, 2, 2>;

template <int parts>
using BFloat16Congruence = TensorTile<MixedShape, Dtype::kBFloat16, 1, Dtype::kFloat32, parts>;
// Two parts hold a float16 exactly.
template <int parts>
using Float16Congruence = TensorTile<MixedShape, Dtype::kFloat16, 2, Dtype::kFloat32, parts>;
template <int parts>
using Float32Congruence = TensorTile<MixedShape, Dtype::kFloat32, parts, Dtype::kFloat32, parts>;

// Calls f with the tile of a kernel.
template <class F>
auto with_congruence_tile(CongruenceKernel kernel, const F& f) {
  switch (kernel) {
    case CongruenceKernel::kBFloat16Pairs:
      return f(TensorTile<PairShape, Dtype::kBFloat16, 1, Dtype::kBFloat16, 1>{});
    case CongruenceKernel::kFloat16Pairs:
      return f(TensorTile<PairShape, Dtype::kFloat16, 1, Dtype::kFloat16, 1>{});
    case CongruenceKernel::kBFloat16OnePart:
      return f(BFloat16Congruence<1>{});
    case CongruenceKernel::kBFloat16TwoParts:
      return f(BFloat16Congruence<2>{});
    case CongruenceKernel::kBFloat16ThreeParts:
      return f(BFloat16Congruence<3>{});
    case CongruenceKernel::kFloat16OnePart:
      return f(Float16Congruence<1>{});
    case CongruenceKernel::kFloat16TwoParts:
      return f(Float16Congruence<2>{});
    case CongruenceKernel::kFloat16ThreeParts:
      return f(Float16Congruence<3>{});
    case CongruenceKernel::kFloat32OnePart:
      return f(Float32Congruence<1>{});
    case CongruenceKernel::kFloat32TwoParts:
      return f(Float32Congruence<2>{});
    case CongruenceKernel::kFloat32ThreeParts:
      return f(Float32Congruence<3>{});
    case CongruenceKernel::kDouble:
      break;
  }
  return f(DoubleTile{});
}

}  // namespace kronext::cuda
