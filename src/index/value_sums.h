// Sums of values over blocks of cells, from which the mean value of any set of cells is made: what
// SparQ's correction needs.
#pragma once

#include <cstdint>
#include <vector>

#include "hata/index.h"
#include "index/known_cells.h"

namespace hata {

class ValueSums {
 public:
  ValueSums(const HeadShape& shape, int64_t n_cells);

  size_t bytes() const { return (blocks_.size() + supers_.size()) * sizeof(float); }
  /// As KeyStore::update.
  void update(const CacheView& values, std::span<const int32_t> cells, const Worker& worker);

  /// The mean of the values of the view's valid cells; the view starts at `first_cell`, a multiple
  /// of 64, and its values are `values`. Returns the bytes it read.
  int64_t mean(const CacheView& values, int64_t first_cell, std::span<const uint64_t> valid,
               int64_t n_valid, int head, float* out) const;

 private:
  static constexpr int kBlock = 64;
  static constexpr int kSuper = 64;  ///< blocks of a super-block

  float* block(int head, int64_t b) { return blocks_.data() + (head * n_blocks_ + b) * head_dim_; }
  float* super(int head, int64_t s) { return supers_.data() + (head * n_supers_ + s) * head_dim_; }

  int n_heads_, head_dim_;
  int64_t n_blocks_, n_supers_;
  KnownCells known_;
  std::vector<float> blocks_, supers_;  ///< [n_kv_heads][..][head_dim]
};

}  // namespace hata
