// Vectors of numbers, and a transformer's operations on rows other than products: layer norm, softmax, gelu.
// There are no threads here.
// The code uses the vector extensions of GCC and Clang, which are compiled for this machine's processor.
//
// No compiler may contract a product and a sum by itself (build.py): it could do so in one function and not in another.
// Where they are contracted, the code calls `fma`.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __SSE2__
#include <immintrin.h>
#endif
#ifdef __ARM_FEATURE_FMA
#include <arm_neon.h>
#endif

#define ALWAYS_INLINE __attribute__((always_inline))

namespace gpt2 {

// How many numbers a register of this processor holds; GCC passes larger vectors through memory.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int WIDTH = 2 * LANES;

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

struct bfloat16 {
  uint16_t bits;
};
struct Biased {  // an int8 plus 128, as dot products of four bytes require one of their operands
  static constexpr int BIAS = 128, LARGEST = 127;  // the largest int8
  uint8_t bits;
};

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }

// Loads or stores the first n numbers; if n is below LANES, zeros follow the loaded numbers.
inline Vec load(const float* p, long n) {
  if (n >= LANES) return load(p);
  Vec x = {};
  if (n > 0) std::memcpy(&x, p, n * sizeof(float));
  return x;
}
inline void store(float* p, Vec x, long n) {
  if (n >= LANES) return store(p, x);
  if (n > 0) std::memcpy(p, &x, n * sizeof(float));
}

// Returns a * b + c, computed by one instruction and rounded once if the processor can.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX__) && defined(__FMA__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_FEATURE_FMA)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline float to_float(float x) { return x; }
inline float to_float(Biased x) { return x.bits - Biased::BIAS; }
inline float to_float(bfloat16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline bfloat16 to_bfloat16(float x) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline void assign(float* p, float x) { *p = x; }
inline void assign(bfloat16* p, float x) { *p = to_bfloat16(x); }

// Rounds numbers below 2^22: added to 1.5 * 2^23 they are rounded and stand in the lowest bits.
constexpr float ROUNDING = 12582912.0f;
constexpr int32_t ROUNDING_BITS = 0x4b400000;
inline Ints nearest(Vec x) { return (Ints)(x + ROUNDING) - ROUNDING_BITS; }

template <class V>
auto largest_of(V x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<std::decay_t<decltype(x[0])>, float>)
    return _mm512_reduce_max_ps((__m512)x);
  else
    return _mm512_reduce_max_epi32((__m512i)x);
#else
  auto maximum = x[0];
  for (int lane = 1; lane < LANES; lane++) maximum = x[lane] > maximum ? x[lane] : maximum;
  return maximum;
#endif
}

inline int32_t sum_of(Ints x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)x);
#else
  int32_t total = 0;
  for (int lane = 0; lane < LANES; lane++) total += x[lane];
  return total;
#endif
}

// Returns e^x with a relative error of 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes).
inline Vec exp(Vec x) {
  x = x < -87.0f ? Vec{} - 87.0f : x;
  x = x > 88.0f ? Vec{} + 88.0f : x;
  const auto all = [](float number) { return Vec{} + number; };
  Vec shifted = fma(x, all(1.44269504f), all(ROUNDING));
  Vec n = shifted - ROUNDING;
  Vec r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), x));
  Vec p = all(1.9875691500e-4f);
  for (const float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = fma(p, r, all(next));
  p = fma(p * r, r, r) + 1.0f;
  return p * (Vec)(((Ints)shifted - ROUNDING_BITS + 127) << 23);
}

// Returns 0.5 x (1 + tanh(u)) = x / (1 + e^-2u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vec gelu(Vec x) { return x / (1.0f + exp(-1.5957691216f * (x + 0.044715f * x * x * x))); }

// Returns 0.5 x (1 + erf(x / sqrt(2))), with erf from Abramowitz and Stegun 1964, 7.1.26: its error is below 1.5e-7.
inline Vec gelu_by_erf(Vec x) {
  const Vec z = (x < 0 ? -x : x) * 0.70710678119f, t = 1.0f / (1.0f + 0.3275911f * z);
  const Vec p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const Vec tail = 0.5f * p * exp(-z * z);  // 1 - Phi(|x|)
  return x * (x < 0 ? tail : 1.0f - tail);
}

// How many numbers `sum` adds in parallel, the same on every processor, so that all add in the same order.
constexpr int SUM_LANES = 16;

// Returns the sum of f(x[i]).
template <class F>
float sum(const float* x, long n, F f) {
  constexpr int VECTORS = SUM_LANES / LANES;
  Vec totals[VECTORS] = {};
  long i = 0;
  for (; i + SUM_LANES <= n; i += SUM_LANES)
    for (int k = 0; k < VECTORS; k++) totals[k] += f(load(x + i + k * LANES));
  float total = 0;
  for (const Vec& part : totals)
    for (int lane = 0; lane < LANES; lane++) total += part[lane];
  for (; i < n; i++) total += f(Vec{} + x[i])[0];
  return total;
}

inline void layer_norm(const float* x, const float* gain, const float* bias, float epsilon, long n, float* out) {
  const float mean = sum(x, n, [](Vec v) { return v; }) / n;
  const float variance = sum(x, n, [&](Vec v) { return (v - mean) * (v - mean); }) / n;
  const float scale = 1 / std::sqrt(variance + epsilon);
  for (long i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

inline float largest(const float* x, long n) {
  long i = LANES;
  float maximum = x[0];
  if (n >= LANES) {
    Vec maxima = load(x);
    for (; i + LANES <= n; i += LANES) maxima = load(x + i) > maxima ? load(x + i) : maxima;
    maximum = largest_of(maxima);
  } else {
    i = 0;
  }
  for (; i < n; i++) maximum = std::max(maximum, x[i]);
  return maximum;
}

// Returns the logarithm of the sum of e^x[i]. It is summed in parts: small numbers would be lost next to a large total.
inline float log_total(const float* x, long n) {
  constexpr long PART = 1024;
  const float maximum = largest(x, n);
  double total = 0;
  for (long i = 0; i < n; i += PART)
    total += sum(x + i, std::min(PART, n - i), [&](Vec v) { return exp(v - maximum); });
  return maximum + std::log(total);
}

constexpr long PADDED = 32;
static_assert(PADDED % SUM_LANES == 0 && PADDED % WIDTH == 0);

// Replaces x[:n] by softmax(x * scale), followed by zeros up to the next multiple of PADDED.
inline void softmax(float* x, long n, float scale) {
  const long padded = (n + PADDED - 1) / PADDED * PADDED;
  std::fill(x + n, x + padded, -INFINITY);
  const float maximum = largest(x, padded);
  for (long i = 0; i < padded; i += LANES) store(x + i, exp((load(x + i) - maximum) * scale));
  std::fill(x + n, x + padded, 0.0f);
  const float total = sum(x, padded, [](Vec v) { return v; });
  for (long i = 0; i < padded; i += LANES) store(x + i, load(x + i) / total);
}

}  // namespace gpt2
