// The functions that gpt2.h declares, for Python and other callers. No C++ exception leaves this file.

#include <pthread.h>

#include "forward.h"
#include "gpt2.h"
#include "pack.h"
#include "random.h"

#ifdef GPT2_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gpt2 {

// Never destroyed, since its threads still wait at exit. A forked process has none of the threads and gets a new team.
Team* team = new Team;
const int at_fork = pthread_atfork(nullptr, nullptr, [] { team = new Team; });

#ifdef GPT2_TILES
constexpr long REQUEST_PERMISSION = 0x1023, TILE_REGISTERS = 18;  // the same numbers as in devices.py
const bool may_compute = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_REGISTERS) == 0;  // once per process
#else
const bool may_compute = true;
#endif

// Returns the error in a segment, or NULL. max_blocks: the maximum number of the segment's blocks.
const char* find_error(const gpt2_model& model, const gpt2_cache& cache, const Segment& p, long max_blocks) {
  if (p.count < 1 || p.n_logits < 0 || p.n_logits > p.count)
    return "a segment needs at least one id, and at most as many logits as ids";
  const long end = p.start + long(p.count), slots = Block<float>::SLOTS;
  if (p.start < 0 || end > std::min(max_blocks * slots, model.n_ctx))
    return "a segment's positions exceed its blocks or the window";
  const auto is_valid_block = [&](int block) { return block >= 0 && block < cache.n_blocks && cache.blocks[block]; };
  if (!std::all_of(p.blocks, p.blocks + (end + slots - 1) / slots, is_valid_block))
    return "a segment has a block that the cache does not have";
  const auto is_valid_id = [&](int id) { return id >= 0 && id < model.n_vocab; };
  if (!std::all_of(p.tokens, p.tokens + p.count, is_valid_id)) return "a segment has an id outside the vocabulary";
  return nullptr;
}

template <class W, class C>
void forward(const gpt2_model& model, const gpt2_cache& cache, std::vector<Segment> segments, float* logits,
             float* log_totals) {
  Forward<W, C> f;
  f.n_embd = model.n_embd, f.n_head = model.n_head, f.n_vocab = model.n_vocab;
  f.n_inner = model.n_inner, f.n_token_embd = model.n_token_embd;
  f.epsilon = model.epsilon, f.exact_gelu = model.exact_gelu;
  f.segments = std::move(segments);
  f.blocks = reinterpret_cast<C* const*>(cache.blocks);
  const auto to_matrix = [](const gpt2_matrix& m) { return Matrix<W>{static_cast<const W*>(m.w), m.scale, m.bias}; };
  f.wte = to_matrix(model.wte), f.lm_head = to_matrix(model.lm_head);
  f.in_proj = to_matrix(model.in_proj), f.out_proj = to_matrix(model.out_proj);
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

// Returns the result of work(), an error message or NULL; exceptions become messages.
template <class Work>
const char* catch_errors(const Work& work) noexcept {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return "no memory";  // calls.py compares with this message
  } catch (const std::length_error&) {  // more than the address space
    return "no memory";
  } catch (...) {
    return "an unexpected exception";
  }
}

}  // namespace gpt2

const int gpt2_width = gpt2::WIDTH, gpt2_slots = gpt2::Block<float>::SLOTS;

long gpt2_packed_bytes(int type, long n, long depth) {
  using namespace gpt2;
  const long group = type == GPT2_FLOAT32 ? GROUP<float> : type == GPT2_BFLOAT16 ? GROUP<bfloat16> : GROUP<Biased>;
  return (n + WIDTH - 1) / WIDTH * ((depth + group - 1) / group) * WIDTH * sizeof(int32_t);
}

const char* gpt2_pack(int type, const float* weights, long n, long depth, int in_out, long first, void* to,
                      float* scales) {
  using namespace gpt2;
  return catch_errors([&]() -> const char* {
    const Plain from{weights, n, depth, bool(in_out)};
    if (type == GPT2_FLOAT32) pack(from, first, (float*)to, scales);
    if (type == GPT2_BFLOAT16) pack(from, first, (bfloat16*)to, scales);
    if (type == GPT2_INT8) pack(from, first, (Biased*)to, scales);
    return nullptr;
  });
}

long gpt2_block_bytes(int type, const gpt2_model* model) {
  using namespace gpt2;
  const auto bytes = [&](auto element) {
    const Block<decltype(element)> block{model->n_head, model->n_embd / model->n_head};
    return block.place_of(model->n_layer, 0) * long(sizeof element);
  };
  return type == GPT2_FLOAT32 ? bytes(float()) : bytes(bfloat16());
}

const char* gpt2_forward(int type, const gpt2_model* model, const gpt2_cache* cache, const int* segments, long n,
                         long width, const int* tokens, long n_tokens, float* logits, float* log_totals) {
  using namespace gpt2;
  return catch_errors([&]() -> const char* {
    if (!may_compute) return "the system does not permit AMX, for which this library was compiled";
    if (model->n_layer < 1) return "a model must have at least one layer";
    std::vector<Segment> all;
    for (; n > 0; n--, segments += width) {
      const Segment p{segments[0], segments[1], segments[2], segments + Segment::BLOCKS, tokens};
      if (p.count > n_tokens) return "there are fewer tokens than the segments need";
      if (const char* error = find_error(*model, *cache, p, width - Segment::BLOCKS)) return error;
      all.push_back(p);
      tokens += p.count, n_tokens -= p.count;
    }
    if (type == GPT2_FLOAT32) forward<float, float>(*model, *cache, std::move(all), logits, log_totals);
    if (type == GPT2_BFLOAT16) forward<bfloat16, bfloat16>(*model, *cache, std::move(all), logits, log_totals);
    if (type == GPT2_INT8) forward<Biased, bfloat16>(*model, *cache, std::move(all), logits, log_totals);
    return nullptr;
  });
}

const char* gpt2_random_words(const uint64_t* keys, const uint64_t* firsts, const long* counts, long n,
                              const int* ids, long threads, uint32_t* to) {
  using namespace gpt2;
  return catch_errors([&]() -> const char* {
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
