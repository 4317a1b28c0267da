// A small generator whose numbers are the same on every machine (the standard library's
// distributions are not).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace hata::eval {

/// SplitMix64 (Steele, Lea and Flood, 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  /// Uniform in 0 .. n-1 (n below 2^32; the bias is below 2^-32).
  size_t below(size_t n) { return static_cast<size_t>(((next() >> 32) * n) >> 32); }

  /// Close to normal: mean 0, standard deviation 1 (the sum of four uniform numbers).
  float normal() {
    const uint64_t u = next();
    const int64_t sum = static_cast<int64_t>((u & 0xffff) + ((u >> 16) & 0xffff) +
                                             ((u >> 32) & 0xffff) + (u >> 48));
    return static_cast<float>(sum - 2 * 65535) / 37837.0f;
  }

  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  uint64_t state_;
};

}  // namespace hata::eval
