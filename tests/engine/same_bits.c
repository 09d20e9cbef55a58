// Checks that a text's logits have the same bits alone, in a batch and in chunks of any sizes, for builds that Python
// cannot load (test_c_api.py). Arguments: a file of weights and a type; prints the number of comparisons.

#include "../../examples/c/model.h"

enum { MAX_TEXTS = 14, LENGTH = 150 };

static gpt2_model model;
static gpt2_cache cache;
static int type, ids[MAX_TEXTS][LENGTH];
static unsigned state = 1;

static int below(int n) {  // pseudorandom, the same in every run
  state = state * 1664525u + 1013904223u;
  return (state >> 16) % n;
}

// The logits [n, n_vocab] after the ids [start[i], start[i] + count[i]) of the first n texts.
static void forward(int n, const int* start, const int* count, float* logits) {
  const long blocks = blocks_of(&model), width = 3 + blocks;
  int* segments = zeros(n * width * sizeof *segments);
  int tokens[MAX_TEXTS * LENGTH], n_tokens = 0;
  float log_totals[MAX_TEXTS];
  for (int i = 0; i < n; i++) {
    int* segment = segments + i * width;
    segment[0] = start[i];
    segment[1] = count[i];
    segment[2] = 1;
    for (long block = 0; block < blocks; block++) segment[3 + block] = i * blocks + block;
    for (int t = 0; t < count[i]; t++) tokens[n_tokens++] = ids[i][start[i] + t];
  }
  check(gpt2_forward(type, &model, &cache, segments, n, width, tokens, n_tokens, logits, log_totals));
  free(segments);
}

int main(int count, char** arguments) {
  if (count != 3) check("give the file of weights and a type");
  type = type_named(arguments[2]);
  model = read_model(arguments[1], type, 2);
  cache = new_cache(type, &model, MAX_TEXTS);
  const size_t bytes = model.n_vocab * sizeof(float);
  float *alone = zeros(bytes), *logits = zeros(MAX_TEXTS * bytes);
  for (int i = 0; i < MAX_TEXTS * LENGTH; i++) ids[i / LENGTH][i % LENGTH] = below(model.n_vocab);
  int compared = 0;
  for (int n = 1; n <= MAX_TEXTS; n++) {
    int start[MAX_TEXTS] = {0}, length[MAX_TEXTS], left = 1 + below(LENGTH);
    const int whole = left;
    forward(1, start, &left, alone);
    while (left) {  // a chunk of the first text, along with the first ids of the others
      length[0] = 1 + below(left);
      for (int i = 1; i < n; i++) length[i] = 1 + below(LENGTH);
      forward(n, start, length, logits);
      start[0] += length[0];
      left -= length[0];
    }
    if (memcmp(alone, logits, bytes)) {
      fprintf(stderr, "with %d others, %d ids: different bits\n", n - 1, whole);
      return 1;
    }
    compared++;
  }
  printf("%d\n", compared);
}
