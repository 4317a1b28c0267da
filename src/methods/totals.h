// What queries looked at: probabilities per KV head and cell, summed over the group and over the
// rows of prefills. H2O and SnapKV choose by them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hata/selector.h"

namespace hata {

/// Beside one layer's cache. What it knows of a cell is forgotten when the cell is written again.
class AttentionTotals {
 public:
  static constexpr int kLastRows = 32;  ///< SnapKV's observation window

  AttentionTotals(const HeadShape& shape, int64_t n_cells);

  size_t bytes() const;

  /// Adds what the rows of a prefill look at. All threads of the team call it alike.
  void observe(const Step& step, const CellIndex& index, const Worker& worker);

  /// Adds what a decode row looks at among `cells` (of the view, ascending); heads in any order,
  /// one thread a head.
  void observe_chosen(const Step& step, size_t row, int head, std::span<const int32_t> cells);
  /// Notes whose query that was. One thread.
  void note_row(const Step& step, const CellIndex& index, const RowPlan& plan);
  /// Forgets all that was added in decoding if one of the queries' cells was written again: the
  /// sequence went back. One thread.
  void follow(const CellIndex& index);

  /// Whether a prefill saw the row's first token.
  bool covers(const Step& step, const CellIndex& index, const RowPlan& plan) const;
  /// Whether a prefill saw this cell (of the index) as it is now.
  bool saw(const CellIndex& index, int64_t cell) const {
    return stamps_[static_cast<size_t>(cell)] == index.stamp(cell) && index.stamp(cell) != 0;
  }

  /// Over all rows of prefills, and those of decoding.
  float all(const CellIndex& index, int head, int64_t cell) const {
    return (saw(index, cell) ? all_[at(head, cell)] : 0.0f) + decoded_[at(head, cell)];
  }
  /// Over the last rows of the last prefill.
  float last(const CellIndex& index, int head, int64_t cell) const {
    return saw(index, cell) ? last_[at(head, cell)] : 0.0f;
  }

 private:
  struct QueryCell {
    int64_t cell;
    uint64_t stamp;
  };
  size_t at(int head, int64_t cell) const {
    return static_cast<size_t>(static_cast<int64_t>(head) * n_cells_ + cell);
  }
  void prepare(const Step& step, const CellIndex& index);
  void observe_head(const Step& step, int head);
  void add_rows(const Step& step, int head, size_t first_row, size_t n_rows, float* logits);

  HeadShape shape_;
  int64_t n_cells_;
  std::vector<float> all_, last_, decoded_;  ///< [n_kv_heads][n_cells]
  std::vector<uint64_t> stamps_;             ///< [n_cells] of the index, when a prefill saw it
  std::vector<QueryCell> queries_;           ///< of the decode rows in decoded_

  // Of one observe().
  int64_t n_words_ = 0;
  std::vector<uint64_t> valid_;  ///< [row][n_words]
  std::vector<float> logits_;    ///< [n_kv_heads][rows at once][n_words * 64]
};

}  // namespace hata
