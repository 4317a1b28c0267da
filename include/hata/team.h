// Threads of one decode step. A host that has threads of its own (ggml calls a node with
// (ith, nth)) makes a Worker per thread over one TeamState; others use a Team.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace hata {

/// What the threads of one step share. One cache line per counter: all threads hit them.
class TeamState {
 public:
  /// Waits until all `nth` threads are here, then starts a new work list. Spins, then yields: hosts
  /// oversubscribe cores.
  void barrier(int nth);

  /// The next item of the phase's work list, 0, 1, 2, ...; each number is given out once.
  int64_t next() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

/// One thread's part in a step: thread `ith` of `nth`.
struct Worker {
  int ith = 0;
  int nth = 1;
  TeamState* team = nullptr;

  void barrier() const {
    if (nth > 1) team->barrier(nth);
  }

  /// Calls fn(item) for the items 0..n-1 that fall to this thread, then waits for the others.
  /// All threads must call it alike.
  template <class Fn>
  void share(int64_t n, Fn&& fn) const {
    if (nth == 1) {
      for (int64_t i = 0; i < n; ++i) fn(i);
      return;
    }
    for (int64_t i; (i = team->next()) < n;) fn(i);
    barrier();
  }
};

/// Threads of our own, waiting between calls.
class Team {
 public:
  /// n_threads >= 1, the calling thread counted in. Throws Error otherwise.
  explicit Team(int n_threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const;

  /// Runs fn(worker) once on every thread and returns when all have ended.
  void run(const std::function<void(const Worker&)>& fn);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hata
