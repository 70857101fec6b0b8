// Fused multiply-adds on registers alone: nothing on this core can compute faster.
//
// Sixteen independent accumulators hide the latency of two units; vectors are as wide as the compiler was told that
// registers are.
#ifdef __AVX512F__
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define CHAINS 16

#define DEFINE(name, number)                                                     \
  long name(long rounds, number* result) {                                       \
    typedef number Lanes __attribute__((vector_size(BYTES)));                    \
    Lanes sums[CHAINS], factor = {0}, term = {0};                                \
    factor += (number)0.5;                                                       \
    term += (number)0.25;                                                        \
    for (int k = 0; k < CHAINS; ++k) sums[k] = term * (number)k;                 \
    for (long round = 0; round < rounds; ++round) {                              \
      _Pragma("GCC unroll 16") for (int k = 0; k < CHAINS; ++k) sums[k] =        \
          sums[k] * factor + term;                                               \
    }                                                                            \
    for (int k = 1; k < CHAINS; ++k) sums[0] += sums[k];                         \
    *result = sums[0][0];                                                        \
    return rounds * 2 * CHAINS * (long)(sizeof(Lanes) / sizeof(number));         \
  }

#ifdef __AVX512BF16__
#include <immintrin.h>

long multiply_add_bfloat16(long rounds, float* result) {
  __m512 sums[CHAINS];
  __m512bh pairs = (__m512bh)_mm512_set1_epi32(0x3f003e80);
  for (int k = 0; k < CHAINS; ++k) sums[k] = _mm512_set1_ps((float)k);
  for (long round = 0; round < rounds; ++round) {
    _Pragma("GCC unroll 16") for (int k = 0; k < CHAINS; ++k) sums[k] =
        _mm512_dpbf16_ps(sums[k], pairs, pairs);
  }
  for (int k = 1; k < CHAINS; ++k) sums[0] += sums[k];
  *result = sums[0][0];
  return rounds * 2 * CHAINS * 32;
}
#endif

DEFINE(multiply_add_float32, float)
DEFINE(multiply_add_float64, double)
