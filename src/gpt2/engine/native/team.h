// Threads that work through one job together, phase by phase.
//
// A decode step has some ninety phases of a few microseconds to a few hundred: between them the threads wait by
// spinning, since to sleep and be woken takes longer than most phases. Between two jobs they sleep.

#pragma once

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace gpt2 {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class Team {
 public:
  // The number of the calling thread in its team.
  static int& me() {
    static thread_local int number = 0;
    return number;
  }

  // Runs job(thread) in every one of `size` threads, this one among them; one job at a time.
  void run(int size, const std::function<void(int)>& job) {
    std::lock_guard<std::mutex> only(running_);
    size_ = size;
    next_ = size;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      busy_ = size - 1;
      for (; started_ < size - 1; started_++) std::thread(&Team::work, this, started_ + 1, jobs_.load()).detach();
      jobs_++;
    }
    woken_.notify_all();
    me() = 0;
    job(0);
    wait([this] { return busy_ == 0; });
  }

  // To be called by all threads of a job: does task(0) ... task(n - 1), each once, and returns when all are done.
  template <class Task>
  void phase(long n, const Task& task) {
    for (long i = me(); i < n; i = next_.fetch_add(1, std::memory_order_relaxed)) task(i);
    const int now = phases_;
    if (arrived_.fetch_add(1) + 1 == size_) {
      arrived_ = 0;
      next_ = size_.load();
      phases_ = now + 1;
    } else {
      wait([&] { return phases_ != now; });
    }
  }

 private:
  template <class Condition>
  static void wait(const Condition& holds) {
    for (int spins = 0; !holds(); spins++) spins < 4000 ? pause() : (void)sched_yield();
  }

  void work(int thread, int seen) {
    me() = thread;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        woken_.wait(lock, [&] { return jobs_ != seen; });
        seen = jobs_;
      }
      if (thread < size_) {
        (*job_)(thread);
        busy_--;
      }
    }
  }

  std::mutex running_, mutex_;
  std::condition_variable woken_;
  const std::function<void(int)>* job_ = nullptr;
  int started_ = 0;
  std::atomic<int> size_{1}, jobs_{0}, busy_{0}, arrived_{0}, phases_{0};
  std::atomic<long> next_{0};
};

}  // namespace gpt2
