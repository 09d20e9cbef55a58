// Threads that compute one job together, phase by phase.
//
// A decode step has about ninety phases of a few to a few hundred microseconds. Between phases the threads spin, since
// sleeping and waking up takes longer than most phases. Between jobs they sleep.

#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace gpt2 {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class Team {
 public:
  using Work = std::function<void()>;

  // Returns the number of the calling thread in its team.
  static int& me() {
    static thread_local int number = 0;
    return number;
  }

  // Runs prepare() and then job() in each of `size` threads, including this one, or in as many as the system grants;
  // one job at a time. If prepare() throws, no thread runs its job, and the exception is rethrown here.
  void run(long size, const Work& prepare, const Work& job) {
    std::lock_guard<std::mutex> only(running_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      start(size - 1);
      size_ = std::min<long>(size, started_ + 1);
      next_ = size_.load();
      busy_ = size_ - 1;
      prepare_ = &prepare, job_ = &job, failed_ = false;
      jobs_++;
    }
    woken_.notify_all();
    me() = 0;
    take_part(prepare, job);
    wait([this] { return busy_ == 0; });
    if (failed_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  // Runs task(0) ... task(n - 1), each once, and returns when all are done; all threads of a job have to call it.
  // A task must not throw: the other threads would wait forever.
  template <class Task>
  void phase(long n, const Task& task) {
    for (long i = me(); i < n; i = next_.fetch_add(1, std::memory_order_relaxed)) task(i);
    const unsigned now = phases_;
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

  void start(long count) {
    try {
      for (; started_ < count; started_++) std::thread(&Team::work, this, started_ + 1, jobs_).detach();
    } catch (const std::exception&) {  // the system grants no more threads
    }
  }

  void take_part(const Work& prepare, const Work& job) {
    try {
      prepare();
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception(), failed_ = true;
    }
    phase(0, [](long) {});
    if (!failed_) job();
  }

  void work(int thread, unsigned seen) {
    me() = thread;
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      woken_.wait(lock, [&] { return jobs_ != seen; });
      seen = jobs_;
      const bool takes_part = thread < size_;
      const Work *prepare = prepare_, *job = job_;
      lock.unlock();
      if (!takes_part) continue;
      take_part(*prepare, *job);
      busy_--;
    }
  }

  std::mutex running_, mutex_;
  std::condition_variable woken_;
  // The newest job: a thread that is too late for a job takes part in the next one.
  const Work *prepare_ = nullptr, *job_ = nullptr;
  unsigned jobs_ = 0;
  int started_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  std::atomic<int> size_{1}, busy_{0}, arrived_{0};
  std::atomic<unsigned> phases_{0};
  std::atomic<long> next_{0};
};

}  // namespace gpt2
