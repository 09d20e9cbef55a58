// Packs weights from their order in files into the layout that panels.h describes.
//
// A model is packed whenever it is loaded, which takes a third of the start-up time. For speed, a few rows of a panel's
// columns are gathered in a tile that stays in the first-level cache, and written as whole words.

#pragma once

#include <type_traits>

#include "panels.h"

namespace gpt2 {

// Unpacked weights in memory, [depth, n] if in_out, else [n, depth].
struct Plain {
  const float* weights;
  long n, depth;
  bool in_out;

  float operator()(long k, long column) const { return weights[in_out ? k * n + column : column * depth + k]; }
};

// A few rows of a panel: [ROWS, WIDTH].
struct Tile {
  static constexpr long ROWS = 32;
  float of[ROWS][WIDTH];

  // Copies rows k, k + 1, ... of `from`, with its columns from `begin` on.
  void gather(const Plain& from, long k, long rows, long begin) {
    if (from.in_out) {
      for (long row = 0; row < rows; row++)
        std::memcpy(of[row], from.weights + (k + row) * from.n + begin, sizeof of[row]);
    } else {
      for (long column = 0; column < WIDTH; column++)
        for (long row = 0; row < rows; row++) of[row][column] = from.weights[(begin + column) * from.depth + k + row];
    }
  }
};

typedef uint32_t Words __attribute__((vector_size(4 * LANES), aligned(4)));

inline float packed(float x, float, float) { return x; }
inline bfloat16 packed(float x, bfloat16, float) { return to_bfloat16(x); }
inline Biased packed(float x, Biased, float scale) { return {uint8_t(int(std::rint(x / scale)) + Biased::BIAS)}; }

// The bits of a positive float from which on `packed` returns NaN, infinity or nonsense: of infinity, or of the smallest
// number that is rounded to an infinite bfloat16. All NaNs have larger bits than infinity.
template <class W>
constexpr int32_t TOO_LARGE = std::is_same_v<W, bfloat16> ? 0x7f7f8000 : 0x7f800000;

// Returns the larger of two magnitudes, compared by their bits; x may be negative.
inline Ints larger(Ints magnitudes, Vec x) {
  const Ints bits = (Ints)x & 0x7fffffff;
  return bits > magnitudes ? bits : magnitudes;
}

// Packs LANES numbers, each into the lowest bits of a word, with zeros in the other bits.
inline Words packed(Vec x, float, Vec) { return (Words)x; }
inline Words packed(Vec x, bfloat16, Vec) {
  const Words bits = (Words)x;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline Words packed(Vec x, Biased, Vec scale) {
  return (Words)(nearest(x / scale) + Biased::BIAS) & 255;  // rounded as by std::rint
}

// Computes the int8 scales of columns [begin, end), at most a panel: a column's largest weight becomes 127.
inline void int8_scales(const Plain& from, long begin, long end, float* scales) {
  std::fill(scales, scales + (end - begin), 0.0f);
  const auto update = [&](long i, float x) { scales[i] = std::max(scales[i], std::fabs(x)); };
  Tile tile;
  for (long k = 0, rows; k < from.depth; k += rows) {
    rows = std::min(Tile::ROWS, from.depth - k);
    if (end - begin == WIDTH) {
      tile.gather(from, k, rows, begin);
      for (long row = 0; row < rows; row++)
        for (long i = 0; i < WIDTH; i++) update(i, tile.of[row][i]);
    } else {
      for (long i = begin; i < end; i++)
        for (long row = k; row < k + rows; row++) update(i - begin, from(row, i));
    }
  }
  for (long i = 0; i < end - begin; i++) scales[i] = scales[i] > 0 ? scales[i] / Biased::LARGEST : 1;
}

// Packs the whole words of a panel, whose columns start at `begin`, and returns the first row that is not packed.
// largest: the largest magnitudes so far, which are updated.
template <class W>
long pack_words(const Plain& from, long begin, const float* scales, W* to, Ints& largest) {
  constexpr int G = GROUP<W>, BITS = 8 * sizeof(W);
  const long whole = from.depth / G * G;
  Ints magnitudes = largest;  // stays in a register
  Tile tile;
  for (long k = 0, rows; k < whole; k += rows) {
    rows = std::min(Tile::ROWS, whole - k);
    tile.gather(from, k, rows, begin);
    for (long row = 0; row < rows; row += G, to += G * WIDTH)
      for (long lane = 0; lane < WIDTH; lane += LANES) {
        Words words = {};
        for (int i = 0; i < G; i++) {
          const Vec scale = std::is_same_v<W, Biased> ? load(scales + lane) : Vec{};
          const Vec x = load(tile.of[row + i] + lane);
          magnitudes = larger(magnitudes, x);
          words |= packed(x, W(), scale) << BITS * i;
        }
        *reinterpret_cast<Words*>(to + G * lane) = words;
      }
  }
  largest = magnitudes;
  return whole;
}

// Packs weights into the columns of `to` from `first` on, which are all zeros, and computes their scales in int8.
// Returns whether all weights are finite in W.
template <class W>
bool pack(const Plain& from, long first, W* to, float* scales) {
  Ints largest = {};
  for (long begin = 0, end; begin < from.n; begin = end) {
    end = std::min(from.n, (first + begin) / WIDTH * WIDTH + WIDTH - first);
    const float one = 1, *scale = &one;
    if constexpr (std::is_same_v<W, Biased>) {
      int8_scales(from, begin, end, scales + first + begin);
      scale = scales + first + begin;
    }
    long k = 0;
    if (end - begin == WIDTH) k = pack_words(from, begin, scale, to + place<W>(0, first + begin, from.depth), largest);
    for (; k < from.depth; k++)
      for (long i = begin; i < end; i++) {
        const float x = from(k, i);
        largest = larger(largest, Vec{} + x);
        to[place<W>(k, first + i, from.depth)] = packed(x, W(), scale[std::is_same_v<W, Biased> ? i - begin : 0]);
      }
  }
  return largest_of(largest) < TOO_LARGE<W>;
}

}  // namespace gpt2
