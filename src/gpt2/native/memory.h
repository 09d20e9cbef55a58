// Memory for weights, side by side in chunks of huge pages where the system has them: a decode step reads all weights,
// and with small pages a tenth to a third of its time goes to finding them. Most kernels in int8 are smaller than one
// huge page, so that each in memory of its own would get none.

#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <mutex>

namespace gpt2 {

class Chunk {
 public:
  // Returns memory of so many bytes and the chunk that it is in, or nullptr if there is none.
  static void* allocate(size_t bytes, Chunk** in) {
    std::lock_guard<std::mutex> lock(mutex());
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    Chunk*& newest = current();
    if (!newest || newest->used_ + bytes > newest->size_) {
      const size_t size = std::max(bytes, SIZE);
      void* memory = mmap(nullptr, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) return nullptr;
      newest = new Chunk(static_cast<char*>(memory), size);
    }
    *in = newest;
    newest->pieces_++;
    newest->used_ += bytes;
    return newest->start_ + newest->used_ - bytes;
  }

  static void release(void*, size_t, void* chunk) {
    std::lock_guard<std::mutex> lock(mutex());
    auto* in = static_cast<Chunk*>(chunk);
    if (--in->pieces_ > 0) return;
    if (in == current()) current() = nullptr;
    delete in;
  }

 private:
  static constexpr size_t ALIGNMENT = 64, HUGE_PAGE = 2 << 20, SIZE = 64 << 20;

  Chunk(char* memory, size_t size)
      : size_(size), memory_(memory), start_(memory + HUGE_PAGE - reinterpret_cast<size_t>(memory) % HUGE_PAGE) {
#ifdef MADV_HUGEPAGE
    madvise(start_, size_, MADV_HUGEPAGE);
#endif
  }
  ~Chunk() { munmap(memory_, size_ + HUGE_PAGE); }

  static std::mutex& mutex() {
    static auto* made = new std::mutex;
    return *made;
  }
  static Chunk*& current() {
    static Chunk* chunk = nullptr;
    return chunk;
  }

  size_t size_, used_ = 0;
  int pieces_ = 0;
  char *memory_, *start_;
};

}  // namespace gpt2
