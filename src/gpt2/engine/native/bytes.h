// Products with int8 weights.

#pragma once

#include "panels.h"

namespace gpt2 {

// Multiplies four weights in a word by four rounded activations, with this processor's instructions. Each weight is
// BIAS too large, and activations have the type `Stored`. `dot` adds the four products to each of `sums`; its operands
// are results of `weights` and `numbers`.
#if defined(__AVX512VNNI__)
struct Fours {
  using Stored = int8_t;
  static constexpr int BIAS = Biased::BIAS;

  static void store(Ints x, Stored* to) { _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x)); }
  static Ints weights(Ints words) { return words; }
  static Ints numbers(const Stored* four) { return all_lanes(four); }
  static Ints dot(Ints sums, Ints w, Ints x) { return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)w, (__m512i)x); }
};
#elif defined(__ARM_FEATURE_DOTPROD)
struct Fours {
  using Stored = int8_t;
  static constexpr int BIAS = 0;

  static void store(Ints x, Stored* to) {
    for (int i = 0; i < LANES; i++) to[i] = x[i];
  }
  static Ints weights(Ints words) { return words ^ int32_t(0x80808080); }
  static Ints numbers(const Stored* four) { return all_lanes(four); }
  static Ints dot(Ints sums, Ints w, Ints x) { return (Ints)vdotq_s32((int32x4_t)sums, (int8x16_t)w, (int8x16_t)x); }
};
#else
struct Fours {  // the first and third weight together, the second and fourth together
  struct Two {
    Ints even, odd;
  };
  using Stored = int16_t;
  static constexpr int BIAS = Biased::BIAS;

  static void store(Ints x, Stored* to) {
    constexpr uint64_t LOW = 0x0000ffff0000ffff;
    uint64_t two[LANES / 2];
    std::memcpy(two, &x, sizeof x);
    for (int i = 0; i < LANES / 2; i += 2) {
      const uint64_t four = (two[i] & LOW) | (two[i + 1] & LOW) << 16;
      std::memcpy(to + 2 * i, &four, sizeof four);
    }
  }
  static Two weights(Ints words) { return {words & 0xff00ff, words >> 8 & 0xff00ff}; }
  static Two numbers(const Stored* four) { return {all_lanes(four), all_lanes(four + 2)}; }
  static Ints dot(Ints sums, Two w, Two x) { return sums + (dot(w.even, x.even) + dot(w.odd, x.odd)); }

  static Ints dot(Ints a, Ints b) {
#if defined(__AVX512BW__)
    return (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__AVX__) && !defined(__AVX2__)
    const auto low = [](Ints x) { return _mm256_castsi256_si128((__m256i)x); };
    const auto high = [](Ints x) { return _mm256_extractf128_si256((__m256i)x, 1); };
    return (Ints)_mm256_set_m128i(_mm_madd_epi16(high(a), high(b)), _mm_madd_epi16(low(a), low(b)));
#elif defined(__SSE2__) && !defined(__AVX__)
    return (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
    const int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return (Ints)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
#else
    return (a & 0xffff) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
  }
};
#endif

// Activations rounded to 8 bits with a scale for each PART neighbors, as in GGML's Q8_0: this costs as much quality as
// the rounding of the weights. The sums within a part are exact, so all processors compute the same.
struct Bytes {
  static constexpr int PART = 32;
#ifdef __AVX512F__
  static constexpr int MAX_ROWS = 6;  // 2 x 6 sums within a part, as many over all parts, and the factors
#else
  static constexpr int MAX_ROWS = 4;
#endif
  struct Stored {  // PART activations
    Fours::Stored of[PART];
    float scale;
    int32_t bias;  // compensates the bias of the weights
  };
  const Stored* parts;
  long stride;

  static long stride_of(long depth) { return (depth + PART - 1) / PART; }

  static void round(const float* x, long n, Stored* to) {
    for (long k = 0; k < n; k += PART) *to++ = rounded(x + k, n - k);
  }

  // Rounds n numbers, padded with zeros if there are fewer than PART.
  static Stored rounded(const float* x, long n) {
    constexpr int VECTORS = PART / LANES;
    Vec all[VECTORS];
    Ints maximum = {};
    for (int i = 0; i < VECTORS; i++) {
      all[i] = load(x + i * LANES, n - i * LANES);
      const Ints size = (Ints)all[i] & 0x7fffffff;  // as integers they have the same order, and NaN is the largest
      maximum = size > maximum ? size : maximum;
    }
    const int32_t bits = largest_of(maximum);
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    const bool is_normal = largest > 1e-30f && largest < INFINITY;  // the inverse of a smaller one would be infinite
    const float inverse = Biased::LARGEST / largest;
    Stored number;
    Ints total = {};
    for (int i = 0; i < VECTORS; i++) {
      const Ints whole = is_normal ? nearest(all[i] * inverse) : Ints{};
      Fours::store(whole, number.of + i * LANES);
      total += whole;
    }
    number.scale = largest / Biased::LARGEST;  // NaN or infinite if a number is, and then so are the sums
    number.bias = -Fours::BIAS * sum_of(total);
    return number;
  }

  template <int R, bool ADD>
  void tile(long first, const Biased* w, long depth, Vec (*sums)[2]) const {
    static_assert(!ADD, "products with int8 weights start at zero");
    const Stored* a = parts + first * stride;
    Vec acc[R][2] = {};
    for (long k = 0; k < depth; k += PART, a++) {
      Ints whole[R][2];
      unrolled<R>([&](int r) ALWAYS_INLINE { whole[r][0] = whole[r][1] = Ints{} + a[r * stride].bias; });
      const long count = std::min<long>(PART, depth - k);
#pragma GCC unroll 1  // otherwise GCC reorders the sums and runs out of registers
      for (long i = 0; i < count; i += 4, w += 4 * WIDTH) {
        prefetch_next_page(w), prefetch_next_page(w + 4 * LANES);
        const auto left = Fours::weights(words(w)), right = Fours::weights(words(w + 4 * LANES));
        unrolled<R>([&](int r) ALWAYS_INLINE {
          const auto x = Fours::numbers(a[r * stride].of + i);
          whole[r][0] = Fours::dot(whole[r][0], left, x);
          whole[r][1] = Fours::dot(whole[r][1], right, x);
        });
      }
      unrolled<R>([&](int r) ALWAYS_INLINE {
        const Vec scale = a[r * stride].scale - Vec{};
        acc[r][0] = fma(__builtin_convertvector(whole[r][0], Vec), scale, acc[r][0]);
        acc[r][1] = fma(__builtin_convertvector(whole[r][1], Vec), scale, acc[r][1]);
      });
    }
    unrolled<R>([&](int r) ALWAYS_INLINE { sums[r][0] = acc[r][0], sums[r][1] = acc[r][1]; });
  }
};

}  // namespace gpt2
