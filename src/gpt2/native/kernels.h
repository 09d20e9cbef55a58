// The arithmetic of a transformer on packed matrices: a product, layer norm, softmax, gelu. No threads, no TensorFlow.
//
// A matrix [depth, n] is packed in panels of WIDTH columns, [n / WIDTH, depth, WIDTH], padded with zeros: a product
// reads each panel from end to end, keeps a whole tile of results in registers and needs no sums across lanes. Written
// with the vector extensions of GCC and Clang, which are compiled for the machine at hand.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace gpt2 {

constexpr int LANES = 16, WIDTH = 2 * LANES;
#ifdef __AVX512F__
constexpr int MAX_ROWS = 12;  // rows of a tile: 2 x 12 sums and what is multiplied fit into 32 registers
#else
constexpr int MAX_ROWS = 3;
#endif

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef int16_t Shorts __attribute__((vector_size(2 * LANES)));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1)));

struct bfloat16 {
  uint16_t bits;
};

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
#ifdef __AVX512F__  // what GCC makes of the general form below takes three times as long
inline Vec load(const bfloat16* p) {
  return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
inline Vec load(const int8_t* p) {
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
#else
inline Vec load(const bfloat16* p) {
  return (Vec)(__builtin_convertvector(*reinterpret_cast<const Halves*>(p), Ints) << 16);
}
inline Vec load(const int8_t* p) {
  const Shorts wider = __builtin_convertvector(*reinterpret_cast<const Bytes*>(p), Shorts);
  return __builtin_convertvector(__builtin_convertvector(wider, Ints), Vec);
}
#endif
inline void store(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }

inline float to_float(float x) { return x; }
inline float to_float(int8_t x) { return x; }
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

// e^x to 2e-7 relative: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes).
inline Vec exp(Vec x) {
  x = x < -87.0f ? Vec{} - 87.0f : x;
  x = x > 88.0f ? Vec{} + 88.0f : x;
  Vec shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
  Vec n = shifted - 12582912.0f;
  Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (Vec)(((Ints)shifted - 0x4b400000 + 127) << 23);
}

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vec gelu(Vec x) { return x / (1.0f + exp(-1.5957691216f * (x + 0.044715f * x * x * x))); }

// sums[R][2] = a [R, depth] times one panel w [depth, WIDTH], whose rows stand ldw apart.
template <int R, class W>
void tile(const float* a, long lda, const W* w, long ldw, long depth, Vec (*sums)[2]) {
  constexpr int CHAINS = R == 1 ? 4 : R <= 3 ? 2 : 1;  // sums of their own, so that none waits for the one before
  Vec acc[CHAINS][R][2] = {};
  long k = 0;
  for (; k + CHAINS <= depth; k += CHAINS) {
#pragma GCC unroll 4
    for (int c = 0; c < CHAINS; c++, w += ldw) {
      Vec left = load(w), right = load(w + LANES);
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        acc[c][r][0] += a[r * lda + k + c] * left;
        acc[c][r][1] += a[r * lda + k + c] * right;
      }
    }
  }
  for (; k < depth; k++, w += ldw)
    for (int r = 0; r < R; r++) {
      acc[0][r][0] += a[r * lda + k] * load(w);
      acc[0][r][1] += a[r * lda + k] * load(w + LANES);
    }
  for (int r = 0; r < R; r++)
    for (int half = 0; half < 2; half++) {
      sums[r][half] = acc[0][r][half];
      for (int c = 1; c < CHAINS; c++) sums[r][half] += acc[c][r][half];
    }
}

#ifdef __AVX512BF16__
// Where many rows share a narrow panel: two products in one instruction, of activations that are rounded to bfloat16. A
// panel is rewritten once as pairs [depth / 2, WIDTH] of neighbours in depth; int8 and bfloat16 lose nothing by it.
constexpr bool PAIRS = true;

typedef uint32_t Pair;  // two bfloat16

template <class W>
void to_pairs(const W* w, long depth, Pair* pairs) {
  for (long k = 0; k < depth; k += 2, w += 2 * WIDTH)
    for (int half = 0; half < WIDTH; half += LANES, pairs += LANES) {
      const __m512i low = _mm512_srli_epi32((__m512i)load(w + half), 16), high = (__m512i)load(w + WIDTH + half);
      _mm512_storeu_si512(pairs, _mm512_or_si512(low, _mm512_and_si512(high, _mm512_set1_epi32(0xffff0000))));
    }
}

template <int R>
void tile(const Pair* a, long lda, const Pair* w, long ldw, long depth, Vec (*sums)[2]) {
  Vec acc[R][2] = {};
  for (long k = 0; k < depth; k++, w += ldw) {
    const __m512bh left = (__m512bh)_mm512_loadu_si512(w), right = (__m512bh)_mm512_loadu_si512(w + LANES);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(a[r * lda + k]);
      acc[r][0] = (Vec)_mm512_dpbf16_ps((__m512)acc[r][0], x, left);
      acc[r][1] = (Vec)_mm512_dpbf16_ps((__m512)acc[r][1], x, right);
    }
  }
  for (int r = 0; r < R; r++) sums[r][0] = acc[r][0], sums[r][1] = acc[r][1];
}
#else
constexpr bool PAIRS = false;
typedef float Pair;
template <class W>
void to_pairs(const W*, long, Pair*) {}
#endif

template <class A, class W, int R = MAX_ROWS>
void tile_of(int rows, const A* a, long lda, const W* w, long ldw, long depth, Vec (*sums)[2]) {
  if (rows == R)
    tile<R>(a, lda, w, ldw, depth, sums);
  else if constexpr (R > 1)
    tile_of<A, W, R - 1>(rows, a, lda, w, ldw, depth, sums);
}

// The sum of f(x[i]).
template <class F>
float sum(const float* x, long n, F f) {
  Vec totals = {};
  long i = 0;
  for (; i + LANES <= n; i += LANES) totals += f(load(x + i));
  float total = 0;
  for (int lane = 0; lane < LANES; lane++) total += totals[lane];
  for (; i < n; i++) total += f(Vec{} + x[i])[0];
  return total;
}

inline void layer_norm(const float* x, const float* gain, const float* bias, long n, float* out) {
  const float mean = sum(x, n, [](Vec v) { return v; }) / n;
  const float variance = sum(x, n, [&](Vec v) { return (v - mean) * (v - mean); }) / n;
  const float scale = 1 / std::sqrt(variance + 1e-5f);
  for (long i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

// x[:n] times scale -> probabilities, in place; zeros follow up to the next multiple of WIDTH.
inline void softmax(float* x, long n, float scale) {
  const long padded = (n + WIDTH - 1) / WIDTH * WIDTH;
  std::fill(x + n, x + padded, -INFINITY);
  Vec most = load(x);
  for (long i = LANES; i < padded; i += LANES) most = load(x + i) > most ? load(x + i) : most;
  float largest = most[0];
  for (int lane = 1; lane < LANES; lane++) largest = std::max(largest, most[lane]);
  for (long i = 0; i < padded; i += LANES) store(x + i, exp((load(x + i) - largest) * scale));
  std::fill(x + n, x + padded, 0.0f);
  const float total = sum(x, padded, [](Vec v) { return v; });
  for (long i = 0; i < padded; i += LANES) store(x + i, load(x + i) / total);
}

}  // namespace gpt2
