// SIMD vectors on the compiler's vector extensions (GCC and Clang).
//
// Files that include this header are compiled once per instruction set, with KRONEXT_CPU naming the
// set and its namespace (portable, avx2, avx512). Everything stays inside that namespace and no
// standard-library template is instantiated, so the linker can never pick an AVX-512 copy of a
// shared inline function for a machine without AVX-512.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef KRONEXT_CPU
#error "KRONEXT_CPU must name the instruction set that this file is compiled for"
#endif

#define KRONEXT_INLINE inline __attribute__((always_inline))

namespace kronext::cpu::KRONEXT_CPU {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kVectorRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kVectorRegisters = 16;
#else
constexpr int kVectorBytes = 16;
constexpr int kVectorRegisters = 16;
#endif

template <class T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = int32_t;
};
template <>
struct IntegerOf<double> {
  using type = int64_t;
};
template <>
struct IntegerOf<uint32_t> {
  using type = int32_t;
};

// `Lanes` values of `T`; `Mask` has all bits of a lane set where a comparison held.
template <class T, int Lanes>
struct VectorTypes {
  using Integer = typename IntegerOf<T>::type;
  typedef T Vector __attribute__((vector_size(sizeof(T) * Lanes)));
  typedef T Unaligned
      __attribute__((vector_size(sizeof(T) * Lanes), aligned(sizeof(T)), may_alias));
  typedef Integer Mask __attribute__((vector_size(sizeof(T) * Lanes)));
};

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T, int Lanes = kLanes<T>>
using Vector = typename VectorTypes<T, Lanes>::Vector;
template <class T, int Lanes = kLanes<T>>
using Mask = typename VectorTypes<T, Lanes>::Mask;

template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE Vector<T, Lanes> load(const T* p) {
  return *reinterpret_cast<const typename VectorTypes<T, Lanes>::Unaligned*>(p);
}
template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE void store(T* p, Vector<T, Lanes> v) {
  *reinterpret_cast<typename VectorTypes<T, Lanes>::Unaligned*>(p) = v;
}

// The first `count` values of a vector, the others 0; nothing past them is touched. count may be
// less than 1 or more than the vector holds.
template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE Vector<T, Lanes> load_first(const T* p, int64_t count) {
  if (count >= Lanes) return load<T, Lanes>(p);
#if defined(__AVX512F__)
  const uint32_t mask = count > 0 ? (1u << count) - 1 : 0;
  if constexpr (sizeof(Vector<T, Lanes>) == 64 && sizeof(T) == 4)
    return (Vector<T, Lanes>)_mm512_maskz_loadu_ps(mask, p);
  if constexpr (sizeof(Vector<T, Lanes>) == 64 && sizeof(T) == 8)
    return (Vector<T, Lanes>)_mm512_maskz_loadu_pd(mask, p);
#endif
  Vector<T, Lanes> v{};
  for (int64_t k = 0; k < count; ++k) v[k] = p[k];
  return v;
}
template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE void store_first(T* p, Vector<T, Lanes> v, int64_t count) {
  if (count >= Lanes) return store<T, Lanes>(p, v);
#if defined(__AVX512F__)
  const uint32_t mask = count > 0 ? (1u << count) - 1 : 0;
  if constexpr (sizeof(Vector<T, Lanes>) == 64 && sizeof(T) == 4)
    return _mm512_mask_storeu_ps(p, mask, (__m512)v);
  if constexpr (sizeof(Vector<T, Lanes>) == 64 && sizeof(T) == 8)
    return _mm512_mask_storeu_pd(p, mask, (__m512d)v);
#endif
  for (int64_t k = 0; k < count; ++k) p[k] = v[k];
}

// `x - 0` is a plain broadcast; GCC keeps `x + 0` as an addition because -0 + 0 is +0.
template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE Vector<T, Lanes> splat(T x) {
  return x - Vector<T, Lanes>{};
}

template <class T>
constexpr T minimum(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T maximum(T a, T b) {
  return a < b ? b : a;
}
template <class T>
constexpr T ceil_divide(T a, T b) {
  return (a + b - 1) / b;
}
template <class T>
constexpr T round_up(T a, T b) {
  return ceil_divide(a, b) * b;
}

template <int... Index>
struct IndexList {};
template <int Count, int... Index>
struct IndexListBuilder : IndexListBuilder<Count - 1, Count - 1, Index...> {};
template <int... Index>
struct IndexListBuilder<0, Index...> {
  using type = IndexList<Index...>;
};
template <int Count>
using MakeIndexList = typename IndexListBuilder<Count>::type;

// Transposes `Lanes` vectors of `Lanes` values in registers: log2(Lanes) rounds that swap blocks of
// `Width` columns between rows `Width` apart.
template <class T, int Lanes = kLanes<T>>
struct Transpose {
  using V = Vector<T, Lanes>;

  template <int Width, int... Column>
  static KRONEXT_INLINE void swap_blocks(V* rows, IndexList<Column...>) {
#pragma GCC unroll 16
    for (int i = 0; i < Lanes; ++i) {
      if (i & Width) continue;
      const V a = rows[i], b = rows[i + Width];
      rows[i] =
          __builtin_shufflevector(a, b, ((Column & Width) ? (Lanes + Column - Width) : Column)...);
      rows[i + Width] = __builtin_shufflevector(
          a, b, ((Column & Width) ? (Lanes + Column) : (Column + Width))...);
    }
  }

  static KRONEXT_INLINE void run(V* rows) {
    if constexpr (Lanes >= 16) swap_blocks<8>(rows, MakeIndexList<Lanes>{});
    if constexpr (Lanes >= 8) swap_blocks<4>(rows, MakeIndexList<Lanes>{});
    if constexpr (Lanes >= 4) swap_blocks<2>(rows, MakeIndexList<Lanes>{});
    swap_blocks<1>(rows, MakeIndexList<Lanes>{});
  }
};

template <class To, class From, int Lanes>
KRONEXT_INLINE Vector<To, Lanes> convert(Vector<From, Lanes> x) {
  return __builtin_convertvector(x, Vector<To, Lanes>);
}

template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE Vector<T, Lanes> absolute(Vector<T, Lanes> x) {
  using M = Mask<T, Lanes>;
  const M sign = reinterpret_cast<M>(splat<T, Lanes>(T(-0.0)));
  return reinterpret_cast<Vector<T, Lanes>>(reinterpret_cast<M>(x) & ~sign);
}

// True where any lane of a comparison held.
template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE bool any(Mask<T, Lanes> mask) {
#if defined(__AVX512DQ__)
  if constexpr (sizeof(mask) == 64 && sizeof(T) == 4) return _mm512_movepi32_mask((__m512i)mask);
  if constexpr (sizeof(mask) == 64 && sizeof(T) == 8) return _mm512_movepi64_mask((__m512i)mask);
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(mask) == 32) return _mm256_movemask_epi8((__m256i)mask);
#endif
  typename IntegerOf<T>::type bits = 0;
  for (int lane = 0; lane < Lanes; ++lane) bits |= mask[lane];
  return bits;
}

template <class T, int Lanes, int... Lane>
KRONEXT_INLINE Vector<T, Lanes / 2> add_halves(Vector<T, Lanes> x, IndexList<Lane...>) {
  return __builtin_shufflevector(x, x, Lane...) +
         __builtin_shufflevector(x, x, (Lanes / 2 + Lane)...);
}
template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE T sum_of_lanes(Vector<T, Lanes> x) {
  if constexpr (Lanes == 2)
    return x[0] + x[1];
  else
    return sum_of_lanes<T, Lanes / 2>(add_halves<T, Lanes>(x, MakeIndexList<Lanes / 2>{}));
}

// AVX-512 intrinsics in masked form: gcc 12 warns about an undefined operand in the plain ones.
KRONEXT_INLINE Vector<double> square_root(Vector<double> x) {
#if defined(__AVX512F__)
  return (Vector<double>)_mm512_maskz_sqrt_pd(0xff, (__m512d)x);
#elif defined(__AVX2__)
  return (Vector<double>)_mm256_sqrt_pd((__m256d)x);
#else
  for (int lane = 0; lane < kLanes<double>; ++lane) x[lane] = __builtin_sqrt(x[lane]);
  return x;
#endif
}
KRONEXT_INLINE Vector<float> square_root(Vector<float> x) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return (Vector<float>)_mm256_sqrt_ps((__m256)x);
#else
  for (int lane = 0; lane < kLanes<float>; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
#endif
}

// 1 / x and 1 / sqrt(x) of normal x > 0, within a few units in the last place: a series on a 14-bit
// estimate takes half the time of AVX-512's division and square root.
KRONEXT_INLINE Vector<double> reciprocal(Vector<double> x) {
#if defined(__AVX512F__)
  const Vector<double> y = (Vector<double>)_mm512_maskz_rcp14_pd(0xff, (__m512d)x);
  const Vector<double> r = 1.0 - x * y, first = y + y * r;
  return first + first * (r * r);
#else
  return 1.0 / x;
#endif
}
KRONEXT_INLINE Vector<float> reciprocal(Vector<float> x) {
#if defined(__AVX512F__)
  const Vector<float> y = (Vector<float>)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
  return y + y * (1.0f - x * y);
#else
  return 1.0f / x;
#endif
}
KRONEXT_INLINE Vector<double> reciprocal_square_root(Vector<double> x) {
#if defined(__AVX512F__)
  const Vector<double> y = (Vector<double>)_mm512_maskz_rsqrt14_pd(0xff, (__m512d)x);
  const Vector<double> r = 1.0 - (x * y) * y;
  return y + (y * r) * ((0.5 + 0.375 * r) + (r * r) * (0.3125 + 0.2734375 * r));
#else
  return 1.0 / square_root(x);
#endif
}
KRONEXT_INLINE Vector<float> reciprocal_square_root(Vector<float> x) {
#if defined(__AVX512F__)
  const Vector<float> y = (Vector<float>)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)x);
  const Vector<float> r = 1.0f - (x * y) * y;
  return y + (y * r) * (0.5f + 0.375f * r);
#else
  return 1.0f / square_root(x);
#endif
}

}  // namespace kronext::cpu::KRONEXT_CPU
