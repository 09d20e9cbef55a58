// What Python calls (backend.py): gpt2_pack and gpt2_forward. Nothing here depends on TensorFlow.

#include "forward.h"

namespace gpt2 {

Team& team = *new Team;  // never destroyed: at exit its threads still wait

// A model's packed weights; kernels and vectors layer by layer, four kernels and one vector each.
struct Model {
  long n_vocab, n_ctx, n_embd, n_head, n_layer, threads;
  const void *wte, *const* kernels;
  const float *wte_scale, *wpe, *ln_f, *const* vectors;
};

// A cache's tensors, layer by layer.
struct Cache {
  long rows, capacity;
  void *const *keys, *const* values;
};

enum Type { FLOAT32, BFLOAT16, INT8 };

const char* wrong(const Model& model, const Cache& cache, const Sequence& s, long width) {
  if (s.count < 1 || s.count > width) return "counts must be from 1 to the tokens' width";
  if (s.start < 0 || s.start + long(s.count) > std::min(cache.capacity, model.n_ctx)) return "positions out of range";
  if (s.row < 0 || s.row >= cache.rows) return "rows out of range";
  const auto known = [&](int id) { return id >= 0 && id < model.n_vocab; };
  return std::all_of(s.tokens, s.tokens + s.count, known) ? nullptr : "ids outside the vocabulary";
}

template <class W, class C>
void forward(const Model& model, const Cache& cache, std::vector<Sequence> sequences, float* logits) {
  Forward<W, C> f;
  f.n_embd = model.n_embd, f.n_head = model.n_head, f.n_vocab = model.n_vocab, f.capacity = cache.capacity;
  f.sequences = std::move(sequences);
  f.wte = static_cast<const W*>(model.wte);
  f.wte_scale = model.wte_scale, f.wpe = model.wpe, f.ln_f = model.ln_f;
  for (long i = 0; i < model.n_layer; i++) {
    const auto kernel = [&](long k) { return static_cast<const W*>(model.kernels[4 * i + k]); };
    f.layers.push_back({kernel(0), kernel(1), kernel(2), kernel(3), model.vectors[i], static_cast<C*>(cache.keys[i]),
                        static_cast<C*>(cache.values[i])});
  }
  f.logits = logits;
  f.team = &team;
  f.prepare();
  team.run(model.threads, [&](int) { f.run(); });
}

inline float packed(float x, float) { return x; }
inline bfloat16 packed(float x, bfloat16) { return to_bfloat16(x); }
inline Biased packed(int8_t x, Biased) { return {uint8_t(x + 128)}; }

template <class T, class W>
void pack(const T* const* parts, const long* widths, long n_parts, long depth, bool transposed, long threads, W* to) {
  const long width = widths[0], n = width * (n_parts - 1) + widths[n_parts - 1], panels = (n + WIDTH - 1) / WIDTH;
  const auto task = [&](long panel) {
    W* out = to + place<W>(0, panel * WIDTH, depth);
    const long at = panel * WIDTH / width, first = panel * WIDTH % width;
    const long columns = std::min<long>(WIDTH, widths[at] - first);
    const long step = transposed ? 1 : widths[at], across = transposed ? depth : 1;
    const T* in = parts[at] + first * across;
    std::memset((void*)out, 0, groups<W>(depth) * WIDTH * GROUP<W> * sizeof(W));
    for (long block = 0; block < depth; block += LANES)  // both sides stay in the first-level cache
      for (long i = 0; i < columns; i++)
        for (long k = block; k < std::min(depth, block + LANES); k++)
          out[place<W>(k, i, depth)] = packed(in[k * step + i * across], W());
  };
  team.run(threads, [&](int) { team.phase(panels, task); });
}

}  // namespace gpt2

#define GPT2_EXPORT extern "C" __attribute__((visibility("default")))

// Parts [depth, n], or [n, depth] if transposed, side by side -> a packed matrix (kernels.h) of `type`; int8 is made of
// int8, the others of float32. All parts but the last are equally wide, in whole panels.
GPT2_EXPORT void gpt2_pack(int type, const void* const* parts, const long* widths, long n_parts, long depth,
                           int transposed, long threads, void* to) {
  using namespace gpt2;
  if (type == INT8)
    return pack((const int8_t* const*)parts, widths, n_parts, depth, transposed, threads, (Biased*)to);
  const auto floats = (const float* const*)parts;
  if (type == BFLOAT16) return pack(floats, widths, n_parts, depth, transposed, threads, (bfloat16*)to);
  pack(floats, widths, n_parts, depth, transposed, threads, (float*)to);
}

// pieces [n, width]: row, start, count, then the tokens of each sequence -> logits [n, n_vocab]. Returns what is wrong
// with the pieces, or nothing. The cache is bfloat16 unless the weights are float32.
GPT2_EXPORT const char* gpt2_forward(int type, const gpt2::Model* model, const gpt2::Cache* cache, const int* pieces,
                                     long n, long width, float* logits) {
  using namespace gpt2;
  std::vector<Sequence> sequences;
  for (; n > 0; n--, pieces += width) {
    sequences.push_back({pieces[0], pieces[1], pieces[2], pieces + Sequence::TOKENS});
    if (const char* what = wrong(*model, *cache, sequences.back(), width - Sequence::TOKENS)) return what;
  }
  if (type == FLOAT32) forward<float, float>(*model, *cache, std::move(sequences), logits);
  if (type == BFLOAT16) forward<bfloat16, bfloat16>(*model, *cache, std::move(sequences), logits);
  if (type == INT8) forward<Biased, bfloat16>(*model, *cache, std::move(sequences), logits);
  return nullptr;
}
