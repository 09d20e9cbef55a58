// The C API of the native step: packed weights and ids in, logits out. library.cc implements it, backend.py uses it,
// and examples/c has a program in C. compile_library in build.py compiles it; its options affect the bits of the
// results.
//
// Every function may be called from any thread; calls wait for each other. Functions that return text return NULL on
// success, otherwise an error message about their arguments, or "no memory". An unknown type, NULL instead of data, and a
// size that is negative or too large are such errors; then nothing is written. Nothing has to be freed. A `long` has 64
// bits.

#ifndef GPT2_H
#define GPT2_H

#include <stdint.h>

#define GPT2_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

// The types of packed weights. The cache is float32 with float32 weights, else bfloat16.
enum gpt2_type { GPT2_FLOAT32, GPT2_BFLOAT16, GPT2_INT8 };

// The number of columns in a panel of a packed matrix, which depends on the processor, and of slots in a cache block.
extern GPT2_EXPORT const int gpt2_width, gpt2_slots;

// A packed matrix [depth, n] (panels.h describes its layout), the factor of each of its n outputs, which is 1 except in
// int8, and the bias that is added to them, or NULL.
typedef struct gpt2_matrix {
  const void* w;
  const float *scale, *bias;
} gpt2_matrix;

// A model: sizes as in hparams.json. n_inner is the MLP's size and n_token_embd the embeddings'; both have to be set.
// `threads` threads compute, from 1 to 1024, or as many as the system grants.
typedef struct gpt2_model {
  long n_vocab, n_ctx, n_embd, n_head, n_layer, n_inner, n_token_embd;
  long exact_gelu;      // 0: gelu by tanh, as in GPT-2; 1: by erf
  long scale_by_layer;  // 1: the scores of layer i are also divided by i + 1
  long threads;
  double epsilon;  // of the layer norms, 1e-5 in GPT-2
  // wte [n_token_embd, n_vocab], and lm_head, which is the same if it is tied. in_proj [n_token_embd, n_embd] and
  // out_proj [n_embd, n_token_embd] are used if the two sizes differ; otherwise their `w` is NULL.
  gpt2_matrix wte, in_proj, out_proj, lm_head;
  const void* const* matrices;  // for each layer: c_attn, attention's c_proj, c_fc, the MLP's c_proj
  const float *wpe, *ln_f;      // [n_ctx, n_token_embd]; gain and bias [2, n_embd]
  // For each layer, one after another: ln_1's gain and bias, the biases of c_attn and of attention's c_proj, ln_2's
  // gain and bias, the biases of c_fc and of the MLP's c_proj, then the scales of the four matrices in the same order.
  const float* const* vectors;
} gpt2_model;

// The blocks of a cache, gpt2_block_bytes each; unused ones may be NULL. Their memory may hold any finite numbers at
// first, such as zeros.
typedef struct gpt2_cache {
  long n_blocks;
  void* const* blocks;
} gpt2_cache;

// Returns the bytes of a packed matrix [depth, n], or -1 if an argument is invalid.
GPT2_EXPORT long gpt2_packed_bytes(int type, long n, long depth);

// Packs float32 weights, [depth, n] if in_out, else [n, depth], into the columns of a packed matrix of `type` from
// column `first` on, where it has to be all zeros; in int8 their scales are written as well, otherwise `scales` may be
// NULL. Runs in the calling thread. If a weight is NaN or infinite, or too large for bfloat16, the call fails after it
// has written to the matrix.
GPT2_EXPORT const char* gpt2_pack(int type, const float* weights, long n, long depth, int in_out, long first, void* to,
                                  float* scales);

// Returns the bytes of a block in the cache of a model with weights of `type`, or -1 if an argument is invalid.
GPT2_EXPORT long gpt2_block_bytes(int type, const gpt2_model* model);

// Extends n sequences by a segment each. segments [n, width]: the position of the first new id, the number of new ids,
// for how many of the last ids logits are computed, then the numbers of the sequence's blocks, from its first position
// to the last new one. tokens: the ids of all segments, one after another. Writes logits [all n_logits, n_vocab] and
// the logarithms of the sums of their exponentials [all n_logits]. A sequence's logits have the same bits
// whatever other segments are computed with it, and however it was cut into segments. The call fails if the library was
// compiled for Intel's AMX and the system did not permit AMX when the library was loaded.
GPT2_EXPORT const char* gpt2_forward(int type, const gpt2_model* model, const gpt2_cache* cache, const int* segments,
                                     long n, long width, const int* tokens, long n_tokens, float* logits,
                                     float* log_totals);

// Draws random words of n streams, which sample.py describes. Stream i has the key keys[2 * i], keys[2 * i + 1] and
// starts after its first firsts[i] numbers; counts[i] of its words are drawn: the words of `ids` or, if `ids` is NULL,
// all words from 0 on.
GPT2_EXPORT const char* gpt2_random_words(const uint64_t* keys, const uint64_t* firsts, const long* counts, long n,
                                          const int* ids, long threads, uint32_t* to);

#ifdef __cplusplus
}
#endif

#endif
