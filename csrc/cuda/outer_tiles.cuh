// The tiles that outer_update is built for, and their kernels' names.
#pragma once

#include "csrc/cuda/outer.h"
#include "csrc/cuda/outer_double.cuh"
#include "csrc/cuda/outer_tensor.cuh"

namespace kronext::cuda {

//                                               parts tile depth warps stages blocks
using BFloat16Small = TensorTile<Dtype::kBFloat16, 1, 64, 64, 2, 2, 3, 3>;
using BFloat16Large = TensorTile<Dtype::kBFloat16, 1, 128, 32, 2, 4, 4, 1>;
using Float16Small = TensorTile<Dtype::kFloat16, 1, 64, 64, 2, 2, 3, 3>;
using Float16Large = TensorTile<Dtype::kFloat16, 1, 128, 32, 2, 4, 4, 1>;
using OnePartSmall = TensorTile<Dtype::kFloat32, 1, 64, 32, 2, 2, 2, 3>;
using OnePartLarge = TensorTile<Dtype::kFloat32, 1, 128, 16, 2, 4, 3, 1>;
using TwoPartsSmall = TensorTile<Dtype::kFloat32, 2, 64, 32, 2, 2, 2, 2>;
using TwoPartsLarge = TensorTile<Dtype::kFloat32, 2, 128, 16, 2, 4, 3, 1>;
using ThreePartsSmall = TensorTile<Dtype::kFloat32, 3, 64, 32, 2, 2, 2, 2>;
using ThreePartsLarge = TensorTile<Dtype::kFloat32, 3, 128, 16, 2, 4, 3, 1>;

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
  return f(DoubleTile{});
}

}  // namespace kronext::cuda
