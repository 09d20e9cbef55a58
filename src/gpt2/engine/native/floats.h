// Products with float32 activations.

#pragma once

#include "panels.h"

namespace gpt2 {

struct Floats {
#ifdef __AVX512F__
  static constexpr int MAX_ROWS = 12;  // 2 x 12 sums and the factors fit into 32 registers
#else
  static constexpr int MAX_ROWS = 6;  // 2 x 6 sums and the factors fit into 16 registers
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
      prefetch_next_page(w), prefetch_next_page(w + LANES * G);
      const Ints left = words(w), right = words(w + LANES * G);
      w += WIDTH * G;
#pragma GCC unroll 4
      for (int n = 0; n < count; n++) {
        const int i = count - 1 - n;  // the last one first, as the instruction for two bfloat16 adds them
        const Vec x = element<W>(left, i), y = element<W>(right, i);
        unrolled<R>([&](int r) ALWAYS_INLINE {
          const Vec number = a[r * stride + k + i] - Vec{};  // in every lane; adding zero would cost an instruction
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

}  // namespace gpt2
