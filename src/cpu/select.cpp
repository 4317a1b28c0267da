#include "hata/select.h"

#include <algorithm>

#include "cpu/kernels.h"

namespace hata {
namespace {

constexpr size_t kSlack = 64;  // a kernel writes whole vectors behind the last candidate

}  // namespace

void TopK::reset(int64_t k, int bound) {
  // A prune costs a pass over the buffer and the histogram, so at least as many new candidates
  // must have come in since the last one: pushing n keys is O(n) whatever their order.
  const size_t fresh = static_cast<size_t>(std::max<int64_t>({k, bound, 1024}));
  limit_ = static_cast<size_t>(k) + fresh;
  if (cells_.size() < limit_ + kSlack) {
    cells_.resize(limit_ + kSlack);
    scores_.resize(limit_ + kSlack);
  }
  const size_t bins = static_cast<size_t>(bound) * 2 + 1;
  if (histogram_.size() < bins) histogram_.resize(bins);
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
  // All candidates score at least `lowest`: the k kept at the last prune, and keys above.
  const int lowest = std::max(threshold_, -bound_);
  std::fill_n(histogram_.begin(), bound_ - lowest + 1, 0);
  for (size_t i = 0; i < count_; ++i) ++histogram_[static_cast<size_t>(scores_[i] - lowest)];
  int64_t above = 0;
  int score = bound_;
  for (; above + histogram_[static_cast<size_t>(score - lowest)] < k_; --score) {
    above += histogram_[static_cast<size_t>(score - lowest)];
  }
  cpu::Candidates buffer{cells_.data(), scores_.data(), static_cast<int64_t>(count_),
                         static_cast<int64_t>(limit_)};
  cpu::kernels().keep(score, k_ - above, buffer);
  count_ = static_cast<size_t>(buffer.count);
  threshold_ = score;
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
