// The twin of csrc/cuda/ptx.cuh: each instruction as plain C++, with the fragment layouts of the
// PTX ISA.
#pragma once

#include <cuda_runtime.h>

// Tells TSan of a write that it cannot see; absent in a program without TSan.
extern "C" void __tsan_write_range(void*, unsigned long) __attribute__((weak));

namespace kronext::cuda {

enum class Half { kBFloat16, kFloat16 };

inline float bfloat16_to_float(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }

inline float float16_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000) << 16;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | uint32_t(fraction) << 13);
  const float magnitude =
      exponent ? ldexpf(float(1024 + fraction), exponent - 25) : ldexpf(float(fraction), -24);
  return sign ? -magnitude : magnitude;
}

// Rounds towards zero, as the accumulator of a tensor core does (Fasi et al. 2021).
inline float truncate_to_float(double exact) {
  const float nearest = float(exact);
  if (!isfinite(nearest) || fabs(double(nearest)) <= fabs(exact)) return nearest;
  return __uint_as_float(__float_as_uint(nearest) - 1);
}

template <Half kind>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], KRONEXT_HERE) {
  struct Fragments {
    uint16_t a[8], b[4];
    float d[4];
  };
  struct Result {
    float d[4];
  };
  Fragments mine;
  memcpy(mine.a, a, sizeof(mine.a));
  memcpy(mine.b, b, sizeof(mine.b));
  memcpy(mine.d, d, sizeof(mine.d));
  const auto combine = [](uint32_t, const Fragments* in, Result* out) {
    const auto value = [](uint16_t bits) {
      return kind == Half::kBFloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
    };
    double a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4, member = lane % 4;
      for (int i = 0; i < 8; ++i) {
        a[group + i / 2 % 2 * 8][member * 2 + i % 2 + i / 4 * 8] = value(in[lane].a[i]);
      }
      for (int i = 0; i < 4; ++i) b[member * 2 + i % 2 + i / 2 * 8][group] = value(in[lane].b[i]);
      for (int i = 0; i < 4; ++i) d[group + i / 2 * 8][member * 2 + i % 2] = in[lane].d[i];
    }
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < 16; ++k) {
        for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        out[lane].d[i] = truncate_to_float(d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
      }
    }
  };
  const Result result =
      emulator::collective<Result>(emulator::kWholeWarp, "mma.m16n8k16", where, mine, combine);
  memcpy(d, result.d, sizeof(d));
}

template <bool transposed>
void ldmatrix_x4(uint32_t (&r)[4], const void* row, KRONEXT_HERE) {
  struct Row {
    uint16_t element[8];
  };
  struct Registers {
    uint16_t half[8];
  };
  if (uintptr_t(row) % 16) emulator::fail("ldmatrix: a row must be aligned to 16 bytes", where);
  Row mine;
  for (int i = 0; i < 8; ++i) mine.element[i] = static_cast<const uint16_t*>(row)[i];
  const auto combine = [](uint32_t, const Row* in, Registers* out) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 8; ++i) {
        const int matrix = i / 2, across = lane / 4, along = lane % 4 * 2 + i % 2;
        out[lane].half[i] = transposed ? in[8 * matrix + along].element[across]
                                       : in[8 * matrix + across].element[along];
      }
    }
  };
  const Registers result = emulator::collective<Registers>(
      emulator::kWholeWarp, transposed ? "ldmatrix.x4.trans" : "ldmatrix.x4", where, mine, combine);
  memcpy(r, result.half, sizeof(r));
}

// The runtime copies out of the sanitizers' sight, so the twin shows them the accesses: source and
// destination when the copy starts, the destination again when it is waited for, since the hardware
// writes at any time in between.
inline void start_copy_in_sight(void* shared, const void* global, int bytes, int valid_bytes,
                                const emulator::Location& where) {
  if (uintptr_t(shared) % bytes || uintptr_t(global) % bytes) {
    emulator::fail("cp.async: an address is not a multiple of the size", where);
  }
  if (valid_bytes < 0 || valid_bytes > bytes) {
    emulator::fail("cp.async: the source size is out of range", where);
  }
  for (int i = 0; i < valid_bytes; ++i) (void)static_cast<const volatile char*>(global)[i];
  (void)static_cast<volatile char*>(shared)[0];
  (void)static_cast<volatile char*>(shared)[bytes - 1];
  if (__tsan_write_range) __tsan_write_range(shared, bytes);
  emulator::start_copy(shared, global, bytes, valid_bytes);
}

inline void copy_async_16(void* shared, const void* global, KRONEXT_HERE) {
  start_copy_in_sight(shared, global, 16, 16, where);
}

inline void copy_async_16(void* shared, const void* global, int valid_bytes, KRONEXT_HERE) {
  start_copy_in_sight(shared, global, 16, valid_bytes, where);
}

inline void copy_async_4(void* shared, const void* global, int valid_bytes, KRONEXT_HERE) {
  start_copy_in_sight(shared, global, 4, valid_bytes, where);
}

inline void copy_async_commit() { emulator::commit_copies(); }

template <int groups>
void copy_async_wait() {
  if (__tsan_write_range)
    emulator::for_each_landing_copy(
        groups, [](void* to, uint32_t bytes) { __tsan_write_range(to, bytes); });
  emulator::land_copies(groups);
}

inline uint16_t round_to_bfloat16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if (isnan(value)) return 0x7fff;
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint32_t pack_bfloat16(float low, float high) {
  return round_to_bfloat16(low) | uint32_t(round_to_bfloat16(high)) << 16;
}

template <class T>
T* assume_global(T* pointer) {
  return pointer;
}

inline int forgotten(int value) { return value; }

template <class T>
T load_through_l2(const T* pointer) {
  return *pointer;
}

template <class T>
void store_through_l2(T* pointer, const T& value) {
  *pointer = value;
}

}  // namespace kronext::cuda
