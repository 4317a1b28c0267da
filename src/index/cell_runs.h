// Stale cells as work for threads: runs of neighbours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "hata/team.h"

namespace hata {

/// Calls fn(head, cell, n) for all runs of up to 64 neighbouring `cells` (ascending) of `n_heads`
/// heads, on all threads of the team. A run may begin in the middle of a block.
template <class Fn>
void share_runs(std::span<const int32_t> cells, int n_heads, const Worker& worker, Fn&& fn) {
  constexpr int64_t kCellsPerItem = 256;
  constexpr size_t kRun = 64;
  const auto n_cells = static_cast<int64_t>(cells.size());
  const int64_t n_items = (n_cells + kCellsPerItem - 1) / kCellsPerItem;
  worker.share(n_items * n_heads, [&](int64_t i) {
    const int head = static_cast<int>(i % n_heads);
    auto at = static_cast<size_t>(i / n_heads * kCellsPerItem);
    const size_t end = std::min(cells.size(), at + static_cast<size_t>(kCellsPerItem));
    while (at < end) {
      size_t next = at + 1;
      while (next < end && next - at < kRun && cells[next] == cells[next - 1] + 1) ++next;
      fn(head, static_cast<int64_t>(cells[at]), static_cast<int64_t>(next - at));
      at = next;
    }
  });
}

/// Calls fn(head, block) for every block of `block_cells` cells that holds one of `cells`; each
/// block once.
template <class Fn>
void share_blocks(std::span<const int32_t> cells, int block_cells, int n_heads,
                  const Worker& worker, Fn&& fn) {
  constexpr int64_t kCellsPerItem = 1024;
  const auto n_cells = static_cast<int64_t>(cells.size());
  const int64_t n_items = (n_cells + kCellsPerItem - 1) / kCellsPerItem;
  worker.share(n_items * n_heads, [&](int64_t i) {
    const int64_t first = i / n_heads * kCellsPerItem;
    const int64_t end = std::min(n_cells, first + kCellsPerItem);
    for (int64_t at = first; at < end; ++at) {
      const int32_t block = cells[static_cast<size_t>(at)] / block_cells;
      if (at > 0 && cells[static_cast<size_t>(at - 1)] / block_cells == block) continue;
      fn(static_cast<int>(i % n_heads), static_cast<int64_t>(block));
    }
  });
}

}  // namespace hata
