// How long something took.
#pragma once

#include <chrono>
#include <cstdint>

namespace hata {

using Clock = std::chrono::steady_clock;

inline int64_t ns_since(Clock::time_point start) {
  return std::chrono::nanoseconds(Clock::now() - start).count();
}
inline double seconds_since(Clock::time_point start) {
  return static_cast<double>(ns_since(start)) * 1e-9;
}

}  // namespace hata
