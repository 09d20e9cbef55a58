// Products with bfloat16 weights, two in a word. Activations are rounded to bfloat16 as well, also on processors
// without an instruction for it.

#pragma once

#include "floats.h"

namespace gpt2 {

#ifdef __AVX512BF16__
// Activations that are stored rounded.
struct Rounded {
  using Stored = bfloat16;
  const bfloat16* rows;
  long stride;

  static long stride_of(long depth) { return row_stride<bfloat16>(depth); }

  // Rounds n numbers, followed by zeros up to a multiple of LANES.
  static void round(const float* x, long n, bfloat16* to) {
    for (long i = 0; i < n; i += LANES)
      _mm256_storeu_si256((__m256i*)(to + i), (__m256i)_mm512_cvtneps_pbh((__m512)load(x + i, n - i)));
  }
};
#endif

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)  // old versions of Clang use another name and get no tiles
#define GPT2_TILES
// Products on Intel's matrix unit (AMX), whose instruction multiplies 16 rows, 32 numbers deep, by 16 columns. It sums
// the even products and the odd products, then adds both to the previous sum, and treats denormal
// numbers as zero. No other instruction computes the same, so single rows use it as well.
struct Pairs : Rounded {
  static constexpr int ROWS = 16, DEPTH = 32;
  static constexpr int MAX_ROWS = 2 * ROWS;

  Pairs from(long k) const { return {rows + k, stride}; }

  template <int R, bool ADD>
  void tile(long first, const bfloat16* w, long depth, Vec (*sums)[2]) const {
    const bfloat16* a = rows + first * stride;
    const long steps = depth / DEPTH, rest = depth % DEPTH;
    if (steps > 0) multiply<R>(a, w, steps, DEPTH / 2, ADD, sums);
    a += steps * DEPTH, w += steps * DEPTH * WIDTH;
    if (rest > 0) multiply<R>(a, w, 1, (rest + 1) / 2, ADD || steps > 0, sums);
  }

 private:
  // Computes `steps` steps of `pairs` pairs each. Tile registers: 0 and 1 are the sums of the first 16 rows, left and
  // right; 2 and 3 the sums of the next 16 rows; 4 and 5 these rows; 6 and 7 weights.
  template <int R>
  void multiply(const bfloat16* a, const bfloat16* w, long steps, int pairs, bool add, Vec (*sums)[2]) const {
    constexpr bool LOWER = R > ROWS;
    constexpr long TWO = sizeof *sums;  // bytes of two vectors: of a row of sums, and of a row of a panel
    const long row = stride * sizeof *a;
    shape(std::min(R, ROWS), LOWER ? R - ROWS : 0, pairs);
    if (add) {
      _tile_loadd(0, &sums[0][0], TWO);
      _tile_loadd(1, &sums[0][1], TWO);
      if (LOWER) _tile_loadd(2, &sums[ROWS][0], TWO);
      if (LOWER) _tile_loadd(3, &sums[ROWS][1], TWO);
    }
    for (; steps > 0; steps--, a += DEPTH, w += DEPTH * WIDTH) {
      for (int line = 0; line < 2 * pairs; line++) prefetch_next_page(w + line * 2 * LANES);
      _tile_loadd(6, w, TWO);
      _tile_loadd(7, w + 2 * LANES, TWO);
      _tile_loadd(4, a, row);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if (LOWER) {
        _tile_loadd(5, a + ROWS * stride, row);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, &sums[0][0], TWO);
    _tile_stored(1, &sums[0][1], TWO);
    if (LOWER) _tile_stored(2, &sums[ROWS][0], TWO);
    if (LOWER) _tile_stored(3, &sums[ROWS][1], TWO);
    _tile_release();  // otherwise the system would save the registers of this thread
    asm volatile("" ::: "memory");  // as in `shape`
  }

  // Sets the shapes of the tile registers and fills them with zeros.
  static void shape(int upper, int lower, int pairs) {
    struct alignas(64) {  // as the instruction reads it
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};  // per row
      uint8_t rows[16] = {};
    } shapes;
    const auto set = [&](int tile, int rows, int words) {
      if (rows > 0) shapes.rows[tile] = rows, shapes.bytes[tile] = 4 * words;
    };
    set(0, upper, LANES), set(1, upper, LANES), set(2, lower, LANES), set(3, lower, LANES);
    set(4, upper, pairs), set(5, lower, pairs), set(6, pairs, LANES), set(7, pairs, LANES);
    asm volatile("" ::: "memory");  // GCC does not know that the instructions access memory
    _tile_loadconfig(&shapes);
  }
};
#elif defined(__AVX512BF16__)
// Two products in one instruction.
struct Pairs : Rounded {
  static constexpr int MAX_ROWS = Floats::MAX_ROWS;

  Pairs from(long k) const { return {rows + k, stride}; }

  template <int R, bool ADD>
  void tile(long first, const bfloat16* w, long depth, Vec (*sums)[2]) const {
    Vec acc[R][2] = {};
    if (ADD) unrolled<R>([&](int r) ALWAYS_INLINE { acc[r][0] = sums[r][0], acc[r][1] = sums[r][1]; });
    for (long k = 0; k < depth; k += 2, w += 2 * WIDTH) {
      prefetch_next_page(w), prefetch_next_page(w + 2 * LANES);
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

  static long stride_of(long depth) { return row_stride<float>(depth); }

  static void round(const float* x, long n, float* to) {
    for (long i = 0; i < n; i++) to[i] = to_float(to_bfloat16(x[i]));
  }
};
#endif

}  // namespace gpt2
