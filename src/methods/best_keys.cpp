#include "methods/best_keys.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "cpu/rank.h"

namespace hata {
namespace {

constexpr size_t kSlack = 256;

}  // namespace

void BestKeys::reset(int64_t k) {
  k_ = static_cast<size_t>(std::max<int64_t>(k, 0));
  limit_ = 2 * k_ + kSlack;
  full_ = k_ == 0;
  threshold_ = std::numeric_limits<float>::infinity();
  keys_.clear();
  keys_.reserve(limit_);
}

void BestKeys::push(int64_t first, const float* scores, const uint64_t* free, int64_t n) {
  for (int64_t i = 0; i < n; i += 64) {
    uint64_t left = free[i / 64];
    if (left != 0 && full_) left &= floats_above(scores + i, threshold_);
    for (; left != 0; left &= left - 1) {
      const int64_t at = i + std::countr_zero(left);
      const float score =
          std::isnan(scores[at]) ? -std::numeric_limits<float>::infinity() : scores[at];
      if (!full_ || score > threshold_) add(score, static_cast<int32_t>(first + at));
    }
  }
}

void BestKeys::append(const BestKeys& later) {
  // Its keys may be out of order: full_ must not turn away a lower cell of an equal score.
  for (const Key& key : later.keys_) {
    if (!full_ || key.score >= threshold_) add(key.score, key.cell);
  }
}

void BestKeys::prune() {
  if (k_ > 0 && keys_.size() > k_) {
    const auto better = [](const Key& a, const Key& b) {
      return a.score != b.score ? a.score > b.score : a.cell < b.cell;
    };
    std::nth_element(keys_.begin(), keys_.begin() + static_cast<int64_t>(k_) - 1, keys_.end(),
                     better);
    full_ = true;
    threshold_ = keys_[k_ - 1].score;
  }
  if (keys_.size() > k_) keys_.resize(k_);
}

std::span<const int32_t> BestKeys::finish() {
  prune();
  cells_.clear();
  cells_.reserve(limit_);
  for (const Key& key : keys_) cells_.push_back(key.cell);
  std::sort(cells_.begin(), cells_.end());
  return cells_;
}

}  // namespace hata
