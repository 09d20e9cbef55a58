// The words of a Philox4x64-10 stream (Salmon et al. 2011), numbered as in NumPy, from any position.

#pragma once

#include <cstdint>

namespace gpt2 {

// Draws four numbers at once: 4 * counter - 4 to 4 * counter - 1 of the stream, since NumPy counts before it draws.
struct Philox {
  uint64_t key[2];

  void draw(uint64_t counter, uint64_t (&x)[4]) const {
    constexpr uint64_t M0 = 0xD2E7470EE14C6C93, M1 = 0xCA5A826395121157;
    constexpr uint64_t W0 = 0x9E3779B97F4A7C15, W1 = 0xBB67AE8584CAA73B;
    x[0] = counter, x[1] = x[2] = x[3] = 0;
    uint64_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++, k0 += W0, k1 += W1) {
      const unsigned __int128 a = (unsigned __int128)M0 * x[0], b = (unsigned __int128)M1 * x[2];
      x[0] = uint64_t(b >> 64) ^ x[1] ^ k0, x[1] = uint64_t(b);
      x[2] = uint64_t(a >> 64) ^ x[3] ^ k1, x[3] = uint64_t(a);
    }
  }
};

// Writes the words of all ids below n, from number `first` of the stream on; a number consists of two words of 32 bits.
inline void random_words(const uint64_t* key, uint64_t first, long n, uint32_t* to) {
  const Philox philox{{key[0], key[1]}};
  for (long i = 0; i < n;) {
    const uint64_t number = first + i / 2;
    uint64_t x[4];
    philox.draw(number / 4 + 1, x);
    for (int k = number % 4; k < 4 && i < n; k++) {
      to[i++] = uint32_t(x[k]);
      if (i < n) to[i++] = uint32_t(x[k] >> 32);
    }
  }
}

// Writes the words of the n ids in `ids`.
inline void random_words(const uint64_t* key, uint64_t first, long n, const int* ids, uint32_t* to) {
  const Philox philox{{key[0], key[1]}};
  for (long i = 0; i < n; i++) {
    const uint64_t number = first + ids[i] / 2;
    uint64_t x[4];
    philox.draw(number / 4 + 1, x);
    to[i] = uint32_t(x[number % 4] >> 32 * (ids[i] % 2));
  }
}

}  // namespace gpt2
