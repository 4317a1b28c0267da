// Which cells of a cache were ever updated: the others hold anything.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hata/team.h"

namespace hata {

class KnownCells {
 public:
  explicit KnownCells(int64_t n_cells) : words_(static_cast<size_t>((n_cells + 63) / 64), 0) {}

  /// All threads of the team call it alike.
  void add(std::span<const int32_t> cells, const Worker& worker) {
    if (worker.ith == 0) {
      for (const int32_t cell : cells) {
        words_[static_cast<size_t>(cell / 64)] |= uint64_t{1} << (cell % 64);
      }
    }
    worker.barrier();
  }

  /// A bit per cell of 64, from cell 64 * block on.
  uint64_t word(int64_t block) const { return words_[static_cast<size_t>(block)]; }
  bool has(int64_t cell) const { return (word(cell / 64) >> (cell % 64) & 1) != 0; }
  size_t bytes() const { return words_.size() * sizeof(uint64_t); }

 private:
  std::vector<uint64_t> words_;
};

}  // namespace hata
