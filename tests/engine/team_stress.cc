// Runs many short jobs on teams of changing sizes under ThreadSanitizer (test_team.py); some of the jobs fail.

#include "../../src/gpt2/engine/native/team.h"

#include <cstdio>
#include <stdexcept>
#include <vector>

int main() {
  gpt2::Team& team = *new gpt2::Team;  // as in library.cc
  long failures = 0;
  for (int job = 0; job < 300; job++) {
    const int size = 1 + job * 7 % 4;
    std::vector<long> sums(size), items(50);
    const auto prepare = [&] {
      if (job % 5 == 4 && gpt2::Team::me() == job % size) throw std::runtime_error("no memory");
      sums[gpt2::Team::me()] = 0;
    };
    const auto work = [&] {
      for (int phase = 0; phase < 5; phase++)
        team.phase(50, [&](long i) { items[i] += i, sums[gpt2::Team::me()] += i; });
    };
    try {
      team.run(size, prepare, work);
    } catch (const std::runtime_error&) {
      failures++;
      continue;
    }
    long total = 0;
    for (const long sum : sums) total += sum;
    for (long i = 0; i < 50; i++)
      if (items[i] != 5 * i) return 1;
    if (total != 5 * 49 * 50 / 2) return 2;
  }
  std::printf("%ld\n", failures);
}
