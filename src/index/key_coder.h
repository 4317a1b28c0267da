// What one layer's keys are turned into by its weights: codes and 4-bit lengths. It keeps none of
// them; CodeStore does on a CPU, and the llama.cpp host on a device.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hata/types.h"
#include "hata/weights.h"

namespace hata {

class KeyCoder {
 public:
  static constexpr int kKeysMeasured = 1024;

  KeyCoder(std::shared_ptr<const LayerWeights> weights, const HeadShape& shape);

  const LayerWeights& weights() const { return *weights_; }
  const std::shared_ptr<const LayerWeights>& shared_weights() const { return weights_; }
  const HeadShape& shape() const { return shape_; }

  /// The weights do not give mean lengths: they are to be measured on the first keys.
  bool measures() const { return weights_->mean_lengths.empty(); }
  /// Measures the mean length of one KV head on the first kKeysMeasured of these keys that are keys
  /// at all. Returns how many there were.
  int measure(const CacheView& keys, std::span<const int32_t> cells, int head);
  /// [n_kv_heads] 8 / mean length.
  std::span<const float> inv_units() const { return inv_unit_; }

  /// Of `n` neighbouring cells of one head. The codes are rbit / 64 words apart.
  void codes(const CacheView& keys, int head, int64_t cell, int64_t n, uint64_t* out) const;
  void lengths(const CacheView& keys, int head, int64_t cell, int64_t n, uint8_t* out) const;

 private:
  std::shared_ptr<const LayerWeights> weights_;
  HeadShape shape_;
  std::vector<float> inv_unit_;
};

}  // namespace hata
