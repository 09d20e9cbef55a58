// Products with packed matrices, as panels.h describes them. No threads, no TensorFlow.
//
// What comes out for a row is the same to the bit whatever rows stand beside it: each sum has one order, from the first
// product to the last, however many rows share a tile. And on every processor that rounds a product and its sum once, but
// for bfloat16 that are too small for normal numbers and for Intel's matrix unit.

#pragma once

#include "bytes.h"
#include "floats.h"
#include "pairs.h"

namespace gpt2 {

// Rows of activations, in the forms in which they meet weights. `tile` leaves in sums[R][2], or adds to them, the product
// of R of them [R, depth] with one panel [depth, WIDTH]. Where a form is not that in which they were computed, `round`
// makes a row of it, `stride_of(depth)` of what is Stored.
//
// The form in which activations meet weights W, and queries and shares a cache of C:
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
