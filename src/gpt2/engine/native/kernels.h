// Products with packed matrices, as panels.h describes them. No threads, no TensorFlow.
//
// What comes out for a row is the same to the bit whatever rows stand beside it: each sum has one order, from the first
// product to the last, however many rows share a tile. And on every processor that rounds a product and its sum once, but
// for bfloat16 that are too small for normal numbers.

#pragma once

#include "bytes.h"
#include "panels.h"

namespace gpt2 {

// Rows of activations, in the forms in which they meet weights. `tile` leaves in sums[R][2], or adds to them, the product
// of R of them [R, depth] with one panel [depth, WIDTH]. Where a form is not that in which they were computed, `round`
// makes a row of it, `stride_of(depth)` of what is Stored.

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
      for (int n = 0; n < count; n++) {
        const int i = count - 1 - n;  // the last first, as the instruction for two bfloat16 adds them
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

// Rounded to bfloat16, on processors without an instruction for it too.
#ifdef __AVX512BF16__
// Two products in one instruction.
struct Pairs {
  using Stored = bfloat16;
  static constexpr int MAX_ROWS = Floats::MAX_ROWS;
  const bfloat16* rows;
  long stride;

  static long stride_of(long depth) { return apart<bfloat16>(depth); }

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
        const __m512bh x = (__m512bh)all_lanes(rows + (first + r) * stride + k);
        acc[r][0] = (Vec)_mm512_dpbf16_ps((__m512)acc[r][0], x, left);
        acc[r][1] = (Vec)_mm512_dpbf16_ps((__m512)acc[r][1], x, right);
      });
    }
    unrolled<R>([&](int r) ALWAYS_INLINE { sums[r][0] = acc[r][0], sums[r][1] = acc[r][1]; });
  }
};
#else
struct Pairs : Floats {
  using Stored = float;

  Pairs from(long k) const { return {rows + k, stride}; }

  static long stride_of(long depth) { return apart<float>(depth); }

  static void round(const float* x, long n, float* to) {
    for (long i = 0; i < n; i++) to[i] = to_float(to_bfloat16(x[i]));
  }
};
#endif

// The form in which activations meet weights W, and queries and shares a cache of C.
template <class W>
struct Form {
  using Of = Floats;
};
template <>
struct Form<bfloat16> {
  using Of = Pairs;
};
template <>
struct Form<Biased> {
  using Of = Bytes;
};

template <bool ADD, class A, class W, int R = A::MAX_ROWS>
void tile_of(int rows, const A& a, long first, const W* w, long depth, Vec (*sums)[2]) {
  if (rows == R)
    a.template tile<R, ADD>(first, w, depth, sums);
  else if constexpr (R > 1)
    tile_of<ADD, A, W, R - 1>(rows, a, first, w, depth, sums);
}

}  // namespace gpt2
