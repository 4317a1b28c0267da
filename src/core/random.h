// Random numbers that are the same on every machine (the standard library's distributions are not).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace hata {

/// splitmix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  /// Uniform in 0 .. n-1 (n below 2^32; the bias is below 2^-32).
  size_t below(size_t n) { return static_cast<size_t>(((next() >> 32) * n) >> 32); }

  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

  /// Near-Gaussian, mean 0: a sum of twelve 16-bit integers, exact in every step.
  double normal() {
    int64_t sum = -12 * 0x8000;
    for (int draw = 0; draw < 3; ++draw) {
      const uint64_t bits = next();
      for (int part = 0; part < 64; part += 16) sum += static_cast<int64_t>(bits >> part & 0xffff);
    }
    return static_cast<double>(sum);
  }

  /// The same less exactly, from one number: mean 0, standard deviation 1 (four 16-bit integers).
  float quick_normal() {
    const uint64_t bits = next();
    int64_t sum = -2 * 0xffff;
    for (int part = 0; part < 64; part += 16) sum += static_cast<int64_t>(bits >> part & 0xffff);
    return static_cast<float>(sum) / 37837.0f;
  }

 private:
  uint64_t state_;
};

}  // namespace hata
