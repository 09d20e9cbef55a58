// The functions that gpt2.h declares, for Python and other callers. No C++ exception leaves this file.

#include <pthread.h>

#include <climits>

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

constexpr long INVALID = -1;           // the bytes of something impossible
constexpr long MAX_THREADS = 1024;     // as in devices.py
constexpr const char* NO_IDS = "a segment needs at least one id, and at most as many logits as ids";
constexpr const char* UNKNOWN_TYPE = "the type must be GPT2_FLOAT32, GPT2_BFLOAT16 or GPT2_INT8";

bool is_type(int type) { return type == GPT2_FLOAT32 || type == GPT2_BFLOAT16 || type == GPT2_INT8; }

// Returns the bytes of a packed matrix, or INVALID if there are too many, or a size is below 1.
long packed_bytes(int type, long n, long depth) {
  const long group = type == GPT2_FLOAT32 ? GROUP<float> : type == GPT2_BFLOAT16 ? GROUP<bfloat16> : GROUP<Biased>;
  long bytes;
  if (n < 1 || depth < 1 || n > LONG_MAX - WIDTH || depth > LONG_MAX - group) return INVALID;
  const long columns = (n + WIDTH - 1) / WIDTH * WIDTH, words = (depth + group - 1) / group;
  const bool overflows = __builtin_mul_overflow(columns, words, &bytes) ||
                         __builtin_mul_overflow(bytes, long(sizeof(int32_t)), &bytes);
  return overflows ? INVALID : bytes;
}

// Returns the error in a model's sizes, or NULL.
const char* find_size_error(const gpt2_model& m) {
  for (const long size : {m.n_vocab, m.n_ctx, m.n_embd, m.n_head, m.n_layer, m.n_inner, m.n_token_embd})
    if (size < 1 || size > INT_MAX) return "a model's sizes must be from 1 to 2^31 - 1";
  if (3 * m.n_embd > INT_MAX) return "n_embd must be at most (2^31 - 1) / 3";
  if (m.n_embd % m.n_head) return "n_embd must be a multiple of n_head";
  return nullptr;
}

// Returns the error in the other fields of a model, whose sizes are valid, or NULL.
const char* find_pointer_error(const gpt2_model& m) {
  if (m.threads < 1 || m.threads > MAX_THREADS) return "threads must be from 1 to 1024";
  if (!(m.epsilon > 0 && m.epsilon < 1)) return "epsilon must be between 0 and 1";
  const auto is_missing = [](const gpt2_matrix& matrix) { return !matrix.w || !matrix.scale; };
  if (is_missing(m.wte) || is_missing(m.lm_head)) return "wte and lm_head, with their scales, must not be NULL";
  const bool projects = m.n_token_embd != m.n_embd;
  if (projects ? is_missing(m.in_proj) || is_missing(m.out_proj) : m.in_proj.w || m.out_proj.w)
    return "in_proj and out_proj must be NULL if n_token_embd is n_embd, and must not be NULL otherwise";
  if (!m.matrices || !m.wpe || !m.ln_f || !m.vectors) return "matrices, wpe, ln_f and vectors must not be NULL";
  const auto is_null = [](const void* p) { return !p; };
  if (std::any_of(m.matrices, m.matrices + 4 * m.n_layer, is_null) ||
      std::any_of(m.vectors, m.vectors + m.n_layer, is_null))
    return "a layer's matrices and vectors must not be NULL";
  return nullptr;
}

// Returns the bytes of a block for a model whose sizes are valid, or INVALID if there are too many.
long block_bytes(int type, const gpt2_model& model) {
  const auto bytes = [&](auto element) {
    const Block<decltype(element)> block{model.n_head, model.n_embd / model.n_head};
    long total;
    const bool overflows = __builtin_mul_overflow(model.n_layer * model.n_head, block.head(), &total) ||
                           __builtin_mul_overflow(total, long(sizeof element), &total);
    return overflows ? INVALID : total;
  };
  return type == GPT2_FLOAT32 ? bytes(float()) : bytes(bfloat16());
}

// Returns the error in a segment, or NULL. max_blocks: the maximum number of the segment's blocks.
const char* find_error(const gpt2_model& model, const gpt2_cache& cache, const Segment& p, long max_blocks) {
  if (p.count < 1 || p.n_logits < 0 || p.n_logits > p.count) return NO_IDS;
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
  return is_type(type) ? packed_bytes(type, n, depth) : INVALID;
}

const char* gpt2_pack(int type, const float* weights, long n, long depth, int in_out, long first, void* to,
                      float* scales) {
  using namespace gpt2;
  return catch_errors([&]() -> const char* {
    if (!is_type(type)) return UNKNOWN_TYPE;
    if (!weights || !to || (type == GPT2_INT8 && !scales)) return "weights, `to` and, in int8, scales must not be NULL";
    long end, numbers;
    if (first < 0 || __builtin_add_overflow(first, n, &end) || packed_bytes(type, end, depth) < 0 ||
        n < 1 || __builtin_mul_overflow(n * long(sizeof(float)), depth, &numbers))
      return "n and depth must be at least 1 and `first` at least 0, and all bytes must fit the address space";
    const Plain from{weights, n, depth, bool(in_out)};
    const bool finite = type == GPT2_FLOAT32    ? pack(from, first, static_cast<float*>(to), scales)
                        : type == GPT2_BFLOAT16 ? pack(from, first, static_cast<bfloat16*>(to), scales)
                                                : pack(from, first, static_cast<Biased*>(to), scales);
    return finite ? nullptr : "weights must be finite in the packed type";  // calls.py compares with this message
  });
}

long gpt2_block_bytes(int type, const gpt2_model* model) {
  using namespace gpt2;
  return is_type(type) && model && !find_size_error(*model) ? block_bytes(type, *model) : INVALID;
}

const char* gpt2_forward(int type, const gpt2_model* model, const gpt2_cache* cache, const int* segments, long n,
                         long width, const int* tokens, long n_tokens, float* logits, float* log_totals) {
  using namespace gpt2;
  return catch_errors([&]() -> const char* {
    if (!may_compute) return "the system does not permit AMX, for which this library was compiled";
    if (!is_type(type)) return UNKNOWN_TYPE;
    if (!model || !cache) return "model and cache must not be NULL";
    if (const char* error = find_size_error(*model)) return error;
    if (const char* error = find_pointer_error(*model)) return error;
    if (block_bytes(type, *model) < 0) return "the model's blocks exceed the address space";
    if (n < 0 || n_tokens < 0 || n_tokens > INT_MAX) return "n and n_tokens must not be negative or above 2^31 - 1";
    if (n == 0) return nullptr;
    if (n > n_tokens) return NO_IDS;
    if (width <= Segment::BLOCKS || width > INT_MAX) return "a segment's line needs at least one block";
    if (!segments || !tokens || (cache->n_blocks > 0 && !cache->blocks))
      return "segments, tokens and the cache's blocks must not be NULL";
    std::vector<Segment> all;
    long n_logits = 0;
    for (; n > 0; n--, segments += width) {
      const Segment p{segments[0], segments[1], segments[2], segments + Segment::BLOCKS, tokens};
      if (p.count > n_tokens) return "there are fewer tokens than the segments need";
      if (const char* error = find_error(*model, *cache, p, width - Segment::BLOCKS)) return error;
      all.push_back(p);
      tokens += p.count, n_tokens -= p.count, n_logits += p.n_logits;
    }
    if (n_logits && (!logits || !log_totals)) return "logits and log_totals must not be NULL";
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
    if (n < 0 || n > LONG_MAX / long(2 * sizeof *keys)) return "n must be at least 0 and fit the address space";
    if (threads < 1 || threads > MAX_THREADS) return "threads must be from 1 to 1024";
    if (n == 0) return nullptr;
    if (!keys || !firsts || !counts) return "keys, firsts and counts must not be NULL";
    std::vector<long> starts{0};
    for (long i = 0; i < n; i++) {
      long end, bytes;
      if (counts[i] < 0 || __builtin_add_overflow(starts.back(), counts[i], &end) ||
          __builtin_mul_overflow(end, long(sizeof *to), &bytes))
        return "counts must be at least 0, and all words must fit the address space";
      starts.push_back(end);
    }
    if (starts.back() && !to) return "`to` must not be NULL";
    if (ids && std::any_of(ids, ids + starts.back(), [](int id) { return id < 0; })) return "ids must be at least 0";
    const auto task = [&](long i) {
      uint32_t* words = to + starts[i];
      if (ids) return random_words(keys + 2 * i, firsts[i], counts[i], ids + starts[i], words);
      random_words(keys + 2 * i, firsts[i], counts[i], words);
    };
    team->run(threads, [] {}, [&] { team->phase(n, task); });
    return nullptr;
  });
}
