// The machine's memory: size of its last-level cache, read bandwidth, and a way to make the caches
// forget.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "hata/team.h"

namespace hata::cli {

/// Bytes of the largest cache that sysfs names; 32 MiB where it names none.
size_t last_level_cache();

/// A buffer larger than the last-level cache, read by all threads of a team.
class ReadBuffer {
 public:
  ReadBuffer(Team& team, size_t bytes);

  /// Reads the first `bytes`; what the caches held before makes room.
  void read(size_t bytes);
  /// Bytes a second, the best of some full reads.
  double peak_bandwidth();

 private:
  Team& team_;
  size_t n_words_;
  std::unique_ptr<uint64_t[]> words_;
  volatile uint64_t sink_ = 0;
};

}  // namespace hata::cli
