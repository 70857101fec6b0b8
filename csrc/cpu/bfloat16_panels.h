// Packing for the processor's bfloat16 product units: panels of pairs.
//
// A pair is two neighbouring steps of the depth of one row, as bfloat16 numbers in one 32-bit word:
// what vdpbf16ps and tdpbf16ps multiply at once. A panel is laid out as in pack.h with pairs for
// values, [pair][kPanel]. Matrix tiles take their left operand in rows of 16 pairs, [16 pairs][row]
// [pair], so panels for them hold both forms; packing makes one from the other by transposes in
// registers. A float32 number becomes the sum of `parts` bfloat16 ones, each the nearest to what is
// left, every part in a plane of its own.
//
// The units take denormal numbers for zero, operands, products and sums. So that this does no
// harm, a panel of numbers below 2^-32 is multiplied by the power of two that lifts the largest to
// there, and the panel keeps the inverse for the epilogue: then what is lost is below 2^-62 of the
// largest product. A panel that holds infinity or NaN stays as it is.
#pragma once

#include "csrc/cpu/pack.h"

namespace kronext::cpu::KRONEXT_CPU {

using BFloat16Pair = uint32_t;

// ---- 16 + 16 numbers as bfloat16 ----------------------------------------------------------------

// Lanes [0, count) of 16; count may be less than 0 or more than 16.
KRONEXT_INLINE __mmask16 lanes_before(int64_t count) {
  return count >= 16 ? 0xffff : count > 0 ? __mmask16((1u << count) - 1) : 0;
}

// The words whose upper halves are 16 bfloat16 numbers: float32 numbers.
KRONEXT_INLINE Vector<float> widened(__m256i numbers) {
  return (Vector<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16);
}

template <int parts>
KRONEXT_INLINE void load_parts(const BFloat16* first, __mmask16 first_lanes, const BFloat16* second,
                               __mmask16 second_lanes, __m512i* part) {
  for (int s = 1; s < parts; ++s) part[s] = _mm512_setzero_si512();
  part[0] = _mm512_inserti64x4(_mm512_zextsi256_si512(_mm256_maskz_loadu_epi16(first_lanes, first)),
                               _mm256_maskz_loadu_epi16(second_lanes, second), 1);
}

template <int parts>
KRONEXT_INLINE void load_parts(const float* first, __mmask16 first_lanes, const float* second,
                               __mmask16 second_lanes, __m512i* part) {
  Vector<float> low = (Vector<float>)_mm512_maskz_loadu_ps(first_lanes, first);
  Vector<float> high = (Vector<float>)_mm512_maskz_loadu_ps(second_lanes, second);
  for (int s = 0; s < parts; ++s) {
    part[s] = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    low -= widened(_mm512_castsi512_si256(part[s]));
    high -= widened(_mm512_extracti64x4_epi64(part[s], 1));
  }
}

// (0, 16), (1, 17), ...: pairs of 16 rows from two steps of the depth.
KRONEXT_INLINE __m512i interleaved(__m512i halves) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}

// ---- one panel ----------------------------------------------------------------------------------

// Where the planes of a panel lie, in pairs.
template <int parts, bool with_rows>
struct PairPanel {
  static constexpr int kBlock = 16;  // pairs that are packed, and multiplied by tiles, together

  static int64_t blocks(int64_t depth) { return ceil_divide<int64_t>(depth, 2 * kBlock); }
  static int64_t plane(int64_t depth) { return blocks(depth) * kBlock * kPanel<BFloat16Pair>; }
  static int64_t pairs(int part, int64_t depth) { return part * plane(depth); }
  static int64_t rows(int part, int64_t depth) { return (parts + part) * plane(depth); }
  static int64_t planes(int64_t depth) { return (with_rows ? 2 : 1) * parts * plane(depth); }
  static int64_t stride(int64_t depth) {
    return panel_stride<BFloat16Pair>(planes(depth) / kPanel<BFloat16Pair>);
  }
  // What the numbers of the panel are to be multiplied by; a float32 number.
  static int64_t scale(int64_t depth) { return stride(depth) - 1; }
};

// Rows [first_row, first_row + kPanel) of x. Rows past the edge are zero in a half of 16 rows that
// has any; the other half stays unwritten.
template <class Source, int parts, bool with_rows>
class PairPacker {
 public:
  static void run(const Matrix& x, int64_t first_row, BFloat16Pair* panel) {
    const Source* source = static_cast<const Source*>(x.data) + first_row * x.row_stride;
    const int rows = int(minimum<int64_t>(kPanel<BFloat16Pair>, x.rows - first_row));
    PairPacker packer(x.row_stride, x.column_stride, rows, x.columns, panel);
    for (int64_t block = 0; block < Panel::blocks(x.columns); ++block) {
      const Source* from = source + block * kSteps * x.column_stride;
      x.row_stride == 1 ? packer.template pack<true>(from, block)
                        : packer.template pack<false>(from, block);
    }
    packer.lift();
  }

  // For a panel whose blocks are packed one by one, as a product makes them: tiles that hold kSteps
  // steps of the depth, [step][kPanel].
  PairPacker(int rows, int64_t depth, BFloat16Pair* panel)
      : PairPacker(1, kPanel<BFloat16Pair>, rows, depth, panel) {}
  void pack_tile(const Source* tile, int64_t block) { pack<true>(tile, block); }

  // Multiplies small numbers by a power of two, and keeps its inverse: to be called at the end.
  void lift() {
    constexpr int kOne = 127, kLeast = kOne - 32;  // exponents as bfloat16 and float32 hold them
    typedef uint16_t Halves __attribute__((vector_size(64)));
    const Halves peaks = (Halves)peak_;
    int largest = 0;
    for (int i = 0; i < 32; ++i) largest = maximum<int>(largest, peaks[i]);
    const int steps = largest ? maximum(0, kLeast - (largest >> 7)) : 0;
    float* scale = reinterpret_cast<float*>(panel_ + Panel::scale(depth_));
    *scale = __builtin_bit_cast(float, (kOne - steps) << 23);
    if (steps == 0) return;
    const float lift = __builtin_bit_cast(float, (kOne + steps) << 23);
    for (int64_t i = 0; i < Panel::planes(depth_); i += kL) {
      const Pairs pairs = load(panel_ + i), upper = splat(BFloat16Pair(0xffff0000));
      const Vector<float> first = lift * __builtin_bit_cast(Vector<float>, pairs << 16);
      const Vector<float> second = lift * __builtin_bit_cast(Vector<float>, pairs & upper);
      store(panel_ + i,
            (__builtin_bit_cast(Pairs, first) >> 16) | (__builtin_bit_cast(Pairs, second) & upper));
    }
  }

 private:
  using Panel = PairPanel<parts, with_rows>;
  static constexpr int kSteps = 2 * Panel::kBlock;
  using Pairs = Vector<BFloat16Pair>;
  static constexpr int kW = kPanel<BFloat16Pair>, kL = kLanes<BFloat16Pair>;
  static_assert(kL == Panel::kBlock);

  PairPacker(int64_t row_stride, int64_t depth_stride, int rows, int64_t depth, BFloat16Pair* panel)
      : row_stride_(row_stride),
        depth_stride_(depth_stride),
        depth_(depth),
        rows_(rows),
        panel_(panel),
        peak_(_mm512_setzero_si512()) {}

  // Steps [block kSteps, (block + 1) kSteps) of the depth; `from` points to the first of them.
  template <bool along_rows>
  void pack(const Source* from, int64_t block) {
    for (int row = 0; row < rows_; row += kL) pack_square<along_rows>(from, block, row);
  }

  // 16 pairs of 16 rows: made in the form in which neighbours in memory are neighbours.
  template <bool along_rows>
  KRONEXT_INLINE void pack_square(const Source* from, int64_t block, int first_row) {
    const int64_t steps = depth_ - block * kSteps;
    Pairs square[parts][kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) {
      __m512i part[parts] = {};
      if (along_rows) {
        load_step(from, steps, 2 * i, first_row, part);
      } else {
        load_row(from, steps, first_row + i, part);
      }
      for (int s = 0; s < parts; ++s) square[s][i] = (Pairs)part[s];
      const __m512i magnitude = _mm512_and_si512(part[0], _mm512_set1_epi16(0x7fff));
      peak_ = _mm512_max_epu16(peak_, magnitude);
    }
    for (int s = 0; s < parts; ++s) {
      if (with_rows && !along_rows) store_rows(square[s], s, block, first_row);
      if (with_rows && along_rows) store_pairs(square[s], s, block, first_row);
      if (with_rows || !along_rows) Transpose<BFloat16Pair>::run(square[s]);
      if (with_rows && along_rows) store_rows(square[s], s, block, first_row);
      if (!with_rows || !along_rows) store_pairs(square[s], s, block, first_row);
    }
  }

  // Steps `step` and step + 1 of the depth for 16 rows that are consecutive in memory.
  KRONEXT_INLINE void load_step(const Source* from, int64_t steps, int step, int row,
                                __m512i* part) const {
    if (step >= steps) return;
    const Source* first = from + row + step * depth_stride_;
    const __mmask16 lanes = lanes_before(rows_ - row);
    load_parts<parts>(first, lanes, first + depth_stride_, step + 1 < steps ? lanes : 0, part);
    for (int s = 0; s < parts; ++s) part[s] = interleaved(part[s]);
  }

  // The steps of one row.
  KRONEXT_INLINE void load_row(const Source* from, int64_t steps, int row, __m512i* part) const {
    if (row >= rows_) return;
    const Source* first = from + row * row_stride_;
    Source gathered[kSteps];
    if (depth_stride_ != 1) {
      for (int k = 0; k < minimum<int64_t>(steps, kSteps); ++k) {
        gathered[k] = first[k * depth_stride_];
      }
      first = gathered;
    }
    load_parts<parts>(first, lanes_before(steps), first + kL, lanes_before(steps - kL), part);
  }

  KRONEXT_INLINE void store_pairs(const Pairs* square, int part, int64_t block, int row) {
    BFloat16Pair* to = panel_ + Panel::pairs(part, depth_) + block * kL * kW + row;
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) store(to + i * kW, square[i]);
  }

  KRONEXT_INLINE void store_rows(const Pairs* square, int part, int64_t block, int row) {
    BFloat16Pair* to = panel_ + Panel::rows(part, depth_) + (block * kW + row) * kL;
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) store(to + i * kL, square[i]);
  }

  int64_t row_stride_, depth_stride_, depth_;
  int rows_;
  BFloat16Pair* panel_;
  __m512i peak_;  // the largest magnitudes, as bits
};

}  // namespace kronext::cpu::KRONEXT_CPU
