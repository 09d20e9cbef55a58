// Products with packed matrices. No threads, no TensorFlow.
//
// A matrix [depth, n] is packed in panels of WIDTH columns, [n / WIDTH, depth / GROUP, WIDTH, GROUP], padded with zeros:
// a 32-bit word is one float32, two bfloat16 or four int8 of one column, neighbours in depth. A product reads each panel
// from end to end, keeps a whole tile of results in registers and needs no sums across lanes.
//
// What comes out for a row is the same to the bit whatever rows stand beside it: each sum has one order, from the first
// product to the last, however many rows share a tile.

#pragma once

#include <utility>

#include "vectors.h"

namespace gpt2 {

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

// Numbers from one row to the next of those that a product reads side by side: an odd number of cache lines, since rows
// some 4096 bytes apart would all want the same few places in the first-level cache.
template <class T>
long apart(long n) {
  constexpr long LINE = 64 / sizeof(T);
  return ((n + LINE - 1) / LINE | 1) * LINE;
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

// Asks for what a product reads a page later: processors look ahead by themselves, but not from one page to the next.
template <class W>
ALWAYS_INLINE inline void ask_ahead(const W* w) {
  constexpr int PAGE = 4096;
  __builtin_prefetch(reinterpret_cast<const char*>(w) + PAGE, 0, 2);  // into the second-level cache
}

template <class F, int... I>
ALWAYS_INLINE inline void unrolled(const F& f, std::integer_sequence<int, I...>) {
  (f(I), ...);
}

// f(0) ... f(N - 1), one after another: of a loop GCC finds out too late that it needs no array in memory.
template <int N, class F>
ALWAYS_INLINE inline void unrolled(const F& f) {
  unrolled(f, std::make_integer_sequence<int, N>());
}

// Rows of activations, in the three forms in which they meet weights. `tile` leaves in sums[R][2], or adds to them, the
// product of R of them [R, depth] with one panel [depth, WIDTH].

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
  void tile(long first, const W* w, long depth, Vec (*sums)[2]) const {
    constexpr int G = GROUP<W>;
    const float* a = rows + first * stride;
    Vec acc[R][2] = {};
    if (ADD) unrolled<R>([&](int r) ALWAYS_INLINE { acc[r][0] = sums[r][0], acc[r][1] = sums[r][1]; });
    const auto add = [&](long k, int count) ALWAYS_INLINE {
      ask_ahead(w), ask_ahead(w + LANES * G);
      const Ints left = words(w), right = words(w + LANES * G);
      w += WIDTH * G;
#pragma GCC unroll 4
      for (int i = 0; i < count; i++) {
        const Vec x = element<W>(left, i), y = element<W>(right, i);
        unrolled<R>([&](int r) ALWAYS_INLINE {
          const Vec number = a[r * stride + k + i] - Vec{};  // in every lane; to add zero would be work
          acc[r][0] = fma(number, x, acc[r][0]);
          acc[r][1] = fma(number, y, acc[r][1]);
        });
      }
    };
    long k = 0;
    for (; k + G <= depth; k += G) add(k, G);
    if (G > 1 && k < depth) add(k, depth - k);
    unrolled<R>([&](int r) ALWAYS_INLINE { sums[r][0] = acc[r][0], sums[r][1] = acc[r][1]; });
  }
};

#ifdef __AVX512BF16__
// Rounded to bfloat16: two products in one instruction.
struct Pairs {
  static constexpr int MAX_ROWS = 12;
  const bfloat16* rows;
  long stride;

  Pairs from(long k) const { return {rows + k, stride}; }

  static void round(const float* x, long n, bfloat16* to) {  // and zeros up to a whole number of LANES
    for (long i = 0; i < n; i += LANES)
      _mm256_storeu_si256((__m256i*)(to + i), (__m256i)_mm512_cvtneps_pbh((__m512)load(x + i, n - i)));
  }

  template <int R, bool ADD>
  void tile(long first, const bfloat16* w, long depth, Vec (*sums)[2]) const {
    Vec acc[R][2] = {};
    if (ADD) unrolled<R>([&](int r) ALWAYS_INLINE { acc[r][0] = sums[r][0], acc[r][1] = sums[r][1]; });
    for (long k = 0; k < depth; k += 2, w += 2 * WIDTH) {
      ask_ahead(w), ask_ahead(w + 2 * LANES);
      const __m512bh left = (__m512bh)words(w), right = (__m512bh)words(w + 2 * LANES);
      unrolled<R>([&](int r) ALWAYS_INLINE {
        int32_t pair;
        std::memcpy(&pair, rows + (first + r) * stride + k, 4);
        const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
        acc[r][0] = (Vec)_mm512_dpbf16_ps((__m512)acc[r][0], x, left);
        acc[r][1] = (Vec)_mm512_dpbf16_ps((__m512)acc[r][1], x, right);
      });
    }
    unrolled<R>([&](int r) ALWAYS_INLINE { sums[r][0] = acc[r][0], sums[r][1] = acc[r][1]; });
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
      const Vec v = load(x + i, n - i), size = v < 0 ? -v : v;
      most = size > most ? size : most;
    }
    const float largest = _mm512_reduce_max_ps((__m512)most), inverse = largest > 0 ? LARGEST / largest : 0;
    Ints high_sum = {}, low_sum = {};
    for (long i = 0; i < n; i += LANES) {
      const Ints q = (Ints)(load(x + i, n - i) * inverse + 12582912.0f) - 0x4b400000;  // to the nearest
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
  void tile(long first, const Biased* w, long depth, Vec (*sums)[2]) const {
    static_assert(!ADD, "weights are products of their own");
    Ints highs[R][2], lows[R][2];
    unrolled<R>([&](int r) ALWAYS_INLINE {
      highs[r][0] = highs[r][1] = Ints{} + rows[first + r].high;
      lows[r][0] = lows[r][1] = Ints{} + rows[first + r].low;
    });
    const int8_t* a = bytes + first * stride;
    for (long k = 0; k < depth; k += 4, w += 4 * WIDTH) {
      ask_ahead(w), ask_ahead(w + 4 * LANES);
      const __m512i left = (__m512i)words(w), right = (__m512i)words(w + 4 * LANES);
      unrolled<R>([&](int r) ALWAYS_INLINE {
        const int8_t* four = a + r * stride + 2 * k;
        const __m512i x = four_everywhere(four), y = four_everywhere(four + 4);
        highs[r][0] = (Ints)_mm512_dpbusd_epi32((__m512i)highs[r][0], left, x);
        highs[r][1] = (Ints)_mm512_dpbusd_epi32((__m512i)highs[r][1], right, x);
        lows[r][0] = (Ints)_mm512_dpbusd_epi32((__m512i)lows[r][0], left, y);
        lows[r][1] = (Ints)_mm512_dpbusd_epi32((__m512i)lows[r][1], right, y);
      });
    }
    unrolled<R>([&](int r) ALWAYS_INLINE {
      for (int half = 0; half < 2; half++)
        sums[r][half] = (__builtin_convertvector(highs[r][half], Vec) * 256.0f +
                         __builtin_convertvector(lows[r][half], Vec)) * rows[first + r].scale;
    });
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
void tile_of(int rows, const A& a, long first, const W* w, long depth, Vec (*sums)[2]) {
  if (rows == R)
    a.template tile<R, ADD>(first, w, depth, sums);
  else if constexpr (R > 1)
    tile_of<ADD, A, W, R - 1>(rows, a, first, w, depth, sums);
}

}  // namespace gpt2
