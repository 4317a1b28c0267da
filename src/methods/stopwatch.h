// Time between the phases of a step.
#pragma once

#include <chrono>
#include <cstdint>

namespace hata {

class Stopwatch {
 public:
  /// Nanoseconds since the last lap (or the start).
  int64_t lap() {
    const auto now = std::chrono::steady_clock::now();
    const auto passed = now - last_;
    last_ = now;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(passed).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace hata
