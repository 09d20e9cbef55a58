// The whole transformer over packed weights, as all threads of a team walk through it.

#pragma once

#include <type_traits>
#include <vector>

#include "cache.h"
#include "kernels.h"
#include "team.h"

namespace gpt2 {

// One layer: packed matrices, and one vector with gains, biases and the matrices' scales one after another.
template <class W>
struct Layer {
  const W *c_attn, *attn_proj, *c_fc, *mlp_proj;
  const float* vectors;
  float score_scale;
};

// A matrix outside of the layers, with its scales and, of some, a bias.
template <class W>
struct Matrix {
  const W* w;
  const float *scale, *bias;
};

// What is new of one text: `count` tokens, the first at position `start`; the last `wanted` of them want logits. The
// numbers of the blocks that hold what was before and take what is new follow these three numbers.
struct Piece {
  static constexpr int BLOCKS = 3;
  int start, count, wanted;
  const int *blocks, *tokens;
};

template <class W, class C>
struct Forward {
  long n_embd, n_head, n_vocab, n_inner, n_token_embd;
  float epsilon;
  bool exact_gelu;
  std::vector<Piece> pieces;
  C* const* blocks;
  Matrix<W> wte, in_proj, out_proj, lm_head;  // in_proj and out_proj where n_token_embd is not n_embd
  const float *wpe, *ln_f;
  std::vector<Layer<W>> layers;
  float *logits, *log_totals;  // [wanted, n_vocab] and [wanted]
  Team* team;

  enum Then { STORE, ADD, GELU, EXACT_GELU };
  static constexpr long ROWS_AT_ONCE = 96;   // so many rows of activations stay in the second-level cache
  static constexpr long FEW = 4;  // rows that every thread prepares for itself sooner than it waits for others

  struct New {
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
      this->stride = apart<float>(n);
      memory.resize(rows * this->stride);
      this->first = memory.data();
    }
  };
  template <class Weight>
  using Form = typename gpt2::Form<Weight>::Of;
  template <class Weight>
  static constexpr bool ROUNDED = !std::is_same_v<Form<Weight>, Floats>;

  // Rows in the form in which they meet weights or a cache, if that is not the one in which they were computed.
  template <class Weight, bool = ROUNDED<Weight>>
  struct Converted {
    std::vector<typename Form<Weight>::Stored> memory;

    void resize(long rows, long depth) { memory.resize(rows * Form<Weight>::stride_of(depth)); }
  };
  template <class Weight>
  struct Converted<Weight, false> {
    void resize(long, long) {}
  };
  // Activations on their way into a product.
  struct Operand {
    Activations normed;
    Converted<W> converted;

    void resize(long rows, long n_embd, long widest) {
      normed.resize(rows, n_embd);
      converted.resize(rows, widest);
    }
  };
  static constexpr int QUERIES = Form<C>::MAX_ROWS;  // that attend at once
  struct Sums {
    Vec of[QUERIES][2];
  };
  // What each thread has of its own. Sized before anything is computed, where an exception does no harm, and kept.
  struct Own {
    Operand few;
    std::vector<float> scores;
    std::vector<Sums> sums;
    Converted<C> converted;
  };
  static Own& own() {
    static thread_local Own mine;
    return mine;
  }

  std::vector<New> rows;     // of the activations
  std::vector<long> first;   // of each piece's rows
  std::vector<long> wanted;  // the rows that want logits
  std::vector<long> first_wanted;  // of each piece's among them
  Activations x, wide, attended;
  Operand shared;
  Block<C> block;
  long head_size, widest;
  long capacity;  // slots that the longest piece sees, in whole blocks
  bool few;

  void prepare() {  // once, before the threads do
    head_size = n_embd / n_head;
    widest = std::max(std::max(3 * n_embd, n_inner), n_token_embd);
    block = {n_head, head_size};
    capacity = 0;
    for (const Piece& p : pieces) {
      first.push_back(rows.size());
      first_wanted.push_back(wanted.size());
      for (int t = 0; t < p.count; t++) rows.push_back({p.tokens[t], p.start + t});
      for (int t = p.wanted; t > 0; t--) wanted.push_back(rows.size() - t);
      capacity = std::max(capacity, (p.start + p.count + Block<C>::SLOTS - 1) / Block<C>::SLOTS * Block<C>::SLOTS);
    }
    const long n = rows.size();
    few = n <= FEW;
    x.resize(n, n_embd);
    wide.resize(n, widest);
    attended.resize(n, n_embd);
    shared.resize(few ? 0 : n, n_embd, widest);
  }

  void prepare_thread() const {
    if (few) own().few.resize(rows.size(), n_embd, widest);
    own().scores.resize(QUERIES * capacity);
    own().sums.resize((head_size + WIDTH - 1) / WIDTH);
    own().converted.resize(QUERIES, std::max(capacity, head_size));
  }

  void run() {  // in every thread
    const long n_logits = wanted.size();
    Operand& operand = few ? own().few : shared;
    enter(operand);
    for (size_t i = 0; i < layers.size(); i++) transform(operand, i);
    norm(operand, n_logits, ln_f, ln_f + n_embd);
    if (out_proj.w) product(operand, operand.normed, n_logits, n_embd, out_proj, n_token_embd, STORE, wide);
    const Activations& last = out_proj.w ? wide : operand.normed;
    product(operand, last, n_logits, n_token_embd, lm_head, n_vocab, STORE, {logits, n_vocab});
    team->phase(n_logits, [&](long i) { log_totals[i] = log_total(logits + i * n_vocab, n_vocab); });
  }

  // What a layer adds to x. Of the last one's rows only their keys and values are needed where no logits are wanted: there
  // x has the others alone from then on.
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
    team->phase(pieces.size() * n_head, [&](long task) { attend(i, task / n_head, task % n_head); });
    if (is_last(i) && wanted.size() < rows.size()) {
      n = wanted.size();
      team->phase(1, [&](long) {
        for (long row = 0; row < n; row++)
          if (wanted[row] != row) std::copy(x[wanted[row]], x[wanted[row]] + e, x[row]);
      });
    }
    product(operand, attended, n, e, layer.attn_proj, s_proj, b_proj, e, ADD, x);
    norm(operand, n, g_2, b_2);
    product(operand, operand.normed, n, e, layer.c_fc, s_fc, b_fc, f, exact_gelu ? EXACT_GELU : GELU, wide);
    product(operand, wide, n, f, layer.mlp_proj, s_mlp, b_mlp, e, ADD, x);
  }

  bool is_last(long layer) const { return layer + 1 == long(layers.size()); }

  // The new tokens' embeddings into x.
  void enter(Operand& operand) {
    const long n = rows.size(), width = n_token_embd;
    const Activations& embedded = in_proj.w ? wide : x;
    team->phase(n, [&](long i) { embed(rows[i], embedded[i]); });
    if (in_proj.w) product(operand, wide, n, width, in_proj, n_embd, STORE, x);
  }

  void embed(New at, float* out) {
    const long width = n_token_embd;
    for (long i = 0; i < width; i++)
      out[i] = to_float(wte.w[place<W>(i, at.token, width)]) * wte.scale[at.token] + wpe[at.position * width + i];
  }

  // Does task(row) for each row of an operand.
  template <class Task>
  void each(long n, const Task& task) {
    if (!few) return team->phase(n, task);
    for (long row = 0; row < n; row++) task(row);
  }

  void norm(Operand& to, long n, const float* gain, const float* bias) {  // the first n rows of x
    each(n, [&](long row) { layer_norm(x[row], gain, bias, epsilon, n_embd, to.normed[row]); });
  }

  void product(Operand& operand, const Rows& a, long n, long depth, const Matrix<W>& by, long width, Then then,
               const Rows& out) {
    product(operand, a, n, depth, by.w, by.scale, by.bias, width, then, out);
  }

  // out [n, width] = or += a [n, depth] times w, times scale, plus bias.
  void product([[maybe_unused]] Operand& operand, const Rows& a, long n, long depth, const W* w, const float* scale,
               const float* bias, long width, Then then, const Rows& out) {
    const auto finish_tile = [&](long column, long row, long count, Vec(*sums)[2]) {
      for (int half = 0; half < 2; half++, column += LANES)
        finish(&sums[0][half], count, scale + column, bias ? bias + column : nullptr, width - column, then,
               {out[row] + column, out.stride});
    };
    const auto with = [&](const auto& rows) { multiply(rows, n, depth, w, width, finish_tile); };
    as_operand(a, depth, operand.converted, [&](const auto& task) { each(n, task); }, with);
  }

  template <class A, class Finish>
  void multiply(const A& a, long n, long depth, const W* w, long width, const Finish& finish_tile) {
    const long panels = (width + WIDTH - 1) / WIDTH, blocks = (n + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    const auto task = [&](long i) {
      const long panel = i % panels, first = i / panels * ROWS_AT_ONCE, end = std::min(n, first + ROWS_AT_ONCE);
      Vec sums[A::MAX_ROWS][2];
      for (long row = first, rows; row < end; row += rows) {
        rows = std::min<long>(end - row, A::MAX_ROWS);
        tile_of<false>(rows, a, row, w + place<W>(0, panel * WIDTH, depth), depth, sums);
        finish_tile(panel * WIDTH, row, rows, sums);
      }
    };
    team->phase(panels * blocks, task);
  }

  // LANES columns of a tile, of which `width` are in the matrix; the next row's sums are two vectors further.
  static void finish(const Vec* sums, long count, const float* scale, const float* bias, long width, Then then,
                     const Rows& out) {
    const Vec times = load(scale, width), plus = bias ? load(bias, width) : Vec{};
    const auto put = [&](const auto& last) {
      for (long r = 0; r < count; r++) store(out[r], last(sums[2 * r] * times + plus, out[r]), width);
    };
    switch (then) {
      case STORE: return put([](Vec sum, const float*) { return sum; });
      case ADD: return put([&](Vec sum, const float* to) { return sum + load(to, width); });
      case GELU: return put([](Vec sum, const float*) { return gelu(sum); });
      case EXACT_GELU: return put([](Vec sum, const float*) { return gelu_by_erf(sum); });
    }
  }

  // One head of one piece: its new keys and values into the cache, then the attention of each new token that anything
  // depends on to all so far.
  void attend(long layer, long number, long head) {
    const Piece& p = pieces[number];
    const auto keys_of = [&](long slot) { return blocks[p.blocks[slot / Block<C>::SLOTS]] + block.place_of(layer, head); };
    const Rows qkv{wide[first[number]] + head * head_size, wide.stride};
    for (long t = 0; t < p.count; t++) {
      C* keys = keys_of(p.start + t);
      block.keep(qkv[t] + n_embd, qkv[t] + 2 * n_embd, keys, (p.start + t) % Block<C>::SLOTS);
    }
    const long skipped = is_last(layer) ? p.count - p.wanted : 0;
    const long to = (is_last(layer) ? first_wanted : first)[number] - skipped;
    for (long t = skipped, n; t < p.count; t += n) {
      n = std::min<long>(p.count - t, QUERIES);
      const Rows queries{qkv[t], qkv.stride}, out{attended[to + t] + head * head_size, attended.stride};
      attend_rows(keys_of, layers[layer].score_scale, queries, n, p.start + t, out);
    }
  }

  // Queries q [n] that stand at `position` and after it -> out [n, head_size]. keys_of: the keys of the head in the block
  // of a slot; its values follow them.
  template <class KeysOf>
  void attend_rows(const KeysOf& keys_of, float scale, const Rows& q, long n, long position, const Rows& out) const {
    std::vector<float>& scores = own().scores;
    const long end = position + n;
    Vec sums[QUERIES][2];
    const auto all_rows = [&](const auto& task) {
      for (long r = 0; r < n; r++) task(r);
    };
    as_operand(q, head_size, own().converted, all_rows, [&](const auto& queries) {
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
    as_operand({scores.data(), capacity}, end, own().converted, all_rows, [&](const auto& probabilities) {
      std::vector<Sums>& all = own().sums;  // of each panel
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

  // Does use(rows) with these rows [n, depth] in the form in which they meet weights or a cache; `all` does a task for each.
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
