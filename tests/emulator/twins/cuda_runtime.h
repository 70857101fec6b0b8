// The twin of the CUDA toolkit's header: the vocabulary that kernels and their launchers use.
//
// There is no __shared__: kernels take shared memory through KRONEXT_DYNAMIC_SHARED alone, which
// starts as NaN for every block here.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tests/emulator/runtime/emulator.h"

#define __global__ inline  // so that headers may define kernels, as nvcc allows
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

// ---- host --------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
using cudaStream_t = struct CUstream_st*;

inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  memset(memory, value, bytes);
  return cudaSuccess;
}

enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  if (bytes > 0) memcpy(to, from, bytes);
  return cudaSuccess;
}

// ---- vectors -----------------------------------------------------------------------------------

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- where a thread is -------------------------------------------------------------------------

#define threadIdx (::kronext::emulator::thread_index())
#define blockIdx (::kronext::emulator::block_index())
#define blockDim (::kronext::emulator::block_size())
#define gridDim (::kronext::emulator::grid_size())

// ---- synchronisation ---------------------------------------------------------------------------

#define KRONEXT_HERE ::kronext::emulator::Location where = ::kronext::emulator::Location::current()

inline void __syncthreads(KRONEXT_HERE) { kronext::emulator::block_barrier(where); }
inline void __syncwarp(unsigned mask = ~0u, KRONEXT_HERE) {
  kronext::emulator::warp_barrier(mask, where);
}
inline void __threadfence() { kronext::emulator::preempt(); }

template <class T>
T kronext_emulated_shuffle(unsigned mask, T value, int width, const char* what,
                           const kronext::emulator::Location& where, int (*source)(int, int),
                           int argument) {
  using namespace kronext::emulator;
  struct Lane {
    T value;
    int from;
  };
  // Each lane says whom it reads; a source outside its segment is the lane itself.
  const int lane = lane_index(), first = lane / width * width;
  const int wanted = source(lane, argument);
  const int from = wanted < first || wanted >= first + width ? lane : wanted;
  if (mask != kWholeWarp && !(mask >> from & 1)) {
    fail(std::string(what) + " reads lane " + std::to_string(from) + " outside the mask", where);
  }
  return collective<T>(mask, what, where, Lane{value, from},
                       [](uint32_t lanes, const Lane* in, T* out) {
                         for (int l = 0; l < kWarpSize; ++l) {
                           if (lanes >> l & 1) out[l] = in[in[l].from].value;
                         }
                       });
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, KRONEXT_HERE) {
  const int first = kronext::emulator::lane_index() / width * width;
  return kronext_emulated_shuffle(
      mask, value, width, "__shfl_sync", where, [](int, int a) { return a; },
      first + source % width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, KRONEXT_HERE) {
  return kronext_emulated_shuffle(
      mask, value, width, "__shfl_up_sync", where, [](int lane, int a) { return lane - a; },
      int(delta));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, KRONEXT_HERE) {
  return kronext_emulated_shuffle(
      mask, value, width, "__shfl_down_sync", where, [](int lane, int a) { return lane + a; },
      int(delta));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, KRONEXT_HERE) {
  return kronext_emulated_shuffle(
      mask, value, width, "__shfl_xor_sync", where, [](int lane, int a) { return lane ^ a; }, bits);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, KRONEXT_HERE) {
  using namespace kronext::emulator;
  return collective<unsigned>(mask, "__ballot_sync", where, predicate != 0,
                              [](uint32_t lanes, const bool* in, unsigned* out) {
                                unsigned votes = 0;
                                for (int l = 0; l < kWarpSize; ++l) {
                                  if (lanes >> l & 1 && in[l]) votes |= 1u << l;
                                }
                                for (int l = 0; l < kWarpSize; ++l) out[l] = votes;
                              });
}

inline bool __any_sync(unsigned mask, int predicate, KRONEXT_HERE) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, KRONEXT_HERE) {
  using namespace kronext::emulator;
  return collective<unsigned>(mask, "__reduce_max_sync", where, value,
                              [](uint32_t lanes, const unsigned* in, unsigned* out) {
                                unsigned largest = 0;
                                for (int l = 0; l < kWarpSize; ++l) {
                                  if (lanes >> l & 1 && in[l] > largest) largest = in[l];
                                }
                                for (int l = 0; l < kWarpSize; ++l) out[l] = largest;
                              });
}

// Blocks run one after another, so an atomic only has to be a place where others may go first.
template <class T>
T atomicAdd(T* target, T value) {
  kronext::emulator::preempt();
  return __atomic_fetch_add(target, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicMax(T* target, T value) {
  kronext::emulator::preempt();
  T old = __atomic_load_n(target, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(target, &old, value, true, __ATOMIC_RELAXED,
                                                     __ATOMIC_RELAXED)) {
  }
  return old;
}

// ---- arithmetic --------------------------------------------------------------------------------

inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }

// The approximate instructions are off by two units in the last place at most, and so are these: by
// what the bits of the result decide.
inline float kronext_emulated_approximation(float exact) {
  const uint32_t bits = __float_as_uint(exact);
  if (exact == 0 || !isfinite(exact)) return exact;
  return __uint_as_float(bits + (bits * 2654435761u >> 16) % 5 - 2);
}
inline float rsqrtf(float x) { return kronext_emulated_approximation(float(1 / sqrt(double(x)))); }
inline float __fdividef(float x, float y) { return kronext_emulated_approximation(x / y); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
