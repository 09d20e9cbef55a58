// The arithmetic of a transformer on packed matrices: a product, layer norm, softmax, gelu. No threads, no TensorFlow.
//
// A matrix [depth, n] is packed in panels of WIDTH columns, [n / WIDTH, depth / GROUP, WIDTH, GROUP], padded with zeros:
// a 32-bit word is one float32, two bfloat16 or four int8 of one column, neighbours in depth. A product reads each panel
// from end to end, keeps a whole tile of results in registers and needs no sums across lanes. Written with the vector
// extensions of GCC and Clang, which are compiled for the machine at hand.
//
// What comes out for a row is the same to the bit whatever rows stand beside it: each sum has one order, from the first
// product to the last, however many rows share a tile. So that compilers cannot choose differently from one tile to the
// next, none may contract a product and a sum by itself (build.py): where they become one, `fma` says so.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX__
#include <immintrin.h>
#endif
#ifdef __ARM_FEATURE_FMA
#include <arm_neon.h>
#endif

namespace gpt2 {

// As many as a register of this processor holds: of larger vectors GCC makes a detour through memory.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int WIDTH = 2 * LANES;

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4)));

struct bfloat16 {
  uint16_t bits;
};
struct Biased {  // an int8 plus 128, as the dot products of four bytes want one of their sides
  uint8_t bits;
};

template <class W>
constexpr int GROUP = 4 / sizeof(W);

template <class W>
long groups(long depth) {
  return (depth + GROUP<W> - 1) / GROUP<W>;
}

// Where element (k, column) of a packed matrix is.
template <class W>
long place(long k, long column, long depth) {
  return ((column / WIDTH * groups<W>(depth) + k / GROUP<W>)*WIDTH + column % WIDTH) * GROUP<W> + k % GROUP<W>;
}

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }

// a * b + c, in one instruction and rounded once where the processor can.
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

template <class W>
Ints words(const W* p) {
  return *reinterpret_cast<const Ints*>(p);
}

// The i-th element of each word.
template <class W>
Vec element(Ints words, int i) {
  if constexpr (GROUP<W> == 1) return (Vec)words;
  if constexpr (GROUP<W> == 2) return (Vec)(i == 0 ? words << 16 : words & int32_t(0xffff0000));
  if constexpr (GROUP<W> == 4) return __builtin_convertvector((words >> 8 * i & 255) - 128, Vec);
}

inline float to_float(float x) { return x; }
inline float to_float(Biased x) { return x.bits - 128; }
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
  const auto all = [](float number) { return Vec{} + number; };
  Vec shifted = fma(x, all(1.44269504f), all(12582912.0f));  // adding 1.5 * 2^23 rounds to an integer
  Vec n = shifted - 12582912.0f;
  Vec r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), x));
  Vec p = all(1.9875691500e-4f);
  for (const float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = fma(p, r, all(next));
  p = fma(p * r, r, r) + 1.0f;
  return p * (Vec)(((Ints)shifted - 0x4b400000 + 127) << 23);
}

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vec gelu(Vec x) { return x / (1.0f + exp(-1.5957691216f * (x + 0.044715f * x * x * x))); }

// 0.5 x (1 + erf(x / sqrt(2))), with erf from Abramowitz and Stegun 1964, 7.1.26: its error is below 1.5e-7.
inline Vec gelu_by_erf(Vec x) {
  const Vec z = (x < 0 ? -x : x) * 0.70710678119f, t = 1.0f / (1.0f + 0.3275911f * z);
  const Vec p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const Vec tail = 0.5f * p * exp(-z * z);  // 1 - Phi(|x|)
  return x * (x < 0 ? tail : 1.0f - tail);
}

// Rows of activations, in the three forms in which they meet weights. `tile` leaves in sums[R][2], or adds to them, the
// product of R of them [R, depth] with one panel [depth, WIDTH] whose rows stand ldw words apart. That is WIDTH,
// but GCC 12 must not know it: what it then makes of a row of float32 takes a tenth more time.

struct Floats {
#ifdef __AVX512F__
  static constexpr int MAX_ROWS = 12;  // 2 x 12 sums and what is multiplied fit into 32 registers
#else
  static constexpr int MAX_ROWS = 6;  // and into 16
#endif
  const float* rows;
  long stride;

  Floats from(long k) const { return {rows + k, stride}; }

  template <int R, bool ADD, class W>
  void tile(long first, const W* w, long ldw, long depth, Vec (*sums)[2]) const {
    constexpr int G = GROUP<W>;
    const float* a = rows + first * stride;
    Vec acc[R][2] = {};
    for (int r = 0; ADD && r < R; r++) acc[r][0] = sums[r][0], acc[r][1] = sums[r][1];
    const auto add = [&](long k, int count) __attribute__((always_inline)) {
      const Ints left = words(w), right = words(w + LANES * G);
      w += ldw * G;
#pragma GCC unroll 4
      for (int i = 0; i < count; i++) {
        const Vec x = element<W>(left, i), y = element<W>(right, i);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
          const Vec number = a[r * stride + k + i] - Vec{};  // in every lane; to add zero would be work
          acc[r][0] = fma(number, x, acc[r][0]);
          acc[r][1] = fma(number, y, acc[r][1]);
        }
      }
    };
    long k = 0;
    for (; k + G <= depth; k += G) add(k, G);
    if (G > 1 && k < depth) add(k, depth - k);
    for (int r = 0; r < R; r++) sums[r][0] = acc[r][0], sums[r][1] = acc[r][1];
  }
};

#ifdef __AVX512F__
inline __m512 part(const float* x, long n) {  // the first of n numbers, and zeros
  return _mm512_maskz_loadu_ps(n < LANES ? (1 << n) - 1 : 0xffff, x);
}
#endif

#ifdef __AVX512BF16__
// Rounded to bfloat16: two products in one instruction.
struct Pairs {
  static constexpr int MAX_ROWS = 12;
  const bfloat16* rows;
  long stride;

  Pairs from(long k) const { return {rows + k, stride}; }

  static void round(const float* x, long n, bfloat16* to) {  // and zeros up to a whole number of LANES
    for (long i = 0; i < n; i += LANES)
      _mm256_storeu_si256((__m256i*)(to + i), (__m256i)_mm512_cvtneps_pbh(part(x + i, n - i)));
  }

  template <int R, bool ADD>
  void tile(long first, const bfloat16* w, long ldw, long depth, Vec (*sums)[2]) const {
    Vec acc[R][2] = {};
    for (int r = 0; ADD && r < R; r++) acc[r][0] = sums[r][0], acc[r][1] = sums[r][1];
    for (long k = 0; k < depth; k += 2, w += 2 * ldw) {
      const __m512bh left = (__m512bh)words(w), right = (__m512bh)words(w + 2 * LANES);
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        int32_t pair;
        std::memcpy(&pair, rows + (first + r) * stride + k, 4);
        const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
        acc[r][0] = (Vec)_mm512_dpbf16_ps((__m512)acc[r][0], x, left);
        acc[r][1] = (Vec)_mm512_dpbf16_ps((__m512)acc[r][1], x, right);
      }
    }
    for (int r = 0; r < R; r++) sums[r][0] = acc[r][0], sums[r][1] = acc[r][1];
  }
};
#endif

#ifdef __AVX512VNNI__
// Whole numbers of 16 bits times a scale per row, as high and low bytes, for int8 weights: four products in one
// instruction, and sums that are exact and so the same whatever is computed beside them. Four high bytes, then the low
// bytes of the same numbers, and so on: with two pointers per row GCC has too few registers.
struct Bytes {
  static constexpr int MAX_ROWS = 6, LARGEST = 127 * 256;

  struct Row {
    float scale;
    int32_t high, low;  // -128 times the sums of the bytes, because of the weights' bias
  };
  const int8_t* bytes;
  const Row* rows;
  long stride;

  static Row round(const float* x, long n, int8_t* bytes) {
    Vec most = {};
    for (long i = 0; i < n; i += LANES) {
      const Vec v = (Vec)part(x + i, n - i), size = v < 0 ? -v : v;
      most = size > most ? size : most;
    }
    const float largest = _mm512_reduce_max_ps((__m512)most), inverse = largest > 0 ? LARGEST / largest : 0;
    Ints high_sum = {}, low_sum = {};
    for (long i = 0; i < n; i += LANES) {
      const Ints q = (Ints)((Vec)part(x + i, n - i) * inverse + 12582912.0f) - 0x4b400000;  // to the nearest
      const Ints h = (q + 128) >> 8, l = q - (h << 8);
      high_sum += h, low_sum += l;
      const __m128i high = _mm512_cvtepi32_epi8((__m512i)h), low = _mm512_cvtepi32_epi8((__m512i)l);
      _mm_storeu_si128((__m128i*)(bytes + 2 * i), _mm_unpacklo_epi32(high, low));
      _mm_storeu_si128((__m128i*)(bytes + 2 * i + LANES), _mm_unpackhi_epi32(high, low));
    }
    return {largest / LARGEST, -128 * _mm512_reduce_add_epi32((__m512i)high_sum),
            -128 * _mm512_reduce_add_epi32((__m512i)low_sum)};
  }

  template <int R, bool ADD>
  void tile(long first, const Biased* w, long ldw, long depth, Vec (*sums)[2]) const {
    static_assert(!ADD, "weights are products of their own");
    Ints highs[R][2], lows[R][2];
    for (int r = 0; r < R; r++) {
      highs[r][0] = highs[r][1] = Ints{} + rows[first + r].high;
      lows[r][0] = lows[r][1] = Ints{} + rows[first + r].low;
    }
    const int8_t* a = bytes + first * stride;
    for (long k = 0; k < depth; k += 4, w += 4 * ldw) {
      const __m512i left = (__m512i)words(w), right = (__m512i)words(w + 4 * LANES);
#pragma GCC unroll 6
      for (int r = 0; r < R; r++) {
        const int8_t* four = a + r * stride + 2 * k;
        const __m512i x = four_everywhere(four), y = four_everywhere(four + 4);
        highs[r][0] = (Ints)_mm512_dpbusd_epi32((__m512i)highs[r][0], left, x);
        highs[r][1] = (Ints)_mm512_dpbusd_epi32((__m512i)highs[r][1], right, x);
        lows[r][0] = (Ints)_mm512_dpbusd_epi32((__m512i)lows[r][0], left, y);
        lows[r][1] = (Ints)_mm512_dpbusd_epi32((__m512i)lows[r][1], right, y);
      }
    }
    for (int r = 0; r < R; r++)
      for (int half = 0; half < 2; half++)
        sums[r][half] = (__builtin_convertvector(highs[r][half], Vec) * 256.0f +
                         __builtin_convertvector(lows[r][half], Vec)) * rows[first + r].scale;
  }

 private:
  static __m512i four_everywhere(const int8_t* four) {
    int32_t word;
    std::memcpy(&word, four, 4);
    return _mm512_set1_epi32(word);
  }
};
#endif

template <bool ADD, class A, class W, int R = A::MAX_ROWS>
void tile_of(int rows, const A& a, long first, const W* w, long ldw, long depth, Vec (*sums)[2]) {
  if (rows == R)
    a.template tile<R, ADD>(first, w, ldw, depth, sums);
  else if constexpr (R > 1)
    tile_of<ADD, A, W, R - 1>(rows, a, first, w, ldw, depth, sums);
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

inline void layer_norm(const float* x, const float* gain, const float* bias, float epsilon, long n, float* out) {
  const float mean = sum(x, n, [](Vec v) { return v; }) / n;
  const float variance = sum(x, n, [&](Vec v) { return (v - mean) * (v - mean); }) / n;
  const float scale = 1 / std::sqrt(variance + epsilon);
  for (long i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

inline float largest(const float* x, long n) {
  long i = LANES;
  float most = x[0];
  if (n >= LANES) {
    Vec mosts = load(x);
    for (; i + LANES <= n; i += LANES) mosts = load(x + i) > mosts ? load(x + i) : mosts;
    for (int lane = 0; lane < LANES; lane++) most = std::max(most, mosts[lane]);
  } else {
    i = 0;
  }
  for (; i < n; i++) most = std::max(most, x[i]);
  return most;
}

// The logarithm of the sum of e^x[i]. Summed in parts: beside a total of all so far, the many small ones would be lost.
inline float log_total(const float* x, long n) {
  constexpr long PART = 64 * LANES;
  const float most = largest(x, n);
  double total = 0;
  for (long i = 0; i < n; i += PART)
    total += sum(x + i, std::min(PART, n - i), [&](Vec v) { return exp(v - most); });
  return most + std::log(total);
}

// x[:n] times scale -> probabilities, in place; zeros follow up to the next multiple of WIDTH.
inline void softmax(float* x, long n, float scale) {
  const long padded = (n + WIDTH - 1) / WIDTH * WIDTH;
  std::fill(x + n, x + padded, -INFINITY);
  const float most = largest(x, padded);
  for (long i = 0; i < padded; i += LANES) store(x + i, exp((load(x + i) - most) * scale));
  std::fill(x + n, x + padded, 0.0f);
  const float total = sum(x, padded, [](Vec v) { return v; });
  for (long i = 0; i < padded; i += LANES) store(x + i, load(x + i) / total);
}

}  // namespace gpt2
