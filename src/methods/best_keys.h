// The k keys of the largest float scores, exactly; ties go to the lower cell, NaN comes last.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hata {

/// Takes scores tile by tile, in ascending order of cells (as TopK does for integer scores).
class BestKeys {
 public:
  /// Keeps at most k keys. Reuses its memory.
  void reset(int64_t k);

  /// Takes the keys first .. first + n - 1 whose bit in `free` is set. n is a multiple of 64.
  void push(int64_t first, const float* scores, const uint64_t* free, int64_t n);

  /// Takes what another one kept of later cells.
  void append(const BestKeys& later);

  /// Ends it: the best cells, ascending.
  std::span<const int32_t> finish();

 private:
  struct Key {
    float score;
    int32_t cell;
  };
  void add(float score, int32_t cell) {
    keys_.push_back({score, cell});
    if (keys_.size() == limit_) prune();
  }
  void prune();

  size_t k_ = 0;
  size_t limit_ = 0;   ///< prune when this many are held
  bool full_ = false;  ///< k are held: a further key must score above the threshold
  float threshold_ = 0;
  std::vector<Key> keys_;
  std::vector<int32_t> cells_;
};

}  // namespace hata
