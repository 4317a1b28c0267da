#include <algorithm>
#include <bit>

#include "hata/index.h"

namespace hata {
namespace {

constexpr uint64_t kAllStale = ~uint64_t{0};

// Bits lo..hi-1 of a word.
uint64_t bits(int64_t lo, int64_t hi) {
  const uint64_t below_hi = hi >= 64 ? kAllStale : (uint64_t{1} << hi) - 1;
  return below_hi & (kAllStale << lo);
}

// Calls fn(block, mask) for the blocks that [begin, end) touches; mask has a bit per cell touched.
template <class Fn>
void for_blocks(int64_t begin, int64_t end, Fn&& fn) {
  for (int64_t block = begin / 64; block * 64 < end; ++block) {
    fn(block,
       bits(std::max<int64_t>(begin - block * 64, 0), std::min<int64_t>(end - block * 64, 64)));
  }
}

// Keeps the n cells that are first in `before` order, as a heap whose top is the last of them.
template <class Before>
class Best {
 public:
  Best(int32_t* cells, int n, Before before) : cells_(cells), n_(n), before_(before) {}

  bool full() const { return count_ == n_; }
  int count() const { return count_; }
  int32_t worst() const { return cells_[0]; }

  void offer(int32_t cell) {
    if (full()) {
      if (!before_(cell, worst())) return;
      std::pop_heap(cells_, cells_ + count_, before_);
      cells_[count_ - 1] = cell;
    } else {
      cells_[count_++] = cell;
    }
    std::push_heap(cells_, cells_ + count_, before_);
  }

 private:
  int32_t* cells_;
  int n_;
  int count_ = 0;
  Before before_;
};

}  // namespace

CellIndex::CellIndex(int64_t n_cells)
    : stamps_(static_cast<size_t>(n_cells), 0),
      stale_(static_cast<size_t>((n_cells + kBlock - 1) / kBlock), kAllStale),
      newest_(stale_.size(), 0),
      oldest_(stale_.size(), 0),
      history_(static_cast<uint64_t>(n_cells)) {}

void CellIndex::remember(int64_t begin, int64_t end) {
  for (const int64_t value : {begin, end}) {
    history_ = (history_ ^ static_cast<uint64_t>(value)) * 0x9E3779B97F4A7C15;
    history_ ^= history_ >> 32;
  }
}

void CellIndex::summarise(int64_t block) {
  const auto first = stamps_.begin() + block * kBlock;
  const auto last = stamps_.begin() + std::min(n_cells(), (block + 1) * kBlock);
  newest_[static_cast<size_t>(block)] = *std::max_element(first, last);
  oldest_[static_cast<size_t>(block)] = *std::min_element(first, last);
}

void CellIndex::written(std::span<const int64_t> cells) {
  int64_t block = -1;
  for (const int64_t cell : cells) {
    if (block >= 0 && cell / kBlock != block) summarise(block);
    block = cell / kBlock;
    stamps_[static_cast<size_t>(cell)] = ++clock_;
    remember(cell, cell + 1);
    stale_[static_cast<size_t>(block)] |= uint64_t{1} << (cell % kBlock);
  }
  if (block >= 0) summarise(block);
}

void CellIndex::written(int64_t begin, int64_t end) {
  remember(begin, end);
  for (int64_t cell = begin; cell < end; ++cell) stamps_[static_cast<size_t>(cell)] = ++clock_;
  for_blocks(begin, end, [&](int64_t block, uint64_t mask) {
    stale_[static_cast<size_t>(block)] |= mask;
    summarise(block);
  });
}

void CellIndex::changed(int64_t begin, int64_t end) {
  for_blocks(begin, end,
             [&](int64_t block, uint64_t mask) { stale_[static_cast<size_t>(block)] |= mask; });
}

int CellIndex::newest(int64_t first, std::span<const uint64_t> valid, int n, int32_t* cells) const {
  if (n <= 0) return 0;
  const auto at = [&](int32_t cell) { return stamps_[static_cast<size_t>(first + cell)]; };
  const auto later = [&](int32_t a, int32_t b) { return at(a) != at(b) ? at(a) > at(b) : a > b; };
  Best best(cells, n, later);
  // From the end: caches fill upwards, so the first blocks met mostly hold the answer.
  for (auto word = static_cast<int64_t>(valid.size()); word-- > 0;) {
    uint64_t left = valid[static_cast<size_t>(word)];
    if (left == 0) continue;
    if (best.full() && newest_[static_cast<size_t>(first / kBlock + word)] < at(best.worst())) {
      continue;
    }
    for (; left != 0; left &= left - 1) {
      best.offer(static_cast<int32_t>(word * kBlock + std::countr_zero(left)));
    }
  }
  std::sort(cells, cells + best.count());
  return best.count();
}

int CellIndex::oldest(int64_t first, std::span<const uint64_t> valid, int n, int32_t* cells) const {
  if (n <= 0) return 0;
  const auto at = [&](int32_t cell) { return stamps_[static_cast<size_t>(first + cell)]; };
  const auto earlier = [&](int32_t a, int32_t b) { return at(a) != at(b) ? at(a) < at(b) : a < b; };
  Best best(cells, n, earlier);
  for (size_t word = 0; word < valid.size(); ++word) {
    uint64_t left = valid[word];
    if (left == 0) continue;
    if (best.full() && oldest_[static_cast<size_t>(first / kBlock) + word] > at(best.worst())) {
      continue;
    }
    for (; left != 0; left &= left - 1) {
      best.offer(static_cast<int32_t>(word) * kBlock + std::countr_zero(left));
    }
  }
  std::sort(cells, cells + best.count());
  return best.count();
}

void CellIndex::stale(int64_t begin, int64_t end, std::vector<int32_t>& cells) const {
  cells.clear();
  for_blocks(begin, end, [&](int64_t block, uint64_t mask) {
    for (uint64_t left = stale_[static_cast<size_t>(block)] & mask; left != 0; left &= left - 1) {
      cells.push_back(static_cast<int32_t>(block * kBlock + std::countr_zero(left)));
    }
  });
}

bool CellIndex::any_stale(int64_t begin, int64_t end) const {
  bool any = false;
  for_blocks(begin, end, [&](int64_t block, uint64_t mask) {
    any = any || (stale_[static_cast<size_t>(block)] & mask) != 0;
  });
  return any;
}

void CellIndex::refreshed(int64_t begin, int64_t end) {
  for_blocks(begin, end,
             [&](int64_t block, uint64_t mask) { stale_[static_cast<size_t>(block)] &= ~mask; });
}

size_t CellIndex::bytes() const {
  return (stamps_.size() + stale_.size() + newest_.size() + oldest_.size()) * sizeof(uint64_t);
}

}  // namespace hata
