#include "methods/window.h"

#include <algorithm>

#include "methods/sizes.h"

namespace hata {

Window::Tokens Window::of(int64_t budget) const {
  const int64_t most = at_most_half && recent.share == 0.0 ? (budget + 1) / 2 : budget;
  const int64_t last = std::min(most, recent.of(budget));
  return {.first = std::min(sink, budget - last), .last = last};
}

void ForcedKeys::reset(std::span<const RowPlan> plans) {
  capacity_ = n_words_ = 0;
  for (const RowPlan& plan : plans) {
    n_words_ = std::max(n_words_, plan.valid.size());
    capacity_ = std::max(capacity_, static_cast<size_t>(plan.budget));
  }
  grow(cells_, plans.size() * capacity_);
  grow(free_, plans.size() * n_words_);
  counts_.assign(plans.size(), 0);
}

void ForcedKeys::choose(const Window& window, const Step& step, std::span<const RowPlan> plans,
                        const CellIndex& index, size_t row) {
  const RowPlan& plan = plans[row];
  if (plan.budget == 0) return;
  const auto [sink, recent] = window.of(plan.least_budget());  // all heads have the same window
  int32_t* cells = cells_.data() + row * capacity_;
  int n = index.oldest(step.first_cell, plan.valid, static_cast<int>(sink), cells);
  n += index.newest(step.first_cell, plan.valid, static_cast<int>(recent), cells + n);
  std::sort(cells, cells + n);
  n = static_cast<int>(std::unique(cells, cells + n) - cells);
  counts_[row] = n;

  uint64_t* free = free_.data() + row * n_words_;
  std::copy(plan.valid.begin(), plan.valid.end(), free);
  for (int i = 0; i < n; ++i) free[cells[i] / 64] &= ~(uint64_t{1} << (cells[i] % 64));
}

void ForcedKeys::merge(std::span<const int32_t> chosen, Selection& out, size_t row,
                       int head) const {
  const auto forced = cells(row);
  const int r = static_cast<int>(row);
  std::merge(chosen.begin(), chosen.end(), forced.begin(), forced.end(), out.data(r, head));
  out.set_count(r, head, std::ssize(chosen) + std::ssize(forced));
}

}  // namespace hata
