#include "hata/team.h"

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/spin.h"
#include "hata/types.h"

namespace hata {

void TeamState::barrier(int nth) {
  // The phase cannot advance before this thread has arrived, so this reads the current one.
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == nth - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    next_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  spin_until([&] { return phase_.load(std::memory_order_acquire) != phase; });
}

struct Team::Impl {
  explicit Impl(int n_threads) : size(n_threads) {
    for (int ith = 1; ith < n_threads; ++ith) threads.emplace_back([this, ith] { serve(ith); });
  }

  ~Impl() {
    {
      std::lock_guard lock(mutex);
      stopping.store(true, std::memory_order_relaxed);
      call.fetch_add(1, std::memory_order_release);
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  void run(const std::function<void(const Worker&)>& f) {
    fn = &f;
    if (size > 1) {
      {
        std::lock_guard lock(mutex);  // so that no thread misses it on its way to sleep
        call.fetch_add(1, std::memory_order_release);
      }
      wake.notify_all();
    }
    work(0);
  }

  void work(int ith) {
    (*fn)(Worker{ith, size, &state});
    if (size > 1) state.barrier(size);
  }

  void serve(int ith) {
    for (uint64_t seen = 0;; ++seen) {
      wait_for_call(seen);
      if (stopping.load(std::memory_order_relaxed)) return;
      work(ith);
    }
  }

  /// Decode steps follow each other closely: spin a little before sleeping.
  void wait_for_call(uint64_t seen) {
    constexpr int kSpins = 2000;
    for (int i = 0; i < kSpins; ++i) {
      if (call.load(std::memory_order_acquire) != seen) return;
      cpu_pause();
    }
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return call.load(std::memory_order_acquire) != seen; });
  }

  const int size;
  TeamState state;
  std::atomic<uint64_t> call{0};
  std::atomic<bool> stopping{false};
  const std::function<void(const Worker&)>* fn = nullptr;
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> threads;
};

Team::Team(int n_threads) {
  if (n_threads < 1) {
    throw Error("a team of " + std::to_string(n_threads) + " threads; it needs 1 or more");
  }
  impl_ = std::make_unique<Impl>(n_threads);
}

Team::~Team() = default;

int Team::size() const { return impl_->size; }

void Team::run(const std::function<void(const Worker&)>& fn) { impl_->run(fn); }

}  // namespace hata
