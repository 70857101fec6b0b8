// Packing: strided matrices of any dtype become panels of the compute type.
//
// A panel holds kPanel<T> rows of a matrix over its whole depth, stored [depth][kPanel<T>] with
// rows past the edge set to zero. The same layout serves as either operand of the micro-kernel in
// product.h: its values are broadcast for the left operand and loaded as vectors for the right one.
#pragma once

#include "csrc/core/matrix.h"
#include "csrc/cpu/simd.h"

namespace kronext::cpu::KRONEXT_CPU {

template <class T>
constexpr int kPanel = 2 * kLanes<T>;

template <class T>
constexpr Dtype kDtypeOf = sizeof(T) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class T>
KRONEXT_INLINE T convert(double x) {
  return T(x);
}
template <class T>
KRONEXT_INLINE T convert(float x) {
  return T(x);
}
template <class T>
KRONEXT_INLINE T convert(BFloat16 x) {
  return T(__builtin_bit_cast(float, uint32_t(x.bits) << 16));
}
// Exact for every finite value, also where denormals are flushed: the exponent is rebuilt by
// integer steps and subnormal halves by a subtraction of normal numbers.
template <class T>
KRONEXT_INLINE T convert(Float16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16;
  const uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13;
  const uint32_t exponent = magnitude & 0x0f800000;
  uint32_t bits = magnitude + 0x38000000;
  if (exponent == 0x0f800000) {
    bits += 0x38000000;  // infinity or NaN
  } else if (exponent == 0) {
    const float shifted = __builtin_bit_cast(float, bits + 0x00800000);
    bits = __builtin_bit_cast(uint32_t, shifted - __builtin_bit_cast(float, 0x38800000u));
  }
  return T(__builtin_bit_cast(float, bits | sign));
}

// `Lanes` 16-bit patterns in memory, and as the words that they widen to.
template <int Lanes>
struct HalfTypes {
  typedef uint16_t Halves __attribute__((vector_size(2 * Lanes), aligned(2), may_alias));
  typedef uint32_t Words __attribute__((vector_size(4 * Lanes)));
};

// kLanes<T> consecutive values of any dtype as one vector of the compute type.
template <class T, class Source>
KRONEXT_INLINE Vector<T> load_converted(const Source* p) {
  constexpr int kCount = kLanes<T>;
  using Floats = Vector<float, kCount>;
  if constexpr (__is_same(Source, T)) {
    return load<T>(p);
  } else if constexpr (__is_same(Source, BFloat16)) {
    using Halves = typename HalfTypes<kCount>::Halves;
    using Words = typename HalfTypes<kCount>::Words;
    const Halves halves = *reinterpret_cast<const Halves*>(p);
    const Words words = __builtin_convertvector(halves, Words) << 16;
    return __builtin_convertvector(__builtin_bit_cast(Floats, words), Vector<T>);
  } else if constexpr (__is_same(Source, Float16)) {
#if defined(__AVX512F__)
    if constexpr (kCount == 16) {
      return __builtin_bit_cast(
          Vector<T>, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
    }
#endif
#if defined(__F16C__)
    if constexpr (kCount == 8) {
      const __m256 floats = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      return __builtin_convertvector(__builtin_bit_cast(Floats, floats), Vector<T>);
    }
#endif
    Vector<T> v;
    for (int i = 0; i < kCount; ++i) v[i] = convert<T>(p[i]);
    return v;
  } else {
    return __builtin_convertvector((load<Source, kCount>(p)), Vector<T>);
  }
}

// Rows [first_row, first_row + kPanel<T>) of x into panel[depth][kPanel<T>].
template <class T, class Source>
struct PanelPacker {
  static constexpr int kL = kLanes<T>;
  static constexpr int kW = kPanel<T>;

  // Consecutive in memory along the rows of x: one copy for each step of the depth.
  static void along_rows(const Source* x, int64_t depth, int64_t depth_stride, int rows, T* panel) {
    if (rows == kW) {
      for (int64_t k = 0; k < depth; ++k, x += depth_stride, panel += kW) {
        store(panel, load_converted<T>(x));
        store(panel + kL, load_converted<T>(x + kL));
      }
      return;
    }
    const int whole = rows / kL * kL;
    for (int64_t k = 0; k < depth; ++k, x += depth_stride, panel += kW) {
      if (whole) store(panel, load_converted<T>(x));
      for (int r = whole; r < kW; r += kL) store(panel + r, Vector<T>{});
      for (int r = whole; r < rows; ++r) panel[r] = convert<T>(x[r]);
    }
  }

  // Consecutive in memory along the depth: squares of kL x kL are transposed in registers.
  static void along_depth(const Source* x, int64_t depth, int64_t row_stride, int rows, T* panel) {
    for (int half = 0; half < kW; half += kL) {
      if (half >= rows) {
        for (int64_t k = 0; k < depth; ++k) store(panel + k * kW + half, Vector<T>{});
        break;
      }
      int64_t k = 0;
      for (; k + kL <= depth; k += kL) {
        Vector<T> square[kL];
#pragma GCC unroll 16
        for (int r = 0; r < kL; ++r) {
          square[r] =
              half + r < rows ? load_converted<T>(x + (half + r) * row_stride + k) : Vector<T>{};
        }
        Transpose<T>::run(square);
#pragma GCC unroll 16
        for (int c = 0; c < kL; ++c) store(panel + (k + c) * kW + half, square[c]);
      }
      for (; k < depth; ++k) {
        for (int r = half; r < half + kL; ++r) {
          panel[k * kW + r] = r < rows ? convert<T>(x[r * row_stride + k]) : T(0);
        }
      }
    }
  }

  static void strided(const Source* x, int64_t depth, int64_t row_stride, int64_t depth_stride,
                      int rows, T* panel) {
    for (int64_t k = 0; k < depth; ++k, x += depth_stride, panel += kW) {
      for (int r = 0; r < rows; ++r) panel[r] = convert<T>(x[r * row_stride]);
      for (int r = rows; r < kW; ++r) panel[r] = 0;
    }
  }

  static void run(const Matrix& x, int64_t first_row, T* panel) {
    const Source* source = static_cast<const Source*>(x.data) + first_row * x.row_stride;
    const int rows = int(minimum<int64_t>(kW, x.rows - first_row));
    if (x.row_stride == 1) {
      along_rows(source, x.columns, x.column_stride, rows, panel);
    } else if (x.column_stride == 1) {
      along_depth(source, x.columns, x.row_stride, rows, panel);
    } else {
      strided(source, x.columns, x.row_stride, x.column_stride, rows, panel);
    }
  }
};

template <class T>
void pack_panel(const Matrix& x, int64_t first_row, T* panel) {
  switch (x.dtype) {
    case Dtype::kFloat64:
      return PanelPacker<T, double>::run(x, first_row, panel);
    case Dtype::kFloat32:
      return PanelPacker<T, float>::run(x, first_row, panel);
    case Dtype::kBFloat16:
      return PanelPacker<T, BFloat16>::run(x, first_row, panel);
    case Dtype::kFloat16:
      return PanelPacker<T, Float16>::run(x, first_row, panel);
  }
}

template <class T>
constexpr int64_t panel_count(int64_t rows) {
  return ceil_divide<int64_t>(rows, kPanel<T>);
}

// Values between two panels: their depth, moved off powers of two, which would map every panel to
// the same cache sets.
template <class T>
constexpr int64_t panel_stride(int64_t depth) {
  return (depth + 8 + (depth & 1)) * kPanel<T>;
}

}  // namespace kronext::cpu::KRONEXT_CPU
