// The codes and lengths of one layer's keys: what HATA keeps beside a cache.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hata/index.h"
#include "hata/weights.h"
#include "index/first_keys.h"
#include "index/huge_buffer.h"

namespace hata {

class CodeStore final : public KeyStore {
 public:
  /// with_lengths: also keep a 4-bit length per key. Mean lengths that the weights do not give are
  /// measured on the first keys seen and then frozen.
  CodeStore(std::shared_ptr<const LayerWeights> weights, const HeadShape& shape, int64_t n_cells,
            bool with_lengths);

  size_t bytes() const override;
  void update(const CacheView& keys, const CacheView& values, std::span<const int32_t> cells,
              const Worker& worker) override;
  bool matches(const CacheView& keys, int64_t cell) const override;

  const Projection& projection() const { return weights_->projection; }
  const Projection& query_projection() const { return weights_->of_queries(); }

  /// Codes of one KV head, [cell][rbit / 64], from this cell on.
  const uint64_t* codes(int head, int64_t cell) const {
    return codes_.as<uint64_t>() + (head * n_cells_ + cell) * projection().words();
  }
  /// Lengths of one KV head, two cells a byte, from this (even) cell on; nullptr: none are kept.
  const uint8_t* lengths(int head, int64_t cell) const {
    return with_lengths_ ? lengths_.as<uint8_t>() + (head * n_cells_ + cell) / 2 : nullptr;
  }

 private:
  bool measure_mean_length(const CacheView& keys, std::span<const int32_t> cells, int head);
  void encode_keys(const CacheView& keys, int head, int64_t cell, int64_t n, uint64_t* out) const;
  void encode_run(const CacheView& keys, int head, int64_t cell, int64_t n);

  std::shared_ptr<const LayerWeights> weights_;
  HeadShape shape_;
  int64_t n_cells_;  ///< rounded up to 64: the score stage reads whole blocks
  bool with_lengths_;
  FirstKeys first_keys_;
  std::vector<float> inv_unit_;  ///< [n_kv_heads] 8 / mean length
  HugeBuffer codes_;
  HugeBuffer lengths_;
};

}  // namespace hata
