// The keys and values of computed ids, in blocks.

#pragma once

#include "panels.h"

namespace gpt2 {

// The layout of a block: for each of [n_layer, n_head] the keys of a head, a packed matrix [head_size, SLOTS], and its
// values, a packed matrix [SLOTS, head_size].
template <class C>
struct Block {
  static constexpr long SLOTS = 128;
  long n_head, head_size;

  long keys() const { return SLOTS * groups<C>(head_size) * GROUP<C>; }
  long values() const { return SLOTS * ((head_size + WIDTH - 1) / WIDTH * WIDTH); }
  long head() const { return keys() + values(); }
  long place_of(long layer, long head_number) const { return (layer * n_head + head_number) * head(); }

  // Writes a key and a value [head_size] into a slot of a head: a column of its keys, a row of its values.
  void write(const float* key, const float* value, C* head, long slot) const {
    constexpr long G = GROUP<C>;
    C *const column = head + place<C>(0, slot, head_size), *row = head + keys() + place<C>(slot, 0, SLOTS);
    for (long i = 0; i < head_size; i += WIDTH, row += place<C>(0, WIDTH, SLOTS)) {
      const long n = std::min<long>(WIDTH, head_size - i);
      C numbers[WIDTH] = {};
      for (long k = 0; k < n; k++) assign(numbers + k, key[i + k]);
      for (long k = 0; k < n; k += G) std::memcpy(column + (i + k) * WIDTH, numbers + k, G * sizeof(C));
      for (long k = 0; k < n; k++) assign(numbers + k, value[i + k]);
      for (long k = 0; k < n; k++) row[k * G] = numbers[k];
    }
  }
};
static_assert(Block<float>::SLOTS % WIDTH == 0);

}  // namespace gpt2
