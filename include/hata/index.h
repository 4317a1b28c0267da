// What is kept beside one layer's key cache: in which order its cells were written, which of them
// have changed since a method last derived its data from them, and that data. Knows no engine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hata/team.h"
#include "hata/types.h"

namespace hata {

/// One per key tensor of a cache (all its streams; a cell of stream s is s * cells per stream + c).
/// Events come one at a time, never during a step. A new index holds every cell stale.
class CellIndex {
 public:
  explicit CellIndex(int64_t n_cells);

  int64_t n_cells() const { return static_cast<int64_t>(stamps_.size()); }

  // --- events -------------------------------------------------------------------------------
  /// New keys in these cells, in this order (a decode step or a prefill).
  void written(std::span<const int64_t> cells);
  /// New keys in the cells [begin, end), in the order of the cells (a restore, a copy, a clear).
  void written(int64_t begin, int64_t end);
  /// The same keys changed in place (a context shift rotates them all): stale, the order stays.
  void changed(int64_t begin, int64_t end);

  // --- reading ------------------------------------------------------------------------------
  /// Equal where two indexes have seen the same cells written in the same order: then their stamps
  /// are equal, too.
  uint64_t history() const { return history_; }

  /// When the cell was last written; larger is later, 0 is never.
  uint64_t stamp(int64_t cell) const { return stamps_[static_cast<size_t>(cell)]; }

  /// The `n` latest-written (or earliest-written) valid cells; bit i of `valid` is cell first + i,
  /// as ascending offsets from first; ties to the highest (lowest) cell. `first` is a multiple
  /// of 64. Returns how many there are. Blocks of 64 cells that cannot take part are not read.
  int newest(int64_t first, std::span<const uint64_t> valid, int n, int32_t* cells) const;
  int oldest(int64_t first, std::span<const uint64_t> valid, int n, int32_t* cells) const;

  /// Stale cells of [begin, end), in ascending order.
  void stale(int64_t begin, int64_t end, std::vector<int32_t>& cells) const;
  bool any_stale(int64_t begin, int64_t end) const;
  /// All of [begin, end) is up to date again.
  void refreshed(int64_t begin, int64_t end);

  size_t bytes() const;

 private:
  void summarise(int64_t block);
  void remember(int64_t begin, int64_t end);

  static constexpr int kBlock = 64;
  std::vector<uint64_t> stamps_;  ///< [cell]
  std::vector<uint64_t> stale_;   ///< [block] bit per cell
  std::vector<uint64_t> newest_;  ///< [block] largest stamp
  std::vector<uint64_t> oldest_;  ///< [block] smallest stamp
  uint64_t clock_ = 0;
  uint64_t history_ = 0;
};

/// What one method keeps beside the keys of one layer.
class KeyStore {
 public:
  virtual ~KeyStore() = default;
  virtual size_t bytes() const = 0;

  /// Derives what is kept for these cells (ascending; cells of the index) from their keys and
  /// values, whose views start at cell 0 of the index. All threads of the team call it alike.
  virtual void update(const CacheView& keys, const CacheView& values,
                      std::span<const int32_t> cells, const Worker& worker) = 0;

  /// Whether what is kept for the cell is what its key now gives (--verify).
  virtual bool matches(const CacheView& keys, int64_t cell) const = 0;
};

}  // namespace hata
