// One-sided Jacobi: float32 rotations that make the columns of a matrix in shared memory
// orthogonal.
//
// A team of lanes holds two blocks of four columns in registers and rotates every column of one
// against every column of the other: lane l has rows 4 l .. 4 l + 3 of every stripe of 4 lanes
// rows. Dot products of four disjoint pairs are summed over the team together, and lane k of four
// works out the angle of pair k.
//
// A rotation is three shears,
//
//   x <- x - tan(theta/2) y,   y <- y + sin(theta) x,   x <- x - tan(theta/2) y,
//
// whose rounding errors are as small as the angle; with (cos, sin) columns would lose a unit in the
// last place even where nothing turns. Rotating the columns of M perturbs M MT as (I + E) M MT (I +
// E)T with |E| about 1e-6, so every eigenvalue keeps its relative accuracy.
//
// Operations: 3 n multiply-adds a rotation and 1 n for its dot product, about 2.2 n^3 a sweep with
// the squared norms. Bytes: 2 n^3 of shared memory a sweep.
#pragma once

#include "csrc/core/round_robin.h"
#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

constexpr int kColumnsOfBlock = 4;
constexpr int kMaxSweeps = 30;
// Columns with a smaller cosine are left alone: it is their rounding error.
constexpr float kOrthogonal = 1e-7f;
// What a last sweep may leave of the cosines.
constexpr float kConverged = 5e-7f;

// What a sweep met. A rotation by theta brings sin(theta) of other pairs' cosines back into a pair
// that is done, so a sweep leaves cosines of about the product of the two.
struct SweepRecord {
  float cosine = 0.f, tangent = 0.f;
};

__device__ __forceinline__ bool converged(const SweepRecord& largest) {
  return largest.cosine * fminf(largest.tangent, 1.f) <= kConverged;
}

struct Rotation {
  float half_tangent, sine;  // tan(theta / 2), sin(theta); 0 where nothing turns
  float transfer;            // of squared norm, from the left to the right column
};

// Approximate roots and quotients only, since exact ones call slow paths: an angle may be off by a
// few units in the last place, but the sine must fit the tangent, so its quotient gets a Newton
// step.
__device__ __forceinline__ Rotation rotation(float dot, float left_square, float right_square,
                                             SweepRecord& record) {
  Rotation r = {0.f, 0.f, 0.f};
  const float squares = left_square * right_square;
  if (dot * dot > kOrthogonal * kOrthogonal * squares) {
    const float tau = __fdividef(right_square - left_square, 2.f * dot), u = fmaf(tau, tau, 1.f);
    const float tangent = copysignf(__fdividef(1.f, fabsf(tau) + u * rsqrtf(u)), tau);
    const float v = fmaf(tangent, tangent, 1.f);
    r.half_tangent = __fdividef(tangent, 1.f + v * rsqrtf(v));
    const float w = fmaf(r.half_tangent, r.half_tangent, 1.f), quotient = __fdividef(1.f, w);
    r.sine = 2.f * r.half_tangent * fmaf(quotient, fmaf(-w, quotient, 1.f), quotient);
    r.transfer = tangent * dot;
    record.cosine = fmaxf(record.cosine, squares > 0.f ? fabsf(dot) * rsqrtf(squares) : 1.f);
    record.tangent = fmaxf(record.tangent, fabsf(tangent));
  }
  return r;
}

template <int kRows>
__device__ __forceinline__ float dot(const float (&x)[kRows], const float (&y)[kRows]) {
  float sum = x[0] * y[0];
#pragma unroll
  for (int e = 1; e < kRows; ++e) sum = fmaf(x[e], y[e], sum);
  return sum;
}

template <int kRows>
__device__ __forceinline__ void shear(float (&x)[kRows], float (&y)[kRows], float half_tangent,
                                      float sine) {
#pragma unroll
  for (int e = 0; e < kRows; ++e) {
    x[e] = fmaf(-half_tangent, y[e], x[e]);
    y[e] = fmaf(sine, x[e], y[e]);
    x[e] = fmaf(-half_tangent, y[e], x[e]);
  }
}

// The sums over a team of four numbers a lane; lane l gets number l % 4. Selects keep all four in
// registers.
template <int kLanes>
__device__ __forceinline__ float sum_of_four(float a, float b, float c, float d, unsigned mask,
                                             int lane) {
  const bool odd = lane & 1, upper = lane & 2;
  float low = odd ? b : a, high = odd ? d : c;
  low += __shfl_xor_sync(mask, odd ? a : b, 1);
  high += __shfl_xor_sync(mask, odd ? c : d, 1);
  float sum = upper ? high : low;
  sum += __shfl_xor_sync(mask, upper ? low : high, 2);
#pragma unroll
  for (int bit = 4; bit < kLanes; bit *= 2) sum += __shfl_xor_sync(mask, sum, bit);
  return sum;
}

// Columns as they lie in shared memory, one after the other; rows up to the next multiple of 4 are
// zero, and `pitch`, a multiple of 4, is not one of 32, so that teams read different banks.
struct Columns {
  float* data;
  int pitch, n;
};

__host__ __device__ inline int column_pitch(int n) {
  const int rows = (n + 3) & ~3;
  return rows % 32 == 0 ? rows + 4 : rows;
}

// kLanes lanes of one warp, which `mask` names; kRows rows a lane.
template <int kLanes, int kRows>
struct ColumnPair {
  float x[2 * kColumnsOfBlock][kRows];

  // Columns and rows beyond the matrix are zero, and stay so.
  __device__ __forceinline__ void load(const Columns& columns, const BlockPair& blocks, int lane,
                                       bool present) {
#pragma unroll
    for (int c = 0; c < 2 * kColumnsOfBlock; ++c) {
#pragma unroll
      for (int e = 0; e < kRows; e += 4) {
        const int column = column_of(blocks, c), row = e * kLanes + lane * 4;
        float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
        if (present && column < columns.n && row < columns.n) {
          four = *reinterpret_cast<const float4*>(columns.data + column * columns.pitch + row);
        }
        x[c][e] = four.x, x[c][e + 1] = four.y, x[c][e + 2] = four.z, x[c][e + 3] = four.w;
      }
    }
  }

  __device__ __forceinline__ void store(const Columns& columns, const BlockPair& blocks, int lane,
                                        bool present) const {
#pragma unroll
    for (int c = 0; c < 2 * kColumnsOfBlock; ++c) {
#pragma unroll
      for (int e = 0; e < kRows; e += 4) {
        const int column = column_of(blocks, c), row = e * kLanes + lane * 4;
        if (present && column < columns.n && row < columns.n) {
          *reinterpret_cast<float4*>(columns.data + column * columns.pitch + row) =
              make_float4(x[c][e], x[c][e + 1], x[c][e + 2], x[c][e + 3]);
        }
      }
    }
  }

  // All pairs between the two blocks, and where `inside` all pairs inside each too. False if no
  // column has changed.
  __device__ __forceinline__ bool rotate(bool inside, unsigned mask, int lane,
                                         SweepRecord& record) {
    bool changed = false;
    if (inside) {
#pragma unroll
      for (int bits = 1; bits < kColumnsOfBlock; ++bits) {
        const auto pair = [bits](int k, bool right) {
          const int first = bits == 1 ? 2 * (k & 1) : k & 1;
          return (k >> 1) * kColumnsOfBlock + (right ? first ^ bits : first);
        };
        const float product = sums(mask, lane, pair);
        const float left = sums(mask, lane, [&](int k, bool) { return pair(k, false); });
        const float right = sums(mask, lane, [&](int k, bool) { return pair(k, true); });
        changed |= apply(mask, lane, rotation(product, left, right, record), pair);
      }
    }
    float left = sums(mask, lane, [](int k, bool) { return k; });
    float right = sums(mask, lane, [](int k, bool) { return kColumnsOfBlock + k; });
#pragma unroll
    for (int step = 0; step < kColumnsOfBlock; ++step) {
      const auto pair = [step](int k, bool right) {
        return right ? kColumnsOfBlock + ((k + step) & 3) : k;
      };
      const Rotation r = rotation(sums(mask, lane, pair), left, right, record);
      changed |= apply(mask, lane, r, pair);
      left -= r.transfer;
      right += r.transfer;
      if (step < 3) right = __shfl_sync(mask, right, (lane & ~3) | ((lane + 1) & 3), kLanes);
    }
    return changed;
  }

 private:
  static __device__ __forceinline__ int column_of(const BlockPair& blocks, int c) {
    return (c < kColumnsOfBlock ? blocks.left : blocks.right) * kColumnsOfBlock +
           c % kColumnsOfBlock;
  }

  // The dot product of pair(k) in the lanes with l % 4 = k.
  template <class Pair>
  __device__ __forceinline__ float sums(unsigned mask, int lane, const Pair& pair) const {
    return sum_of_four<kLanes>(dot(x[pair(0, false)], x[pair(0, true)]),
                               dot(x[pair(1, false)], x[pair(1, true)]),
                               dot(x[pair(2, false)], x[pair(2, true)]),
                               dot(x[pair(3, false)], x[pair(3, true)]), mask, lane);
  }

  template <class Pair>
  __device__ __forceinline__ bool apply(unsigned mask, int lane, const Rotation& r,
                                        const Pair& pair) {
    if (!__any_sync(mask, r.half_tangent != 0.f)) return false;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float half_tangent = __shfl_sync(mask, r.half_tangent, k, kLanes);
      const float sine = __shfl_sync(mask, r.sine, k, kLanes);
      shear(x[pair(k, false)], x[pair(k, true)], half_tangent, sine);
    }
    return true;
  }
};

}  // namespace kronext::cuda
