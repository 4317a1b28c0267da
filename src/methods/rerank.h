// A second look at a method's candidates, with the keys themselves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hata/selector.h"
#include "methods/best_keys.h"

namespace hata {

/// Takes the best of a few candidates by softmax(q.k) summed over the group, the softmax taken over
/// the candidates. Reuses its memory; one per row and KV head.
class Rerank {
 public:
  /// `candidates`: cells of the view, ascending. The k best of them, ascending; they last until the
  /// next call.
  std::span<const int32_t> best(const Step& step, const Row& row, int head,
                                std::span<const int32_t> candidates, int64_t k);

 private:
  std::vector<float> logits_, scores_;
  std::vector<uint64_t> all_;
  std::vector<int32_t> cells_;
  BestKeys best_;
};

}  // namespace hata
