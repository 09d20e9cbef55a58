// A model for the native step (gpt2.h), read from the file that prepare.py writes: OpenAI's GPT-2 in one of three types.

#ifndef MODEL_H
#define MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpt2.h"

static void check(const char* wrong) {
  if (!wrong) return;
  fprintf(stderr, "error: %s\n", wrong);
  exit(1);
}

static void* zeros(size_t bytes) {
  void* memory = calloc(bytes, 1);
  if (!memory) check("no memory");
  return memory;
}

static void read_into(FILE* file, void* to, size_t bytes) {
  if (fread(to, 1, bytes, file) != bytes) check("the file is too short");
}

static float* read_floats(FILE* file, long n) {
  float* numbers = zeros(n * sizeof(float));
  read_into(file, numbers, n * sizeof(float));
  return numbers;
}

// Reads a matrix with n outputs and packs it; writes its scales to scale [n].
static const void* read_matrix(FILE* file, int type, long n, long depth, int in_out, float* scale) {
  float* weights = read_floats(file, n * depth);
  void* packed = zeros(gpt2_packed_bytes(type, n, depth));
  for (long i = 0; i < n; i++) scale[i] = 1;
  check(gpt2_pack(type, weights, n, depth, in_out, 0, packed, scale));
  free(weights);
  return packed;
}

// Reads the matrices of a layer into matrices [4]; returns the vectors of the layer, in the order of gpt2.h.
static const float* read_layer(FILE* file, int type, long e, const void** matrices) {
  const long f = 4 * e, biases = 9 * e + f;  // numbers before the scales
  float* v = zeros((biases + 5 * e + f) * sizeof(float));
  read_into(file, v, 2 * e * sizeof(float));
  matrices[0] = read_matrix(file, type, 3 * e, e, 1, v + biases);
  read_into(file, v + 2 * e, 3 * e * sizeof(float));
  matrices[1] = read_matrix(file, type, e, e, 1, v + biases + 3 * e);
  read_into(file, v + 5 * e, 3 * e * sizeof(float));
  matrices[2] = read_matrix(file, type, f, e, 1, v + biases + 4 * e);
  read_into(file, v + 8 * e, f * sizeof(float));
  matrices[3] = read_matrix(file, type, e, f, 1, v + biases + 4 * e + f);
  read_into(file, v + 8 * e + f, e * sizeof(float));
  return v;
}

static gpt2_model read_model(const char* path, int type, long threads) {
  FILE* file = fopen(path, "rb");
  if (!file) check("the file of weights cannot be opened");
  int32_t sizes[5];
  read_into(file, sizes, sizeof sizes);
  gpt2_model model = {0};
  model.n_vocab = sizes[0], model.n_ctx = sizes[1], model.n_embd = sizes[2];
  model.n_head = sizes[3], model.n_layer = sizes[4];
  model.n_inner = 4 * model.n_embd, model.n_token_embd = model.n_embd;
  model.threads = threads, model.epsilon = 1e-5;
  float* scale = zeros(model.n_vocab * sizeof(float));
  model.wte.w = read_matrix(file, type, model.n_vocab, model.n_embd, 0, scale);
  model.wte.scale = scale;
  model.lm_head = model.wte;
  model.wpe = read_floats(file, model.n_ctx * model.n_embd);
  const void** matrices = zeros(4 * model.n_layer * sizeof *matrices);
  const float** vectors = zeros(model.n_layer * sizeof *vectors);
  for (long i = 0; i < model.n_layer; i++) vectors[i] = read_layer(file, type, model.n_embd, matrices + 4 * i);
  model.matrices = matrices, model.vectors = vectors;
  model.ln_f = read_floats(file, 2 * model.n_embd);
  fclose(file);
  return model;
}

// Allocates the blocks of n texts of the maximum length; those of text i start at i * blocks_of(model).
static long blocks_of(const gpt2_model* model) { return (model->n_ctx + gpt2_slots - 1) / gpt2_slots; }

static gpt2_cache new_cache(int type, const gpt2_model* model, long texts) {
  const long n = texts * blocks_of(model);
  void** blocks = zeros(n * sizeof *blocks);
  for (long i = 0; i < n; i++) blocks[i] = zeros(gpt2_block_bytes(type, model));
  return (gpt2_cache){n, blocks};
}

static int type_named(const char* name) {
  static const char* const names[] = {"float32", "bfloat16", "int8"};
  for (int type = 0; type < 3; type++)
    if (!strcmp(name, names[type])) return type;
  check("the type must be float32, bfloat16 or int8");
  return -1;
}

#endif
