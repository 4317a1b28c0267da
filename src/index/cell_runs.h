// Stale cells as work for threads: runs of neighbours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "hata/team.h"

namespace hata {

constexpr int64_t kMaxRun = 64;

/// Calls fn(head, cell, n) for all runs of up to kMaxRun neighbouring `cells` (ascending) of
/// `n_heads` heads, on all threads of the team. A run may begin in the middle of a block. Cells 2i
/// and 2i + 1 fall to one thread: what is kept of them may share a byte.
template <class Fn>
void share_runs(std::span<const int32_t> cells, int n_heads, const Worker& worker, Fn&& fn) {
  constexpr int64_t kCellsPerItem = 256;
  const int64_t n_cells = std::ssize(cells);
  const int64_t n_items = (n_cells + kCellsPerItem - 1) / kCellsPerItem;
  const auto item_start = [&](int64_t item) {
    const int64_t at = std::min(n_cells, item * kCellsPerItem);
    return at > 0 && at < n_cells && cells[at] / 2 == cells[at - 1] / 2 ? at + 1 : at;
  };
  worker.share(n_items * n_heads, [&](int64_t i) {
    const int head = static_cast<int>(i % n_heads);
    const int64_t end = item_start(i / n_heads + 1);
    for (int64_t at = item_start(i / n_heads); at < end;) {
      int64_t next = at + 1;
      while (next < end && next - at < kMaxRun && cells[next] == cells[next - 1] + 1) ++next;
      fn(head, static_cast<int64_t>(cells[at]), next - at);
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
