// The C API of the native step: weights are packed, ids go in, logits come out. library.cc and backend.py implement and
// use it; examples/c has a program in C. Compiled by build.py's compile_library, whose options matter to the bits.
//
// Every function may be called from any thread; jobs wait for each other. Those that return text return what is wrong
// with their arguments, "no memory" where there was none, or NULL, and nothing has to be freed. A `long` is 64 bits.

#ifndef GPT2_H
#define GPT2_H

#include <stdint.h>

#define GPT2_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

// What packed weights are. The cache is float32 where they are, else bfloat16.
enum gpt2_type { GPT2_FLOAT32, GPT2_BFLOAT16, GPT2_INT8 };

// Columns of a panel of a packed matrix, which depends on the processor, and positions of a block of the cache.
extern GPT2_EXPORT const int gpt2_width, gpt2_slots;

// A packed matrix [depth, n] (panels.h says how it lies in memory), by what each of its n outputs is multiplied, which
// is 1 but in int8, and what is added to them, or NULL.
typedef struct gpt2_matrix {
  const void* w;
  const float *scale, *bias;
} gpt2_matrix;

// A model: sizes as in hparams.json, n_inner that of the MLP, n_token_embd that of the embeddings, both of them set.
// `threads` compute, or as many as the system grants.
typedef struct gpt2_model {
  long n_vocab, n_ctx, n_embd, n_head, n_layer, n_inner, n_token_embd;
  long exact_gelu;      // 0: gelu by tanh, as in GPT-2; 1: by erf
  long scale_by_layer;  // 1: the scores of layer i are divided by i + 1 too
  long threads;
  double epsilon;  // of the layer norms, 1e-5 in GPT-2
  // wte [n_token_embd, n_vocab], lm_head the same again where it is tied; in_proj [n_token_embd, n_embd] and out_proj
  // [n_embd, n_token_embd] where the two sizes differ, else with a `w` that is NULL.
  gpt2_matrix wte, in_proj, out_proj, lm_head;
  const void* const* matrices;  // layer by layer: c_attn, attention's c_proj, c_fc, the MLP's c_proj
  const float *wpe, *ln_f;      // [n_ctx, n_token_embd]; gain and bias [2, n_embd]
  // Of each layer, one after another: ln_1's gain and bias, the biases of c_attn and of attention's c_proj, ln_2's gain
  // and bias, the biases of c_fc and of the MLP's c_proj, then the scales of the four in the same order.
  const float* const* vectors;
} gpt2_model;

// Blocks of a cache, gpt2_block_bytes each, of which those that nobody has taken yet may be NULL. Memory that holds
// anything finite will do, such as zeros.
typedef struct gpt2_cache {
  long n_blocks;
  void* const* blocks;
} gpt2_cache;

// Bytes of a packed matrix [depth, n].
GPT2_EXPORT long gpt2_packed_bytes(int type, long n, long depth);

// Weights [depth, n] if in_out, else [n, depth], float32 -> columns `first` and after it of a packed matrix of `type`,
// which is all zeros there, and in int8 their scales. In the thread that calls.
GPT2_EXPORT const char* gpt2_pack(int type, const float* weights, long n, long depth, int in_out, long first, void* to,
                                  float* scales);

// Bytes of a block in the cache of a model with weights of `type`.
GPT2_EXPORT long gpt2_block_bytes(int type, const gpt2_model* model);

// pieces [n, width]: the position at which new ids start, their count, how many of the last of them want logits, then
// the numbers of the blocks of the text that they go on, from its beginning to their last; tokens: the ids of all
// pieces, one after another -> logits [all wanted, n_vocab] and the logarithms of their exponentials' sums
// [all wanted]. A row's logits are the same bits whatever pieces stand beside it, however its text was cut up. Fails
// where the library was compiled for Intel's AMX and the system did not allow it when it was loaded.
GPT2_EXPORT const char* gpt2_forward(int type, const gpt2_model* model, const gpt2_cache* cache, const int* pieces,
                                     long n, long width, const int* tokens, long n_tokens, float* logits,
                                     float* log_totals);

// Random words of n streams, as sample.py describes them: of the stream with the key keys[2 * i] and keys[2 * i + 1] the
// numbers after the first firsts[i]. Of stream i counts[i] words are wanted, those of ids, or all from 0 on if `ids` is
// NULL.
GPT2_EXPORT const char* gpt2_random_words(const uint64_t* keys, const uint64_t* firsts, const long* counts, long n,
                                          const int* ids, long threads, uint32_t* to);

#ifdef __cplusplus
}
#endif

#endif
