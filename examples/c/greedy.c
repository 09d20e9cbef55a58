// Generates ids greedily: how a C program uses the native step, without Python and TensorFlow.
//
//     python examples/c/prepare.py models/shakespeare .     # writes ./weights.bin and ./libgpt2.so
//     cc -std=c99 -Isrc/gpt2/engine/native examples/c/greedy.c ./libgpt2.so -o greedy
//     ./greedy weights.bin float32 20 49 50 51              # 20 ids after these three

#include "model.h"

static int largest(const float* logits, long n) {
  int most = 0;
  for (long i = 1; i < n; i++)
    if (logits[i] > logits[most]) most = i;
  return most;
}

int main(int count, char** arguments) {
  if (count < 5) check("give the file of weights, a type, how many ids to write, and the ids they follow");
  const int type = type_named(arguments[2]), new_ids = atoi(arguments[3]);
  const gpt2_model model = read_model(arguments[1], type, 2);
  const gpt2_cache cache = new_cache(type, &model, 1);
  const long width = 3 + cache.n_blocks;
  int* piece = zeros(width * sizeof *piece);
  for (long i = 0; i < cache.n_blocks; i++) piece[3 + i] = i;
  float *logits = zeros(model.n_vocab * sizeof *logits), log_total;
  int n = count - 4, *ids = zeros(n * sizeof *ids);
  for (int i = 0; i < n; i++) ids[i] = atoi(arguments[4 + i]);
  for (int i = 0; i < new_ids; i++) {  // first the whole prompt, then the newest id
    piece[0] += piece[1], piece[1] = i ? 1 : n, piece[2] = 1;
    check(gpt2_forward(type, &model, &cache, piece, 1, width, ids, piece[1], logits, &log_total));
    ids[0] = largest(logits, model.n_vocab);
    printf("%d\n", ids[0]);
  }
}
