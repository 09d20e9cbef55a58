// Products with packed matrices, as panels.h describes them; without threads.
//
// A row's results have the same bits whatever other rows are computed with it: each sum has one order, from the first
// product to the last, however many rows share a tile. They are also the same on all processors that round a product
// and its sum once, except for denormal bfloat16 numbers, and except on Intel's matrix unit.

#pragma once

#include "bytes.h"
#include "floats.h"
#include "pairs.h"

namespace gpt2 {

// The forms of activations that are multiplied by weights. `tile` writes the product of R rows [R, depth] and a panel
// [depth, WIDTH] to sums[R][2], or adds it to them. If a form is not float32, `round` converts a row to
// `stride_of(depth)` elements of type Stored.
//
// The form of activations for weights W, and of queries and attention weights for a cache of type W:
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
