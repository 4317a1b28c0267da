// A second look at a method's candidates, with the keys themselves or with 4-bit ones.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cpu/q4.h"
#include "hata/selector.h"

namespace hata {

/// Takes the best of a few candidates by softmax(q.k) summed over the group. The softmax is over
/// the candidates and the keys that are chosen in any case: these may have most of a head's
/// attention, and then the head has little to say. Reuses its memory; one per row and KV head.
class Rerank {
 public:
  /// `candidates` and `forced`: cells of the view, ascending, no cell in both.
  void start(const Step& step, const Row& row, int head, std::span<const int32_t> candidates,
             std::span<const int32_t> forced);

  /// Candidates and forced keys: all of them have to be scored.
  int64_t n_keys() const { return std::ssize(cells_); }

  /// Scores the keys begin .. end - 1 of them, from any thread. q4_keys: the view's first cell of
  /// this KV head, or nullptr: from the cache.
  void score(const Step& step, const Row& row, int head, const uint8_t* q4_keys, int64_t begin,
             int64_t end);

  /// The k best candidates, ascending; they last until the next start().
  std::span<const int32_t> best(int64_t k);

 private:
  void sum_probabilities();

  int group_ = 0;
  size_t n_candidates_ = 0;
  size_t n_padded_ = 0;  ///< keys, rounded up to 64
  Q4Queries queries_;
  std::vector<int32_t> cells_;
  std::vector<float> logits_;  ///< [group][n_padded]
  std::vector<float> scores_;
  std::vector<int32_t> chosen_;
};

}  // namespace hata
