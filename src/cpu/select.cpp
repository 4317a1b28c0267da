#include "hata/select.h"

#include <algorithm>

#include "cpu/kernels.h"

namespace hata {
namespace {

constexpr size_t kSlack = 64;  // a kernel writes whole vectors behind the last candidate

}  // namespace

void TopK::reset(int64_t k, int bound) {
  // A prune costs some passes over the buffer, so about as many new candidates must have come in
  // since the last one: pushing n keys is O(n) whatever their order.
  limit_ = static_cast<size_t>(k + std::max<int64_t>(k, 512));
  if (cells_.size() < limit_ + kSlack) {
    cells_.resize(limit_ + kSlack);
    scores_.resize(limit_ + kSlack);
  }
  count_ = 0;
  k_ = k;
  bound_ = bound;
  threshold_ = k > 0 ? -bound - 1 : bound;
}

void TopK::push(int64_t first_cell, const int16_t* scores, const uint64_t* valid, int64_t n) {
  const cpu::Kernels& kernels = cpu::kernels();
  const int64_t words = n / 64;
  for (int64_t word = 0; word < words;) {
    cpu::Candidates buffer{cells_.data(), scores_.data(), static_cast<int64_t>(count_),
                           static_cast<int64_t>(limit_)};
    word += kernels.collect(static_cast<int32_t>(first_cell + word * 64), scores + word * 64,
                            valid + word, words - word, threshold_, buffer);
    count_ = static_cast<size_t>(buffer.count);
    if (count_ >= limit_) prune();
  }
}

void TopK::prune() {
  if (count_ <= static_cast<size_t>(k_)) return;
  const cpu::Kernels& kernels = cpu::kernels();
  const auto above = [&](int score) {
    return kernels.count_above(scores_.data(), static_cast<int64_t>(count_), score);
  };
  // Bisection for the k-th best score: at least k candidates are at or above `low`, fewer at or
  // above `high`. All are at or above the threshold: the k of the last prune, and later ones.
  int low = threshold_;
  int high = bound_ + 1;
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    (above(middle - 1) >= k_ ? low : high) = middle;
  }
  cpu::Candidates buffer{cells_.data(), scores_.data(), static_cast<int64_t>(count_),
                         static_cast<int64_t>(limit_)};
  kernels.keep(low, k_ - above(low), buffer);
  count_ = static_cast<size_t>(buffer.count);
  threshold_ = low;
}

void TopK::append(const TopK& later) {
  for (size_t i = 0; i < later.count_; ++i) {
    if (later.scores_[i] <= threshold_) continue;
    cells_[count_] = later.cells_[i];
    scores_[count_++] = later.scores_[i];
    if (count_ >= limit_) prune();
  }
}

}  // namespace hata
