#include "methods/rerank.h"

#include "cpu/rank.h"
#include "methods/logits.h"

namespace hata {

std::span<const int32_t> Rerank::best(const Step& step, const Row& row, int head,
                                      std::span<const int32_t> candidates, int64_t k) {
  const size_t n = candidates.size();
  const size_t n_padded = (n + 63) / 64 * 64;
  logits_.resize(n_padded);
  scores_.assign(n_padded, 0.0f);
  all_.assign(n_padded / 64, ~uint64_t{0});
  if (n % 64 != 0) all_.back() = (uint64_t{1} << (n % 64)) - 1;
  for (int g = 0; g < step.shape.group(); ++g) {
    const float* q = row.query(head * step.shape.group() + g);
    for (size_t i = 0; i < n; ++i) {
      logits_of(step, q, head, candidates[i], 1, &logits_[i]);
    }
    std::fill(logits_.begin() + static_cast<int64_t>(n), logits_.end(), kNoLogit);
    const float max = largest(logits_.data(), static_cast<int64_t>(n_padded));
    if (max == kNoLogit) continue;
    const float factor = 1.0f / exp_all(logits_.data(), static_cast<int64_t>(n_padded), max);
    for (size_t i = 0; i < n; ++i) scores_[i] += factor * logits_[i];
  }
  best_.reset(k);
  best_.push(0, scores_.data(), all_.data(), static_cast<int64_t>(n_padded));
  cells_.clear();
  for (const int32_t i : best_.finish()) cells_.push_back(candidates[static_cast<size_t>(i)]);
  return cells_;
}

}  // namespace hata
