// The whole transformer over packed weights, computed by all threads of a team together.

#pragma once

#include <type_traits>
#include <vector>

#include "cache.h"
#include "kernels.h"
#include "team.h"

namespace gpt2 {

// A layer: packed matrices, and one vector of gains, biases and the matrices' scales, one after another.
template <class W>
struct Layer {
  const W *c_attn, *attn_proj, *c_fc, *mlp_proj;
  const float* vectors;
  float score_scale;
};

// A matrix outside the layers, with its scales and an optional bias.
template <class W>
struct Matrix {
  const W* w;
  const float *scale, *bias;
};

// The new tokens of a sequence: `count` tokens, the first at position `start`; logits are computed for the last
// `n_logits` of them. The numbers of the sequence's blocks follow these three numbers.
struct Segment {
  static constexpr int BLOCKS = 3;
  int start, count, n_logits;
  const int *blocks, *tokens;
};

template <class W, class C>
struct Forward {
  long n_embd, n_head, n_vocab, n_inner, n_token_embd;
  float epsilon;
  bool exact_gelu;
  std::vector<Segment> segments;
  C* const* blocks;
  Matrix<W> wte, in_proj, out_proj, lm_head;  // in_proj and out_proj if n_token_embd is not n_embd
  const float *wpe, *ln_f;
  std::vector<Layer<W>> layers;
  float *logits, *log_totals;  // [outputs, n_vocab] and [outputs]
  Team* team;

  enum Finish { STORE, ADD, GELU, EXACT_GELU };
  static constexpr long BLOCK_ROWS = 96;   // rows of activations that fit into the second-level cache
  static constexpr long MAX_SMALL_ROWS = 4;  // each thread prepares up to this many rows itself, to wait less

  struct NewToken {
    int token, position;
  };
  struct Rows {
    float* first;
    long stride;

    float* operator[](long row) const { return first + row * stride; }
  };
  struct Activations : Rows {
    std::vector<float> memory;

    void resize(long rows, long n) {
      this->stride = row_stride<float>(n);
      memory.resize(rows * this->stride);
      this->first = memory.data();
    }
  };
  template <class Weight>
  using Form = typename gpt2::Form<Weight>::Of;
  template <class Weight>
  static constexpr bool ROUNDED = !std::is_same_v<Form<Weight>, Floats>;

  // Rows converted to the form that is multiplied by weights or a cache, if this form is not float32.
  template <class Weight, bool = ROUNDED<Weight>>
  struct Converted {
    std::vector<typename Form<Weight>::Stored> memory;

    void resize(long rows, long depth) { memory.resize(rows * Form<Weight>::stride_of(depth)); }
  };
  template <class Weight>
  struct Converted<Weight, false> {
    void resize(long, long) {}
  };
  // The activations of a product.
  struct Operand {
    Activations normed;
    Converted<W> converted;

    void resize(long rows, long n_embd, long widest) {
      normed.resize(rows, n_embd);
      converted.resize(rows, widest);
    }
  };
  static constexpr int QUERIES = Form<C>::MAX_ROWS;  // queries that attend together
  struct Sums {
    Vec of[QUERIES][2];
  };
  // The memory of each thread. It is allocated before the computation, where an exception does no harm, and reused.
  struct Scratch {
    Operand operand;
    std::vector<float> scores;
    std::vector<Sums> sums;
    Converted<C> converted;
  };
  static Scratch& scratch() {
    static thread_local Scratch memory;
    return memory;
  }

  std::vector<NewToken> rows;  // one for each row of activations
  std::vector<long> first_row;  // of each segment
  std::vector<long> outputs;  // the rows that need logits
  std::vector<long> first_output;  // of each segment
  Activations x, wide, attended;
  Operand shared;
  Block<C> block;
  long head_size, widest;
  long capacity;  // slots that the longest sequence sees, in whole blocks
  bool is_small;  // at most MAX_SMALL_ROWS rows

  // Sizes the shared memory, once, before the threads prepare.
  void prepare() {
    head_size = n_embd / n_head;
    widest = std::max(std::max(3 * n_embd, n_inner), n_token_embd);
    block = {n_head, head_size};
    capacity = 0;
    for (const Segment& p : segments) {
      first_row.push_back(rows.size());
      first_output.push_back(outputs.size());
      for (int t = 0; t < p.count; t++) rows.push_back({p.tokens[t], p.start + t});
      for (int t = p.n_logits; t > 0; t--) outputs.push_back(rows.size() - t);
      capacity = std::max(capacity, (p.start + p.count + Block<C>::SLOTS - 1) / Block<C>::SLOTS * Block<C>::SLOTS);
    }
    const long n = rows.size();
    is_small = n <= MAX_SMALL_ROWS;
    x.resize(n, n_embd);
    wide.resize(n, widest);
    attended.resize(n, n_embd);
    shared.resize(is_small ? 0 : n, n_embd, widest);
  }

  void prepare_thread() const {
    if (is_small) scratch().operand.resize(rows.size(), n_embd, widest);
    scratch().scores.resize(QUERIES * capacity);
    scratch().sums.resize((head_size + WIDTH - 1) / WIDTH);
    scratch().converted.resize(QUERIES, std::max(capacity, head_size));
  }

  // Computes the logits; called in every thread.
  void run() {
    const long n_logits = outputs.size();
    Operand& operand = is_small ? scratch().operand : shared;
    enter(operand);
    for (size_t i = 0; i < layers.size(); i++) transform(operand, i);
    norm(operand, n_logits, ln_f, ln_f + n_embd);
    if (out_proj.w) product(operand, operand.normed, n_logits, n_embd, out_proj, n_token_embd, STORE, wide);
    const Activations& last = out_proj.w ? wide : operand.normed;
    product(operand, last, n_logits, n_token_embd, lm_head, n_vocab, STORE, {logits, n_vocab});
    team->phase(n_logits, [&](long i) { log_totals[i] = log_total(logits + i * n_vocab, n_vocab); });
  }

  // Adds a layer's attention and MLP to x. In the last layer, rows without logits only need their keys and values, so
  // that after its attention x holds only the other rows.
  void transform(Operand& operand, long i) {
    const Layer<W>& layer = layers[i];
    const long e = n_embd, f = n_inner;
    const float* v = layer.vectors;
    const float *g_1 = v, *b_1 = g_1 + e, *b_attn = b_1 + e, *b_proj = b_attn + 3 * e, *g_2 = b_proj + e;
    const float *b_2 = g_2 + e, *b_fc = b_2 + e, *b_mlp = b_fc + f;
    const float *s_attn = b_mlp + e, *s_proj = s_attn + 3 * e, *s_fc = s_proj + e, *s_mlp = s_fc + f;
    long n = rows.size();
    norm(operand, n, g_1, b_1);
    product(operand, operand.normed, n, e, layer.c_attn, s_attn, b_attn, 3 * e, STORE, wide);
    team->phase(segments.size() * n_head, [&](long task) { attend(i, task / n_head, task % n_head); });
    if (is_last(i) && outputs.size() < rows.size()) {
      n = outputs.size();
      team->phase(1, [&](long) {
        for (long row = 0; row < n; row++)
          if (outputs[row] != row) std::copy(x[outputs[row]], x[outputs[row]] + e, x[row]);
      });
    }
    product(operand, attended, n, e, layer.attn_proj, s_proj, b_proj, e, ADD, x);
    norm(operand, n, g_2, b_2);
    product(operand, operand.normed, n, e, layer.c_fc, s_fc, b_fc, f, exact_gelu ? EXACT_GELU : GELU, wide);
    product(operand, wide, n, f, layer.mlp_proj, s_mlp, b_mlp, e, ADD, x);
  }

  bool is_last(long layer) const { return layer + 1 == long(layers.size()); }

  // Writes the new tokens' embeddings to x.
  void enter(Operand& operand) {
    const long n = rows.size(), width = n_token_embd;
    const Activations& embedded = in_proj.w ? wide : x;
    team->phase(n, [&](long i) { embed(rows[i], embedded[i]); });
    if (in_proj.w) product(operand, wide, n, width, in_proj, n_embd, STORE, x);
  }

  void embed(NewToken input, float* out) {
    const long width = n_token_embd;
    for (long i = 0; i < width; i++)
      out[i] = to_float(wte.w[place<W>(i, input.token, width)]) * wte.scale[input.token] +
               wpe[input.position * width + i];
  }

  // Calls task(row) for each row of an operand.
  template <class Task>
  void each(long n, const Task& task) {
    if (!is_small) return team->phase(n, task);
    for (long row = 0; row < n; row++) task(row);
  }

  // Normalizes the first n rows of x.
  void norm(Operand& to, long n, const float* gain, const float* bias) {
    each(n, [&](long row) { layer_norm(x[row], gain, bias, epsilon, n_embd, to.normed[row]); });
  }

  void product(Operand& operand, const Rows& a, long n, long depth, const Matrix<W>& by, long width, Finish finish,
               const Rows& out) {
    product(operand, a, n, depth, by.w, by.scale, by.bias, width, finish, out);
  }

  // Computes a [n, depth] times w, times scale, plus bias, and stores, adds or activates it to out [n, width].
  void product([[maybe_unused]] Operand& operand, const Rows& a, long n, long depth, const W* w, const float* scale,
               const float* bias, long width, Finish finish, const Rows& out) {
    const auto finish_tile = [&](long column, long row, long count, Vec(*sums)[2]) {
      for (int half = 0; half < 2; half++, column += LANES)
        finish_columns(&sums[0][half], count, scale + column, bias ? bias + column : nullptr, width - column, finish,
               {out[row] + column, out.stride});
    };
    const auto with = [&](const auto& rows) { multiply(rows, n, depth, w, width, finish_tile); };
    as_operand(a, depth, operand.converted, [&](const auto& task) { each(n, task); }, with);
  }

  template <class A, class FinishTile>
  void multiply(const A& a, long n, long depth, const W* w, long width, const FinishTile& finish_tile) {
    const long panels = (width + WIDTH - 1) / WIDTH, blocks = (n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const auto task = [&](long i) {
      const long panel = i % panels, first = i / panels * BLOCK_ROWS, end = std::min(n, first + BLOCK_ROWS);
      Vec sums[A::MAX_ROWS][2];
      for (long row = first, rows; row < end; row += rows) {
        rows = std::min<long>(end - row, A::MAX_ROWS);
        tile_of<false>(rows, a, row, w + place<W>(0, panel * WIDTH, depth), depth, sums);
        finish_tile(panel * WIDTH, row, rows, sums);
      }
    };
    team->phase(panels * blocks, task);
  }

  // Finishes LANES columns of a tile, of which `width` are in the matrix; the next row's sums are two vectors further.
  static void finish_columns(const Vec* sums, long count, const float* scale, const float* bias, long width,
                             Finish finish, const Rows& out) {
    const Vec times = load(scale, width), plus = bias ? load(bias, width) : Vec{};
    const auto put = [&](const auto& last) {
      for (long r = 0; r < count; r++) store(out[r], last(sums[2 * r] * times + plus, out[r]), width);
    };
    switch (finish) {
      case STORE: return put([](Vec sum, const float*) { return sum; });
      case ADD: return put([&](Vec sum, const float* to) { return sum + load(to, width); });
      case GELU: return put([](Vec sum, const float*) { return gelu(sum); });
      case EXACT_GELU: return put([](Vec sum, const float*) { return gelu_by_erf(sum); });
    }
  }

  // Computes one head of one segment: writes its new keys and values into the cache, then computes the attention of
  // each new token that is needed later to all tokens up to itself.
  void attend(long layer, long number, long head) {
    const Segment& p = segments[number];
    const auto keys_of = [&](long slot) { return blocks[p.blocks[slot / Block<C>::SLOTS]] + block.place_of(layer, head); };
    const Rows qkv{wide[first_row[number]] + head * head_size, wide.stride};
    for (long t = 0; t < p.count; t++) {
      C* keys = keys_of(p.start + t);
      block.write(qkv[t] + n_embd, qkv[t] + 2 * n_embd, keys, (p.start + t) % Block<C>::SLOTS);
    }
    const long skipped = is_last(layer) ? p.count - p.n_logits : 0;
    const long to = (is_last(layer) ? first_output : first_row)[number] - skipped;
    for (long t = skipped, n; t < p.count; t += n) {
      n = std::min<long>(p.count - t, QUERIES);
      const Rows queries{qkv[t], qkv.stride}, out{attended[to + t] + head * head_size, attended.stride};
      attend_rows(keys_of, layers[layer].score_scale, queries, n, p.start + t, out);
    }
  }

  // Computes the attention of n queries, the first at `position`, to out [n, head_size]. keys_of(slot) returns the
  // head's keys in the slot's block; its values follow them.
  template <class KeysOf>
  void attend_rows(const KeysOf& keys_of, float scale, const Rows& q, long n, long position, const Rows& out) const {
    std::vector<float>& scores = scratch().scores;
    const long end = position + n;
    Vec sums[QUERIES][2];
    const auto all_rows = [&](const auto& task) {
      for (long r = 0; r < n; r++) task(r);
    };
    as_operand(q, head_size, scratch().converted, all_rows, [&](const auto& queries) {
      for (long slot = 0; slot < end; slot += WIDTH) {
        const C* keys = keys_of(slot) + place<C>(0, slot % Block<C>::SLOTS, head_size);
        tile_of<false>(n, queries, 0, keys, head_size, sums);
        for (long r = 0; r < n; r++) std::memcpy(&scores[r * capacity + slot], sums[r], sizeof sums[r]);
      }
    });
    for (long r = 0; r < n; r++) {
      softmax(&scores[r * capacity], position + r + 1, scale);
      const long used = (position + r + WIDTH) / WIDTH * WIDTH, all = (end - 1 + WIDTH) / WIDTH * WIDTH;
      std::fill(&scores[r * capacity + used], &scores[r * capacity] + all, 0.0f);
    }
    as_operand({scores.data(), capacity}, end, scratch().converted, all_rows, [&](const auto& probabilities) {
      std::vector<Sums>& all = scratch().sums;  // one for each panel
      std::fill(all.begin(), all.end(), Sums{});
      for (long slot = 0; slot < end; slot += Block<C>::SLOTS) {
        const C* values = keys_of(slot) + block.keys();
        for (size_t i = 0; i < all.size(); i++)
          tile_of<true>(n, probabilities.from(slot), 0, values + place<C>(0, i * WIDTH, Block<C>::SLOTS),
                        std::min(end - slot, Block<C>::SLOTS), all[i].of);
      }
      for (size_t i = 0; i < all.size(); i++)
        for (long r = 0; r < n; r++)
          std::memcpy(out[r] + i * WIDTH, all[i].of[r],
                      std::min<long>(WIDTH, head_size - i * WIDTH) * sizeof(float));
    });
  }

  // Calls use(rows) with rows [n, depth] in the form that is multiplied by weights or a cache. `all` calls a task for
  // each row.
  template <class Weight, class All, class Use>
  static void as_operand(const Rows& rows, [[maybe_unused]] long depth, [[maybe_unused]] Converted<Weight>& converted,
                         [[maybe_unused]] const All& all, const Use& use) {
    if constexpr (ROUNDED<Weight>) {
      const long stride = Form<Weight>::stride_of(depth);
      auto* const to = converted.memory.data();
      all([&](long row) { Form<Weight>::round(rows[row], depth, to + row * stride); });
      use(Form<Weight>{to, stride});
    } else {
      use(Floats{rows.first, rows.stride});
    }
  }
};

}  // namespace gpt2
