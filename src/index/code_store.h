// The codes and lengths of one layer's keys, and for a re-rank the keys themselves in 4 bits: what
// HATA keeps beside a cache.
#pragma once

#include <cstdint>
#include <memory>

#include "core/q4.h"
#include "hata/index.h"
#include "hata/weights.h"
#include "index/first_keys.h"
#include "index/huge_buffer.h"
#include "index/key_coder.h"

namespace hata {

class CodeStore final : public KeyStore {
 public:
  /// What is kept besides the codes.
  struct Extras {
    bool lengths = false;  ///< 4 bits a key
    bool q4_keys = false;  ///< q4_bytes(head_dim) a key (core/q4.h)
  };

  /// Mean lengths that the weights do not give are measured on the first keys seen and then frozen.
  CodeStore(std::shared_ptr<const LayerWeights> weights, const HeadShape& shape, int64_t n_cells,
            const Extras& extras);

  size_t bytes() const override;
  void update(const CacheView& keys, const CacheView& values, std::span<const int32_t> cells,
              const Worker& worker) override;
  bool matches(const CacheView& keys, int64_t cell) const override;

  const Projection& projection() const { return coder_.weights().projection; }
  const Projection& query_projection() const { return coder_.weights().of_queries(); }
  const KeyCoder& coder() const { return coder_; }

  /// Codes of one KV head, [cell][rbit / 64], from this cell on.
  const uint64_t* codes(int head, int64_t cell) const {
    return codes_.as<uint64_t>() + (head * n_cells_ + cell) * projection().words();
  }
  /// Lengths of one KV head, two cells a byte, from this (even) cell on; nullptr: none are kept.
  const uint8_t* lengths(int head, int64_t cell) const {
    return extras_.lengths ? lengths_.as<uint8_t>() + (head * n_cells_ + cell) / 2 : nullptr;
  }
  /// 4-bit keys of one KV head, q4_bytes(head_dim) each, from this cell on; nullptr: none are kept.
  const uint8_t* q4_keys(int head, int64_t cell) const {
    return extras_.q4_keys ? q4_at(head, cell) : nullptr;
  }

 private:
  void encode_run(const CacheView& keys, int head, int64_t cell, int64_t n);
  bool length_matches(const CacheView& keys, int head, int64_t cell) const;
  bool q4_key_matches(const CacheView& keys, int head, int64_t cell) const;
  uint8_t* q4_at(int head, int64_t cell) const {
    return q4_keys_.as<uint8_t>() + (head * n_cells_ + cell) * q4_bytes(shape_.head_dim);
  }

  KeyCoder coder_;
  HeadShape shape_;
  int64_t n_cells_;  ///< rounded up to 64: the score stage reads whole blocks
  Extras extras_;
  FirstKeys first_keys_;
  HugeBuffer codes_;
  HugeBuffer lengths_;
  HugeBuffer q4_keys_;
};

}  // namespace hata
