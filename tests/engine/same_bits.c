// Whether a text's logits are the same bits alone, beside others and however it is cut up: for builds that no Python
// loads (test_c_api.py). Arguments: a file of weights and a type; prints how often it compared.

#include "../../examples/c/model.h"

enum { MOST = 14, LENGTH = 150 };

static gpt2_model model;
static gpt2_cache cache;
static int type, ids[MOST][LENGTH];
static unsigned state = 1;

static int below(int n) {  // a number, the same in every run
  state = state * 1664525u + 1013904223u;
  return (state >> 16) % n;
}

// The logits [n, n_vocab] after the ids [start[i], start[i] + count[i]) of the first n texts.
static void forward(int n, const int* start, const int* count, float* logits) {
  const long blocks = blocks_of(&model), width = 3 + blocks;
  int* pieces = zeros(n * width * sizeof *pieces);
  int tokens[MOST * LENGTH], n_tokens = 0;
  float log_totals[MOST];
  for (int i = 0; i < n; i++) {
    int* piece = pieces + i * width;
    piece[0] = start[i], piece[1] = count[i], piece[2] = 1;
    for (long block = 0; block < blocks; block++) piece[3 + block] = i * blocks + block;
    for (int t = 0; t < count[i]; t++) tokens[n_tokens++] = ids[i][start[i] + t];
  }
  check(gpt2_forward(type, &model, &cache, pieces, n, width, tokens, n_tokens, logits, log_totals));
  free(pieces);
}

int main(int count, char** arguments) {
  if (count != 3) check("give the file of weights and a type");
  type = type_named(arguments[2]);
  model = read_model(arguments[1], type, 2);
  cache = new_cache(type, &model, MOST);
  const size_t bytes = model.n_vocab * sizeof(float);
  float *alone = zeros(bytes), *logits = zeros(MOST * bytes);
  for (int i = 0; i < MOST * LENGTH; i++) ids[i / LENGTH][i % LENGTH] = below(model.n_vocab);
  int compared = 0;
  for (int n = 1; n <= MOST; n++) {
    int start[MOST] = {0}, length[MOST], left = 1 + below(LENGTH);
    const int whole = left;
    forward(1, start, &left, alone);
    while (left) {  // a chunk of the first text, beside the beginnings of others
      length[0] = 1 + below(left);
      for (int i = 1; i < n; i++) length[i] = 1 + below(LENGTH);
      forward(n, start, length, logits);
      start[0] += length[0], left -= length[0];
    }
    if (memcmp(alone, logits, bytes)) {
      fprintf(stderr, "beside %d others, %d ids: other bits\n", n - 1, whole);
      return 1;
    }
    compared++;
  }
  printf("%d\n", compared);
}
