// The instructions that CUDA C++ has no name for: tensor-core products, matrix loads from shared
// memory, asynchronous copies, packed conversions.
//
// Fragment layouts are those of the PTX ISA (sm_80 upward). tests/emulator/twins holds a twin of
// this header for the CPU, with the same names and layouts; tests/emulator/test_twins.py holds it
// against the ISA's tables.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

namespace kronext::cuda {

enum class Half { kBFloat16, kFloat16 };

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return uint32_t(__cvta_generic_to_shared(pointer));
}

// D += A B for a 16 x 16 A and a 16 x 8 B of 16-bit numbers, one warp. Products are exact; their
// sum with D is rounded towards zero, so long sums must not be left in D (see tensor_tile.cuh).
template <Half kind>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  if constexpr (kind == Half::kBFloat16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory, one warp: lane l gives the address of
// row l % 8 of matrix l / 8, 16 bytes each; `transposed` turns every matrix on the way.
template <bool transposed>
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  const uint32_t address = shared_address(row);
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}

// 16 bytes from global to shared memory, both aligned to 16. The copy may land at any time until it
// is waited for.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}

// Reads only the first `valid_bytes` and fills the rest with zeros. A size costs about six more
// instructions a copy, so the inside of a matrix does without.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, int valid_bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid_bytes)
               : "memory");
}

__device__ __forceinline__ void copy_async_4(void* shared, const void* global, int valid_bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid_bytes)
               : "memory");
}

__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `groups` of this thread's committed groups are still on their way.
template <int groups>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

// Two numbers rounded to nearest bfloat16, `low` in the low half.
__device__ __forceinline__ uint32_t pack_bfloat16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

__device__ __forceinline__ float bfloat16_to_float(uint16_t bits) {
  return __uint_as_float(uint32_t(bits) << 16);
}

__device__ __forceinline__ float float16_to_float(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// Tells the compiler that a pointer read from memory leads to global memory, which has instructions
// of its own.
template <class T>
__device__ __forceinline__ T* assume_global(T* pointer) {
  __builtin_assume(__isGlobal(pointer));
  return pointer;
}

// The same number, of which the compiler knows nothing: it works out again what depends on it,
// where it would else hold that in registers from early on.
__device__ __forceinline__ int forgotten(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// A load that goes past the first-level cache, which does not see what other blocks have written.
template <class T>
__device__ __forceinline__ T load_through_l2(const T* pointer) {
  return __ldcg(pointer);
}

// Leaves what other blocks will read in the second-level cache. One instruction for a vector, which
// the compiler does not always make of a plain store.
template <class T>
__device__ __forceinline__ void store_through_l2(T* pointer, const T& value) {
  __stcg(pointer, value);
}

}  // namespace kronext::cuda
