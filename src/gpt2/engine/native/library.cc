// What Python uses (backend.py): gpt2_width, gpt2_pack, gpt2_slots, gpt2_block_bytes, gpt2_forward and
// gpt2_random_words. No C++ exception leaves this file.

#include <pthread.h>

#include "forward.h"
#include "pack.h"
#include "random.h"

namespace gpt2 {

// Never destroyed: at exit its threads still wait. A forked process has none of them and takes a new team.
Team* team = new Team;
const int at_fork = pthread_atfork(nullptr, nullptr, [] { team = new Team; });

// A model's packed weights; matrices and vectors layer by layer, four matrices and one vector each.
struct Model {
  long n_vocab, n_ctx, n_embd, n_head, n_layer, n_inner, n_token_embd;
  long exact_gelu, scale_by_layer, threads;
  double epsilon;
  struct Outside {  // a matrix that is in no layer: see Matrix in forward.h
    const void* w;
    const float *scale, *bias;
  } wte, in_proj, out_proj, lm_head;
  const void* const* matrices;
  const float *wpe, *ln_f, *const* vectors;
};

// The blocks of a cache (forward.h); those that nobody has taken yet may be null.
struct Cache {
  long n_blocks;
  void* const* blocks;
};

enum Type { FLOAT32, BFLOAT16, INT8 };

// `room`: blocks that the piece names, some perhaps for nothing.
const char* wrong(const Model& model, const Cache& cache, const Piece& p, long room) {
  if (p.count < 1 || p.wanted < 0 || p.wanted > p.count) return "counts must be from 1, and at least what is wanted";
  const long end = p.start + long(p.count), slots = Block<float>::SLOTS;
  if (p.start < 0 || end > std::min(room * slots, model.n_ctx)) return "positions out of range";
  const auto there = [&](int block) { return block >= 0 && block < cache.n_blocks && cache.blocks[block]; };
  if (!std::all_of(p.blocks, p.blocks + (end + slots - 1) / slots, there)) return "blocks out of range";
  const auto known = [&](int id) { return id >= 0 && id < model.n_vocab; };
  return std::all_of(p.tokens, p.tokens + p.count, known) ? nullptr : "ids outside the vocabulary";
}

template <class W, class C>
void forward(const Model& model, const Cache& cache, std::vector<Piece> pieces, float* logits, float* log_totals) {
  Forward<W, C> f;
  f.n_embd = model.n_embd, f.n_head = model.n_head, f.n_vocab = model.n_vocab;
  f.n_inner = model.n_inner, f.n_token_embd = model.n_token_embd;
  f.epsilon = model.epsilon, f.exact_gelu = model.exact_gelu;
  f.pieces = std::move(pieces);
  f.blocks = reinterpret_cast<C* const*>(cache.blocks);
  const auto outside = [](const Model::Outside& m) { return Matrix<W>{static_cast<const W*>(m.w), m.scale, m.bias}; };
  f.wte = outside(model.wte), f.lm_head = outside(model.lm_head);
  f.in_proj = outside(model.in_proj), f.out_proj = outside(model.out_proj);
  f.wpe = model.wpe, f.ln_f = model.ln_f;
  for (long i = 0; i < model.n_layer; i++) {
    const auto matrix = [&](long k) { return static_cast<const W*>(model.matrices[4 * i + k]); };
    const float scale = 1 / std::sqrt(float(model.n_embd / model.n_head)) / (model.scale_by_layer ? i + 1 : 1);
    f.layers.push_back({matrix(0), matrix(1), matrix(2), matrix(3), model.vectors[i], scale});
  }
  f.logits = logits, f.log_totals = log_totals;
  f.team = team;
  f.prepare();
  team->run(model.threads, [&] { f.prepare_thread(); }, [&] { f.run(); });
}

// What work() returns, that is what is wrong with its input or nothing, or what it threw.
template <class Work>
const char* caught(const Work& work) noexcept {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return "no memory";  // which Python knows
  } catch (const std::length_error&) {  // more than there are addresses for
    return "no memory";
  } catch (...) {
    return "an exception that nobody foresaw";
  }
}

}  // namespace gpt2

#define GPT2_EXPORT extern "C" __attribute__((visibility("default")))

// For Python, which makes room in whole panels.
extern "C" __attribute__((visibility("default"))) const int gpt2_width = gpt2::WIDTH;

// Weights [depth, n] if in_out, else [n, depth], float32 -> columns `first` and after it of a packed matrix (kernels.h)
// of `type`, which is all zeros there, and in int8 their scales. In the thread that calls. Returns what went wrong, or
// nothing.
GPT2_EXPORT const char* gpt2_pack(int type, const float* weights, long n, long depth, int in_out, long first, void* to,
                                  float* scales) {
  using namespace gpt2;
  return caught([&]() -> const char* {
    const Plain from{weights, n, depth, bool(in_out)};
    if (type == FLOAT32) pack(from, first, (float*)to, scales);
    if (type == BFLOAT16) pack(from, first, (bfloat16*)to, scales);
    if (type == INT8) pack(from, first, (Biased*)to, scales);
    return nullptr;
  });
}

// Slots of a block, and its bytes in the cache of a model with weights of `type`.
extern "C" __attribute__((visibility("default"))) const int gpt2_slots = gpt2::Block<float>::SLOTS;
GPT2_EXPORT long gpt2_block_bytes(int type, const gpt2::Model* model) {
  using namespace gpt2;
  const auto bytes = [&](auto element) {
    const Block<decltype(element)> block{model->n_head, model->n_embd / model->n_head};
    return block.place_of(model->n_layer, 0) * long(sizeof element);
  };
  return type == FLOAT32 ? bytes(float()) : bytes(bfloat16());
}

// pieces [n, width]: start, count, wanted, then the numbers of blocks; tokens: those of all pieces, one after another
// -> logits [all wanted, n_vocab] and the logarithms of their exponentials' sums [all wanted]. Returns what is wrong
// with the pieces, or what went wrong, or nothing. The cache is bfloat16 unless the weights are float32.
GPT2_EXPORT const char* gpt2_forward(int type, const gpt2::Model* model, const gpt2::Cache* cache, const int* pieces,
                                     long n, long width, const int* tokens, long n_tokens, float* logits,
                                     float* log_totals) {
  using namespace gpt2;
  return caught([&]() -> const char* {
    std::vector<Piece> all;
    for (; n > 0; n--, pieces += width) {
      const Piece p{pieces[0], pieces[1], pieces[2], pieces + Piece::BLOCKS, tokens};
      if (p.count > n_tokens) return "fewer tokens than the pieces count";
      if (const char* what = wrong(*model, *cache, p, width - Piece::BLOCKS)) return what;
      all.push_back(p);
      tokens += p.count, n_tokens -= p.count;
    }
    if (type == FLOAT32) forward<float, float>(*model, *cache, std::move(all), logits, log_totals);
    if (type == BFLOAT16) forward<bfloat16, bfloat16>(*model, *cache, std::move(all), logits, log_totals);
    if (type == INT8) forward<Biased, bfloat16>(*model, *cache, std::move(all), logits, log_totals);
    return nullptr;
  });
}

// Random words of n streams, as sample.py describes them: of the stream with the key keys[2 * i] and keys[2 * i + 1] the
// numbers after the first firsts[i]. Of stream i counts[i] words are wanted, those of ids, or all from 0 on if there are
// no ids.
GPT2_EXPORT const char* gpt2_random_words(const uint64_t* keys, const uint64_t* firsts, const long* counts, long n,
                                          const int* ids, long threads, uint32_t* to) {
  using namespace gpt2;
  return caught([&]() -> const char* {
    std::vector<long> starts{0};
    for (long i = 0; i < n; i++) starts.push_back(starts.back() + counts[i]);
    const auto task = [&](long i) {
      uint32_t* words = to + starts[i];
      if (ids) return random_words(keys + 2 * i, firsts[i], counts[i], ids + starts[i], words);
      random_words(keys + 2 * i, firsts[i], counts[i], words);
    };
    team->run(threads, [] {}, [&] { team->phase(n, task); });
    return nullptr;
  });
}
