// Both products of a small matrix in one block: everything is read once and written once.
//
// All operands are on their way from the start. The first product, left G, stays in the registers:
// a warp has whole rows of it, and what tensor cores give to a lane as a result is what they take
// from that lane as a left operand, so its parts go straight into the second product.
//
// Bytes: both factors, G and the output, once each. Operations: 2 x 64^3 multiply-adds, times the
// number of products of parts.
#pragma once

#include <type_traits>

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/product_output.cuh"
#include "csrc/cuda/tensor_tile.cuh"

namespace kronext::cuda {

// Calls f with the layout of an operand as a constant.
template <class F>
__device__ __forceinline__ void with_layout(const Operand& operand, const F& f) {
  if (operand.transposed) {
    f(std::true_type{});
  } else {
    f(std::false_type{});
  }
}

// `First` makes z from a factor and G, `Second` the output from z and the other factor.
template <class First, class Second>
struct FusedTile {
  static constexpr int kThreads = First::kThreads, kBlocks = First::kBlocks;
  using Left = typename First::Left;
  using Right = typename First::Right;
  using Factor = typename Second::Right;
  using Sums = typename First::Sums;

  // What is copied, then planes; those of the left operand make room for those of the second
  // factor.
  static constexpr int kRightAt = Left::kStageBytes, kSecondAt = kRightAt + Right::kStageBytes;
  static constexpr int kLeftPlanesAt = kSecondAt + Factor::kStageBytes;
  static constexpr int kRightPlanesAt = kLeftPlanesAt + Left::kPlanesBytes;
  static constexpr int kWarpsAt = kRightPlanesAt + Right::kPlanesBytes;
  static constexpr int kSharedBytes = kWarpsAt + kMaxWarps * int(sizeof(float));

  static_assert(First::kRowTiles == 1 && First::kColumnTiles * 8 == First::kTile &&
                    First::kDepth == First::kTile,
                "a warp has whole rows, and a product is one chunk");
  static_assert(Left::kSplits && Factor::kSplits && Factor::kPlanesBytes <= Left::kPlanesBytes &&
                First::kTileBytes <= Left::kStageBytes);

  static __device__ __forceinline__ void copy(unsigned char* shared, const FusedTask& task) {
    with_layout(task.left, [&](auto transposed) {
      Left::template load<decltype(transposed)::value>(shared, task.left, 0, 0);
    });
    with_layout(task.right, [&](auto transposed) {
      Right::template load<decltype(transposed)::value>(shared + kRightAt, task.right, 0, 0);
    });
    copy_async_commit();
    if (task.second.data) {
      with_layout(task.second, [&](auto transposed) {
        Factor::template load<decltype(transposed)::value>(shared + kSecondAt, task.second, 0, 0);
      });
    }
    copy_async_commit();
  }

  static __device__ __forceinline__ void multiply_first(Sums& sums, unsigned char* shared,
                                                        const FusedTask& task) {
    unsigned char* const left = shared + kLeftPlanesAt;
    unsigned char* const right = shared + (Right::kSplits ? kRightPlanesAt : kRightAt);
    copy_async_wait<1>();
    with_layout(task.left, [&](auto transposed) {
      Left::template split<decltype(transposed)::value>(shared, left);
    });
    if constexpr (Right::kSplits) {
      with_layout(task.right, [&](auto transposed) {
        Right::template split<decltype(transposed)::value>(shared + kRightAt, right);
      });
    }
    __syncthreads();
    with_layout(task.left, [&](auto left_transposed) {
      with_layout(task.right, [&](auto right_transposed) {
        First::template multiply<decltype(left_transposed)::value,
                                 decltype(right_transposed)::value>(sums, left, right);
      });
    });
  }

  // Replaces z by the output.
  static __device__ __forceinline__ void multiply_second(Sums& sums, unsigned char* shared,
                                                         const FusedTask& task) {
    unsigned char* const planes = shared + kLeftPlanesAt;
    copy_async_wait<0>();
    __syncthreads();  // all have read the planes of the left operand
    with_layout(task.second, [&](auto transposed) {
      constexpr bool kTransposed = decltype(transposed)::value;
      Factor::template split<kTransposed>(shared + kSecondAt, planes);
      __syncthreads();
      float (&z)[First::kColumnTiles][4] = sums[0];
      Sums result = {};
      Second::multiply_fragments(
          result,
          // Parts are taken in their order, so each finds in z what those before it have left.
          [&](uint32_t (&a)[4], int, int, int k) {
            a[0] = take_part(z[k / 8][0], z[k / 8][1]);
            a[1] = take_part(z[k / 8][2], z[k / 8][3]);
            a[2] = take_part(z[k / 8 + 1][0], z[k / 8 + 1][1]);
            a[3] = take_part(z[k / 8 + 1][2], z[k / 8 + 1][3]);
          },
          [&](uint32_t (&b0)[2], uint32_t (&b1)[2], int part, int j, int k) {
            Factor::template right_fragments<kTransposed>(
                b0, b1, planes + part * Factor::kPlaneBytes, j * 8, k);
          });
#pragma unroll
      for (int j = 0; j < First::kColumnTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) z[j][e] = result[0][j][e];
      }
    });
  }
};

template <class First, class Second>
__global__ void __launch_bounds__(First::kThreads, First::kBlocks)
    fused_kernel(const FusedTask* tasks) {
  using Tile = FusedTile<First, Second>;
  KRONEXT_DYNAMIC_SHARED(shared);
  const FusedTask& task = tasks[blockIdx.x];
  float* const warps = reinterpret_cast<float*>(shared + Tile::kWarpsAt);
  Tile::copy(shared, task);
  typename Tile::Sums sums = {};
  Tile::multiply_first(sums, shared, task);
  if (task.second.data) Tile::multiply_second(sums, shared, task);
  if (task.norm) square_warps<First>(sums, warps);
  // Into the slots of the left operand, which only this thread has read, before the last barrier.
  First::spill(sums, reinterpret_cast<float*>(shared));
  __syncthreads();
  write_tile<First>(reinterpret_cast<const float*>(shared), task.out, 0, 0, task.left.x_count,
                    task.second.data ? task.second.x_count : task.right.x_count);
  if (task.norm && threadIdx.x == 0) *task.norm = sum_warps<First>(warps);
}

}  // namespace kronext::cuda
