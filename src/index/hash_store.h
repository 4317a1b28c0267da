// Locality-sensitive hashes of keys, table by table: what MagicPIG keeps.
#pragma once

#include <cstdint>
#include <vector>

#include "hata/index.h"
#include "index/first_keys.h"
#include "index/huge_buffer.h"

namespace hata {

class HashStore final : public KeyStore {
 public:
  /// `tables` SimHashes of `bits` (up to 16) each, by random directions that all KV heads share.
  /// Keys are hashed relative to their mean, which is taken over the first keys seen and then
  /// frozen.
  HashStore(uint64_t seed, int layer, const HeadShape& shape, int64_t n_cells, int bits,
            int tables);

  size_t bytes() const override;
  void update(const CacheView& keys, const CacheView& values, std::span<const int32_t> cells,
              const Worker& worker) override;
  bool matches(const CacheView& keys, int64_t cell) const override;

  int bits() const { return bits_; }
  int tables() const { return tables_; }
  /// One table's hashes of one KV head, from this cell on; whole blocks of 64 can be read.
  const uint16_t* hashes(int head, int table, int64_t cell) const {
    return hashes_.as<uint16_t>() + (static_cast<int64_t>(head) * tables_ + table) * n_cells_ +
           cell;
  }
  const float* centre(int head) const {
    return centre_.data() + static_cast<size_t>(head) * shape_.head_dim;
  }
  /// |key - centre|
  float length(int head, int64_t cell) const {
    return lengths_[static_cast<size_t>(head * n_cells_ + cell)];
  }

  /// The hashes [n][tables] of n vectors [n][head_dim], as they are.
  void hash(const float* x, int n, uint16_t* out) const;

  static constexpr int kAtOnce = 16;  ///< largest n

 private:
  bool measure_centre(const CacheView& keys, std::span<const int32_t> cells, int head);
  void derive(const CacheView& keys, int head, int64_t cell, int n, uint16_t* hashes,
              float* lengths) const;

  HeadShape shape_;
  int64_t n_cells_;  ///< rounded up to 64
  int bits_, tables_, words_;
  FirstKeys first_keys_;
  std::vector<float> directions_;  ///< [head_dim][words * 64]
  std::vector<float> centre_;      ///< [n_kv_heads][head_dim]
  std::vector<float> lengths_;     ///< [n_kv_heads][n_cells]
  HugeBuffer hashes_;              ///< [n_kv_heads][tables][n_cells]
};

}  // namespace hata
