// AMX: the instructions on the eight matrix tiles of a processor core, and their twin in plain C++.
//
// A tile is 16 rows of 64 bytes. The wrappers tell the compiler that they read and write memory,
// which the intrinsics of some compilers leave out. Under KRONEXT_EMULATED_TILES they compute what
// the instructions are defined to compute, so that everything above them runs bit for bit as on
// AMX; a use of tiles that are not configured traps, as it does there.
#pragma once

#include "csrc/cpu/simd.h"

namespace kronext::cpu::KRONEXT_CPU {

constexpr int kTileRows = 16, kTileRowBytes = 64;

struct TileConfiguration {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfiguration) == 64);

#define KRONEXT_EIGHT(x) {x, x, x, x, x, x, x, x}
alignas(64) constexpr TileConfiguration kTileConfiguration = {
    1, 0, {}, KRONEXT_EIGHT(kTileRowBytes), KRONEXT_EIGHT(kTileRows)};
#undef KRONEXT_EIGHT

#if !defined(KRONEXT_EMULATED_TILES)

KRONEXT_INLINE void configure_tiles(const TileConfiguration& configuration) {
  asm volatile("ldtilecfg %0" ::"m"(configuration));
}
KRONEXT_INLINE void release_tiles() { asm volatile("tilerelease"); }

template <int tile>
KRONEXT_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
template <int tile>
KRONEXT_INLINE void load_tile(const void* from, int64_t row_stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_stride_bytes), "i"(tile)
               : "memory");
}
// For what streams past the first-level cache.
template <int tile>
KRONEXT_INLINE void stream_tile(const void* from, int64_t row_stride_bytes) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_stride_bytes), "i"(tile)
               : "memory");
}
template <int tile>
KRONEXT_INLINE void store_tile(void* to, int64_t row_stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(row_stride_bytes), "i"(tile)
               : "memory");
}
// sum += left right: rows of 16 pairs of bfloat16 times 16 rows of pairs, in float32.
template <int sum, int left, int right>
KRONEXT_INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
}

#else

struct EmulatedTiles {
  TileConfiguration configuration;  // palette 0: not configured
  alignas(64) uint8_t tile[8][kTileRows][kTileRowBytes];

  void require(int number) const {
    const TileConfiguration& c = configuration;
    if (c.palette != 1 || c.rows[number] == 0 || c.row_bytes[number] == 0) __builtin_trap();
  }
};
inline thread_local EmulatedTiles emulated_tiles{};

inline void configure_tiles(const TileConfiguration& configuration) {
  emulated_tiles = {configuration, {}};
}
inline void release_tiles() { emulated_tiles = {}; }

template <int tile>
void zero_tile() {
  emulated_tiles.require(tile);
  __builtin_memset(emulated_tiles.tile[tile], 0, sizeof emulated_tiles.tile[tile]);
}
template <int tile>
void load_tile(const void* from, int64_t row_stride_bytes) {
  zero_tile<tile>();
  const TileConfiguration& c = emulated_tiles.configuration;
  for (int r = 0; r < c.rows[tile]; ++r) {
    __builtin_memcpy(emulated_tiles.tile[tile][r],
                     static_cast<const char*>(from) + r * row_stride_bytes, c.row_bytes[tile]);
  }
}
template <int tile>
void stream_tile(const void* from, int64_t row_stride_bytes) {
  load_tile<tile>(from, row_stride_bytes);
}
template <int tile>
void store_tile(void* to, int64_t row_stride_bytes) {
  emulated_tiles.require(tile);
  const TileConfiguration& c = emulated_tiles.configuration;
  for (int r = 0; r < c.rows[tile]; ++r) {
    __builtin_memcpy(static_cast<char*>(to) + r * row_stride_bytes, emulated_tiles.tile[tile][r],
                     c.row_bytes[tile]);
  }
}

// Denormal numbers are zero.
inline Vector<float> flushed(Vector<float> x) {
  return absolute<float>(x) < splat(__FLT_MIN__) ? Vector<float>{} : x;
}
inline Vector<float> fused_multiply_add(Vector<float> a, Vector<float> b, Vector<float> sum) {
  return flushed(
      (Vector<float>)_mm512_fmadd_ps((__m512)flushed(a), (__m512)flushed(b), (__m512)flushed(sum)));
}
inline Vector<float> widened_half(Vector<uint32_t> pairs, bool upper) {
  const Vector<uint32_t> mask = splat(uint32_t(0xffff0000));
  return (Vector<float>)(upper ? pairs & mask : pairs << 16);
}

// Intel's definition of TDPBF16PS: for each row the even and the odd steps of the depth are summed
// apart, from zero, by fused multiply-adds; then both are added up and to the sum. Operands and
// results are flushed, rounding is to nearest even.
template <int sum, int left, int right>
void multiply_tiles() {
  emulated_tiles.require(sum);
  emulated_tiles.require(left);
  emulated_tiles.require(right);
  const TileConfiguration& c = emulated_tiles.configuration;
  for (int m = 0; m < c.rows[sum]; ++m) {
    Vector<float> even{}, odd{};
    for (int k = 0; k < c.row_bytes[left] / 4; ++k) {
      uint32_t pair;
      __builtin_memcpy(&pair, emulated_tiles.tile[left][m] + 4 * k, 4);
      const Vector<uint32_t> factor = splat(pair);
      const auto pairs = load(reinterpret_cast<const uint32_t*>(emulated_tiles.tile[right][k]));
      even = fused_multiply_add(widened_half(factor, false), widened_half(pairs, false), even);
      odd = fused_multiply_add(widened_half(factor, true), widened_half(pairs, true), odd);
    }
    float* row = reinterpret_cast<float*>(emulated_tiles.tile[sum][m]);
    store(row, flushed(flushed(load(row)) + flushed(even + odd)));
  }
}

#endif

// Tiles are ready to be used by this thread for as long as this lives.
class ConfiguredTiles {
 public:
  ConfiguredTiles() { configure_tiles(kTileConfiguration); }
  ~ConfiguredTiles() { release_tiles(); }
  ConfiguredTiles(const ConfiguredTiles&) = delete;
  ConfiguredTiles& operator=(const ConfiguredTiles&) = delete;
};

}  // namespace kronext::cpu::KRONEXT_CPU
