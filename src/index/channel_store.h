// Keys kept channel by channel, so that a few channels of all keys are read in one go: SparQ's
// second copy of the keys, and Loki's keys in the basis of their principal components.
#pragma once

#include <cstdint>
#include <vector>

#include "hata/index.h"
#include "index/first_keys.h"
#include "index/huge_buffer.h"

namespace hata {

class ChannelStore : public KeyStore {
 public:
  /// n_channels: head_dim for the keys as they are; with `principal` the first ones in the basis
  /// of principal components, which is fitted to the first keys seen and then frozen.
  ChannelStore(const HeadShape& shape, int64_t n_cells, int n_channels, bool principal);

  size_t bytes() const override;
  void update(const CacheView& keys, const CacheView& values, std::span<const int32_t> cells,
              const Worker& worker) override;
  bool matches(const CacheView& keys, int64_t cell) const override;

  int n_channels() const { return n_channels_; }

  /// Sums over channels of n keys of one KV head, from this cell on; both are multiples of 64.
  /// channels: those to read, nullptr for all; q: [heads][n_channels]. Head h's go to
  /// out + h * out_stride. Their bits are those of channel_dots (cpu/rank.h).
  struct Dots {
    const int32_t* channels;
    int n_channels;
    const float* q;
    int heads;
    float* out;
    int64_t out_stride;
  };
  void dots(int head, int64_t cell, int64_t n, const Dots& args) const;

  /// A query or key in the basis: out[n_channels].
  void project(int head, const float* x, float* out) const;

 protected:
  const HeadShape& shape() const { return shape_; }

 private:
  bool fit(const CacheView& keys, std::span<const int32_t> cells, int head);
  void derive(const CacheView& keys, int head, int64_t cell, uint16_t* out) const;

  static constexpr int64_t kBlock = 64;  ///< cells whose channels lie side by side

  // A cell's element of channel 0; the next channel's is kBlock elements on.
  uint16_t* at(int head, int64_t cell) const {
    const int64_t block = head * n_blocks_ + cell / kBlock;
    return data_.as<uint16_t>() + block * n_channels_ * kBlock + cell % kBlock;
  }

  HeadShape shape_;
  int64_t n_blocks_;
  int n_channels_;
  bool principal_;
  FirstKeys first_keys_;
  std::vector<float> basis_;  ///< [n_kv_heads][head_dim][n_channels], with `principal`
  HugeBuffer data_;           ///< [n_kv_heads][n_blocks][n_channels][kBlock]
};

}  // namespace hata
