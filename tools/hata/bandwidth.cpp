#include "bandwidth.h"

#include <algorithm>
#include <atomic>
#include <fstream>
#include <string>

#include "core/clock.h"

namespace hata::cli {
namespace {

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t
sum(const uint64_t* words, size_t n) {
  uint64_t total = 0;
  for (size_t i = 0; i < n; ++i) total += words[i];
  return total;
}

}  // namespace

size_t last_level_cache() {
  size_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) +
                       "/size");
    size_t size = 0;
    char unit = 0;
    if (file >> size >> unit) largest = std::max(largest, size * (unit == 'M' ? 1 << 20 : 1 << 10));
  }
  return largest > 0 ? largest : 32u << 20;
}

ReadBuffer::ReadBuffer(Team& team, size_t bytes)
    : team_(team), n_words_(bytes / sizeof(uint64_t)), words_(new uint64_t[n_words_]) {
  // First touched by the threads that will read it.
  team_.run([&](const Worker& worker) {
    const size_t begin = n_words_ * worker.ith / worker.nth;
    const size_t end = n_words_ * (worker.ith + 1) / worker.nth;
    for (size_t i = begin; i < end; ++i) words_[i] = i;
  });
}

void ReadBuffer::read(size_t bytes) {
  const size_t n = std::min(n_words_, bytes / sizeof(uint64_t));
  std::atomic<uint64_t> total = 0;
  team_.run([&](const Worker& worker) {
    const size_t begin = n * worker.ith / worker.nth;
    const size_t end = n * (worker.ith + 1) / worker.nth;
    total += sum(words_.get() + begin, end - begin);
  });
  sink_ = total;
}

double ReadBuffer::peak_bandwidth() {
  const size_t bytes = n_words_ * sizeof(uint64_t);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = Clock::now();
    read(bytes);
    best = std::max(best, static_cast<double>(bytes) / seconds_since(start));
  }
  return best;
}

}  // namespace hata::cli
