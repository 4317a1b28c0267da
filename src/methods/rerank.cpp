#include "methods/rerank.h"

#include <bit>
#include <limits>

#include "cpu/rank.h"
#include "methods/logits.h"
#include "methods/sizes.h"

namespace hata {

void Rerank::start(const Step& step, const Row& row, int head, std::span<const int32_t> candidates,
                   std::span<const int32_t> forced) {
  group_ = step.shape.group();
  n_candidates_ = candidates.size();
  cells_.assign(candidates.begin(), candidates.end());
  cells_.insert(cells_.end(), forced.begin(), forced.end());
  n_padded_ = (cells_.size() + 63) / 64 * 64;
  grow(logits_, static_cast<size_t>(group_) * n_padded_);
  queries_.set(row.query(head * group_), row.q_head_stride, group_, step.shape.head_dim,
               step.params.scale);
}

void Rerank::score(const Step& step, const Row& row, int head, const uint8_t* q4_keys,
                   int64_t begin, int64_t end) {
  const std::span<const int32_t> cells(cells_.data() + begin, cells_.data() + end);
  float* logits = logits_.data() + begin;
  if (q4_keys != nullptr) {
    queries_.logits(q4_keys, cells, logits, static_cast<int64_t>(n_padded_));
    for (int g = 0; g < group_; ++g) {
      cap_logits(step.params, std::ssize(cells), logits + static_cast<size_t>(g) * n_padded_);
    }
    return;
  }
  for (size_t i = 0; i < cells.size(); ++i) {
    for (int g = 0; g < group_; ++g) {
      logits_of(step, row.query(head * group_ + g), head, cells[i], 1,
                logits + static_cast<size_t>(g) * n_padded_ + i);
    }
  }
}

// Sums the softmaxes of the heads; what is no candidate gets -1.
void Rerank::sum_probabilities() {
  const auto n = static_cast<int64_t>(n_padded_);
  scores_.assign(n_padded_, 0.0f);
  for (int g = 0; g < group_; ++g) {
    float* x = logits_.data() + static_cast<size_t>(g) * n_padded_;
    std::fill(x + cells_.size(), x + n, kNoLogit);
    const float max = largest(x, n);
    if (max == kNoLogit) continue;
    const float factor = 1.0f / exp_all(x, n, max);
    for (int64_t i = 0; i < n; ++i) scores_[static_cast<size_t>(i)] += factor * x[i];
  }
  for (float& score : scores_) score = score > 0.0f ? score : 0.0f;  // no NaN
  std::fill(scores_.begin() + static_cast<int64_t>(n_candidates_), scores_.end(), -1.0f);
}

std::span<const int32_t> Rerank::best(int64_t k) {
  sum_probabilities();
  const auto n = static_cast<int64_t>(n_padded_);
  const auto above = [&](float score) { return count_floats_above(scores_.data(), n, score); };
  // Bisection for the k-th largest score, over the bits of floats: those of positive ones are in
  // their order. Fewer than k scores are above `high`, k or more above the float before `low`.
  const auto score_of = [](int32_t bits) { return std::bit_cast<float>(bits); };
  int32_t low = 0;
  int32_t high = std::bit_cast<int32_t>(std::numeric_limits<float>::infinity());
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (above(score_of(middle)) >= k) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const float threshold = score_of(low);
  int64_t ties = k - above(threshold);
  chosen_.resize(n_candidates_ + 1);
  size_t count = 0;
  for (size_t i = 0; i < n_candidates_; ++i) {
    const bool tie = scores_[i] == threshold && ties > 0;
    ties -= tie ? 1 : 0;
    chosen_[count] = cells_[i];  // without a branch, which would go either way
    count += scores_[i] > threshold || tie ? 1 : 0;
  }
  return {chosen_.data(), count};
}

}  // namespace hata
