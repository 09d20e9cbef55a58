// The whole transformer over packed weights, as all threads of a team walk through it.

#pragma once

#include <type_traits>
#include <vector>

#include "kernels.h"
#include "team.h"

namespace gpt2 {

// One layer: packed kernels, and one vector with gains, biases and the kernels' scales one after another.
template <class W, class C>
struct Layer {
  const W *c_attn, *attn_proj, *c_fc, *mlp_proj;
  const float* vectors;
  C *keys, *values;
};

template <class W, class C>
struct Forward {
  long n_embd, n_head, n_vocab, capacity, batch, time;
  const int *tokens, *rows, *starts, *counts;  // [batch, time], then [batch] each
  const W* wte;
  const float *wte_scale, *wpe, *ln_f;
  std::vector<Layer<W, C>> layers;
  float* logits;  // [batch, n_vocab]
  Team* team;

  enum Then { STORE, ADD, GELU };
  static constexpr long ROWS_AT_ONCE = 8 * MAX_ROWS;  // so many rows of activations stay in the second-level cache
  static constexpr long WORTH_PAIRS = 6;              // rows that repay the rewriting of a panel

  struct Place {
    int sequence;  // which of the batch
    int position;  // in its text
    int token;
  };
  std::vector<Place> places;  // of each row of activations: padding has none
  std::vector<long> first;    // the first of each sequence in `places`
  std::vector<float> x, normed, wide;
  std::vector<Pair> rounded;  // the activations of one product, as pairs of bfloat16
  long head_size, value_width;

  void prepare() {
    head_size = n_embd / n_head;
    value_width = (head_size + WIDTH - 1) / WIDTH * WIDTH;
    for (long b = 0; b < batch; b++) {
      first.push_back(places.size());
      for (int t = 0; t < counts[b]; t++) places.push_back({int(b), starts[b] + t, tokens[b * time + t]});
    }
    x.resize(places.size() * n_embd);
    normed.resize(places.size() * n_embd);
    wide.resize(places.size() * 4 * n_embd);
    rounded.resize(places.size() * 2 * n_embd);
  }

  void run() {  // in every thread
    const long n = places.size(), e = n_embd;
    team->phase(n, [&](long i) { embed(places[i], &x[i * e]); });
    for (const auto& layer : layers) {
      const float* v = layer.vectors;
      const float *g_1 = v, *b_1 = g_1 + e, *b_attn = b_1 + e, *b_proj = b_attn + 3 * e, *g_2 = b_proj + e;
      const float *b_2 = g_2 + e, *b_fc = b_2 + e, *b_mlp = b_fc + 4 * e;
      const float *s_attn = b_mlp + e, *s_proj = s_attn + 3 * e, *s_fc = s_proj + e, *s_mlp = s_fc + 4 * e;
      norm(x, g_1, b_1, n);
      product(normed, n, e, layer.c_attn, s_attn, b_attn, 3 * e, STORE, wide.data());
      team->phase(batch * n_head, [&](long i) { attend(layer, i / n_head, i % n_head); });
      product(normed, n, e, layer.attn_proj, s_proj, b_proj, e, ADD, x.data());
      norm(x, g_2, b_2, n);
      product(normed, n, e, layer.c_fc, s_fc, b_fc, 4 * e, GELU, wide.data());
      product(wide, n, 4 * e, layer.mlp_proj, s_mlp, b_mlp, e, ADD, x.data());
    }
    team->phase(batch, [&](long b) {
      layer_norm(&x[(first[b] + counts[b] - 1) * e], ln_f, ln_f + e, e, &normed[b * e]);
    });
    product(normed, batch, e, wte, wte_scale, nullptr, n_vocab, STORE, logits);
  }

  void embed(const Place& place, float* out) {
    const W* column = wte + place.token / WIDTH * WIDTH * n_embd + place.token % WIDTH;
    for (long i = 0; i < n_embd; i++)
      out[i] = to_float(column[i * WIDTH]) * wte_scale[place.token] + wpe[place.position * n_embd + i];
  }

  void norm(const std::vector<float>& in, const float* gain, const float* bias, long n) {
    team->phase(n, [&](long i) { layer_norm(&in[i * n_embd], gain, bias, n_embd, &normed[i * n_embd]); });
  }

  // out [n, width] = or += a [n, depth] times w, times scale, plus bias.
  void product(const std::vector<float>& a, long n, long depth, const W* w, const float* scale, const float* bias,
               long width, Then then, float* out) {
    const long panels = (width + WIDTH - 1) / WIDTH, blocks = (n + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    const bool in_pairs = PAIRS && !std::is_same_v<W, float> && n >= WORTH_PAIRS && depth % 2 == 0;
    if (in_pairs)
      team->phase(n, [&](long row) {
        const float* x = &a[row * depth];
        std::transform(x, x + depth, (bfloat16*)&rounded[row * depth / 2], to_bfloat16);
      });
    team->phase(panels * blocks, [&](long i) {
      const long panel = i % panels, first = i / panels * ROWS_AT_ONCE, end = std::min(n, first + ROWS_AT_ONCE);
      const W* from = w + panel * WIDTH * depth;
      const auto then_finish = [&](long row, long rows, Vec(*sums)[2]) {
        for (long r = 0; r < rows; r++)
          finish((float*)sums[r], scale, bias, panel * WIDTH, std::min<long>(WIDTH, width - panel * WIDTH), then,
                 out + (row + r) * width);
      };
      if (in_pairs) {
        thread_local std::vector<Pair> pairs;
        pairs.resize(depth / 2 * WIDTH);
        to_pairs(from, depth, pairs.data());
        multiply(rounded.data(), first, end, pairs.data(), depth / 2, then_finish);
      } else {
        multiply(a.data(), first, end, from, depth, then_finish);
      }
    });
  }

  template <class A, class P, class Finish>
  static void multiply(const A* a, long first, long end, const P* panel, long depth, const Finish& then_finish) {
    Vec sums[MAX_ROWS][2];
    for (long row = first, rows; row < end; row += rows) {
      rows = std::min<long>(end - row, MAX_ROWS);
      tile_of(rows, a + row * depth, depth, panel, WIDTH, depth, sums);
      then_finish(row, rows, sums);
    }
  }

  static void finish(float* sums, const float* scale, const float* bias, long column, long n, Then then, float* out) {
    for (long i = 0; i < n; i++) {
      sums[i] = sums[i] * scale[column + i] + (bias ? bias[column + i] : 0);
      if (then == ADD) sums[i] += out[column + i];
    }
    if (then == GELU)
      for (long half = 0; half < WIDTH; half += LANES) store(sums + half, gelu(load(sums + half)));
    std::memcpy(out + column, sums, n * sizeof(float));
  }

  // One head of one sequence: its new keys and values into the cache, then each new token's attention to all so far.
  void attend(const Layer<W, C>& layer, long b, long head) {
    C* keys = layer.keys + (rows[b] * n_head + head) * capacity * head_size;
    C* values = layer.values + (rows[b] * n_head + head) * capacity * value_width;
    const float* qkv = &wide[first[b] * 3 * n_embd + head * head_size];
    for (long t = 0; t < counts[b]; t++) {
      const long slot = starts[b] + t;
      const float *k = qkv + t * 3 * n_embd + n_embd, *v = k + n_embd;
      C* column = keys + slot / WIDTH * WIDTH * head_size + slot % WIDTH;
      for (long i = 0; i < head_size; i++) assign(column + i * WIDTH, k[i]);
      for (long i = 0; i < head_size; i++) assign(values + slot * value_width + i, v[i]);
    }
    for (long t = 0, n; t < counts[b]; t += n) {
      n = std::min<long>(counts[b] - t, MAX_ROWS);
      float* out = &normed[(first[b] + t) * n_embd + head * head_size];
      attend_rows(keys, values, qkv + t * 3 * n_embd, n, starts[b] + t, out);
    }
  }

  // Queries q [n] that stand at `position` and after it -> out [n, head_size].
  void attend_rows(const C* keys, const C* values, const float* q, long n, long position, float* out) {
    thread_local std::vector<float> scores;
    scores.resize(MAX_ROWS * capacity);
    Vec sums[MAX_ROWS][2];
    for (long slot = 0; slot < position + n; slot += WIDTH) {
      tile_of(n, q, 3 * n_embd, keys + slot * head_size, WIDTH, head_size, sums);
      for (long r = 0; r < n; r++) std::memcpy(&scores[r * capacity + slot], sums[r], sizeof sums[r]);
    }
    for (long r = 0; r < n; r++) {
      softmax(&scores[r * capacity], position + r + 1, 1 / std::sqrt(float(head_size)));
      const long used = (position + r + WIDTH) / WIDTH * WIDTH, all = (position + n - 1 + WIDTH) / WIDTH * WIDTH;
      std::fill(&scores[r * capacity + used], &scores[r * capacity] + all, 0.0f);
    }
    for (long i = 0; i < head_size; i += WIDTH) {
      tile_of(n, scores.data(), capacity, values + i, value_width, position + n, sums);
      for (long r = 0; r < n; r++)
        std::memcpy(out + r * n_embd + i, sums[r], std::min<long>(WIDTH, head_size - i) * sizeof(float));
    }
  }
};

}  // namespace gpt2
