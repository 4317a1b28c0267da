// What the tests of the stages share.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "core/f16.h"
#include "hata/simd.h"
#include "hata/types.h"

namespace hata::test {

/// Skips the whole program where HATA_SIMD names a level that this machine lacks.
class LevelEnvironment : public ::testing::Environment {
 public:
  void SetUp() override {
    const char* name = std::getenv("HATA_SIMD");
    if (name == nullptr) return;
    for (const SimdLevel level : available_simd()) {
      if (name == std::string(simd_name(level))) return;
    }
    std::cout << "skipped: this CPU or build has no " << name << std::endl;
    GTEST_SKIP();
  }
};
inline const auto* const kLevelEnvironment =
    ::testing::AddGlobalTestEnvironment(new LevelEnvironment);

/// Memory that starts at a multiple of 64 bytes.
template <class T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(size_t n) {
    return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64}));
  }
  void deallocate(T* p, size_t) { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const AlignedAllocator&) const { return true; }
};
template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t bits() { return engine_(); }
  int64_t below(int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(engine_); }
  bool chance(double p) { return std::bernoulli_distribution(p)(engine_); }
  float normal() { return std::normal_distribution<float>()(engine_); }

  std::vector<float> normals(size_t n) {
    std::vector<float> values(n);
    for (float& value : values) value = normal();
    return values;
  }

  /// Bits for cells 0..n-1 (n a multiple of 64), each set with probability p.
  std::vector<uint64_t> valid(int64_t n, double p) {
    std::vector<uint64_t> words(static_cast<size_t>(n / 64));
    for (uint64_t& word : words) {
      if (p >= 1.0) word = ~uint64_t{0};
      for (int bit = 0; p < 1.0 && bit < 64; ++bit) word |= uint64_t{chance(p)} << bit;
    }
    return words;
  }

 private:
  std::mt19937_64 engine_;
};

/// Rows of a cache in memory: `stride` bytes apart, starting `offset` bytes behind an aligned
/// address.
class Rows {
 public:
  Rows(int64_t n, int head_dim, DType type, size_t stride, size_t offset, Random& random)
      : type_(type),
        stride_(stride),
        offset_(offset),
        memory_(offset + static_cast<size_t>(n) * stride) {
    for (int64_t r = 0; r < n; ++r) {
      for (int i = 0; i < head_dim; ++i) set(r, i, random.normal());
    }
  }

  void set(int64_t row, int i, float value) {
    std::byte* p = memory_.data() + offset_ + static_cast<size_t>(row) * stride_ +
                   static_cast<size_t>(i) * dtype_size(type_);
    if (type_ == DType::f32) {
      std::memcpy(p, &value, 4);
    } else {
      const uint16_t half = f32_to_f16(value);
      std::memcpy(p, &half, 2);
    }
  }

  const std::byte* data() const { return memory_.data() + offset_; }
  size_t stride() const { return stride_; }

 private:
  DType type_;
  size_t stride_;
  size_t offset_;
  AlignedVector<std::byte> memory_;
};

}  // namespace hata::test
