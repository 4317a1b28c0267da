// Stage 3, select: the k best-scored keys among the valid ones, exactly; ties go to the lowest
// cell. The result is the same for any number of threads, any tiling and any instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hata/types.h"

namespace hata {

/// Streaming exact top-k over scores that come in tiles, in ascending order of cells. It keeps a
/// buffer of candidates and the score that a further key must exceed; a full buffer is pruned to
/// the k best. So scores are never written to memory, and most keys cost one vector compare.
class TopK {
 public:
  /// Keeps at most k keys; score bounds |score| <= bound. Reuses its memory.
  void reset(int64_t k, int bound);

  /// Takes the keys first_cell .. first_cell + n - 1. Bit i of `valid` (bit i % 64 of word i / 64)
  /// says whether key i may be chosen. n is a multiple of 64.
  void push(int64_t first_cell, const int16_t* scores, const uint64_t* valid, int64_t n);

  /// The candidates so far: at most k after prune(), in ascending order of cells.
  void prune();
  std::span<const int32_t> cells() const { return {cells_.data(), count_}; }
  std::span<const int16_t> scores() const { return {scores_.data(), count_}; }

  /// Takes what another TopK kept of later cells; call in order of cells, then prune().
  void append(const TopK& later);

 private:
  std::vector<int32_t> cells_;  ///< candidates, ascending, and room behind them
  std::vector<int16_t> scores_;
  size_t count_ = 0;
  size_t limit_ = 0;  ///< prune when this many candidates are held
  int64_t k_ = 0;
  int bound_ = 0;
  int threshold_ = 0;  ///< further keys must score above this
};

}  // namespace hata
