// Keys that are chosen without a score: the first and last tokens of a row's sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hata/selector.h"

namespace hata {

/// The forced keys of every row of a step, and the valid cells that are left. Reuses its memory.
class ForcedKeys {
 public:
  void reset(std::span<const RowPlan> plans);
  /// Row by row, from any thread. Rows without a budget are skipped.
  void choose(const Window& window, const Step& step, std::span<const RowPlan> plans,
              const CellIndex& index, size_t row);

  std::span<const int32_t> cells(size_t row) const {
    return {cells_.data() + row * capacity_, static_cast<size_t>(counts_[row])};
  }
  /// Bit per cell of the view: valid and not forced.
  const uint64_t* free(size_t row) const { return free_.data() + row * n_words_; }

  /// Writes `chosen` (ascending, free cells) and the forced ones, merged, to the selection.
  void merge(std::span<const int32_t> chosen, Selection& out, size_t row, int head) const;

 private:
  size_t capacity_ = 0;
  size_t n_words_ = 0;
  std::vector<int32_t> cells_;  ///< [row][capacity] ascending
  std::vector<int64_t> counts_;
  std::vector<uint64_t> free_;  ///< [row][n_words]
};

}  // namespace hata
