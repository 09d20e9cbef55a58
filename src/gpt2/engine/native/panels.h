// The layout of a packed matrix, and functions that all kinds of products share.
//
// A matrix [depth, n] is packed in panels of WIDTH columns, [n / WIDTH, depth / GROUP, WIDTH, GROUP], padded with
// zeros: a 32-bit word is one float32, two bfloat16 or four int8 of one column, neighbors in depth. A product reads
// each panel from start to end, keeps a whole tile of results in registers and needs no sums across lanes.

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

// Returns the index of element (k, column) in a packed matrix.
template <class W>
long place(long k, long column, long depth) {
  return ((column / WIDTH * groups<W>(depth) + k / GROUP<W>)*WIDTH + column % WIDTH) * GROUP<W> + k % GROUP<W>;
}

// Returns the stride of rows that a product reads side by side: an odd number of cache lines, since rows about 4096
// bytes apart would compete for the same few sets of the first-level cache.
template <class T>
long row_stride(long n) {
  constexpr long LINE = 64 / sizeof(T);
  return ((n + LINE - 1) / LINE | 1) * LINE;
}

template <class W>
Ints words(const W* p) {
  return *reinterpret_cast<const Ints*>(p);
}

// Returns the i-th element of each word.
template <class W>
Vec element(Ints words, int i) {
  if constexpr (GROUP<W> == 1) return (Vec)words;
  if constexpr (GROUP<W> == 2) return (Vec)(i == 0 ? words << 16 : words & int32_t(0xffff0000));
}

// Returns the 32 bits at p in every lane.
inline Ints all_lanes(const void* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return Ints{} + word;
}

// Prefetches the data a page later, because processors do not prefetch across pages by themselves.
template <class W>
ALWAYS_INLINE inline void prefetch_next_page(const W* w) {
  constexpr int PAGE = 4096;
  __builtin_prefetch(reinterpret_cast<const char*>(w) + PAGE, 0, 2);  // into the second-level cache
}

template <class F, int... I>
ALWAYS_INLINE inline void unrolled(const F& f, std::integer_sequence<int, I...>) {
  (f(I), ...);
}

// Calls f(0) ... f(N - 1) without a loop, in which GCC would keep arrays in memory instead of registers.
template <int N, class F>
ALWAYS_INLINE inline void unrolled(const F& f) {
  unrolled(f, std::make_integer_sequence<int, N>());
}

}  // namespace gpt2
