// Takes queries and keys out of the attention steps of a prefill.
#pragma once

#include "hata/selector.h"
#include "learn/row_store.h"

namespace hata::learn {

/// Samples one document of n_tokens, prefilled into an empty cache by batches of many rows: the
/// queries of some positions, and all keys. Layers whose rows do not see everything before them
/// (sliding windows) are left out.
class Sampler {
 public:
  /// Positions: half of them in the last eighth, half uniform in the second half. Values are taken
  /// where they are asked for.
  Sampler(int64_t n_tokens, int n_queries, uint64_t seed, bool with_values);

  /// One batch of one layer: positions first_position, first_position + 1, ... Called before or
  /// after the step is attended to; the batch's keys are in the cache.
  void observe(int layer, const Step& step, int64_t first_position);

  /// What was sampled. Throws Error where there is nothing.
  SampledDocument take();

 private:
  int64_t n_tokens_;
  bool with_values_;
  SampledDocument document_;
  std::vector<int> left_out_;
};

}  // namespace hata::learn
