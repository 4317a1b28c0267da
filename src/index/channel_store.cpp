#include "index/channel_store.h"

#include <algorithm>
#include <array>

#include "core/eigen.h"
#include "core/f16.h"
#include "cpu/rank.h"
#include "index/cell_runs.h"
#include "index/rows.h"

namespace hata {

ChannelStore::ChannelStore(const HeadShape& shape, int64_t n_cells, int n_channels, bool principal)
    : shape_(shape),
      n_blocks_((n_cells + kBlock - 1) / kBlock),
      n_channels_(n_channels),
      principal_(principal),
      basis_(principal ? static_cast<size_t>(shape.n_kv_heads) * shape.head_dim * n_channels : 0),
      data_(static_cast<size_t>(shape.n_kv_heads * n_blocks_ * n_channels * kBlock) *
            sizeof(uint16_t)) {}

size_t ChannelStore::bytes() const { return data_.bytes() + basis_.size() * sizeof(float); }

// The eigenvectors of sum over keys of k k^T: as in Loki, keys are not centred.
bool ChannelStore::fit(const CacheView& keys, std::span<const int32_t> cells, int head) {
  const int d = shape_.head_dim;
  std::vector<double> second(static_cast<size_t>(d) * d, 0.0);
  const int64_t n = sample_keys(keys, cells, head, d, [&](const float* key) {
    for (int i = 0; i < d; ++i) {
      double* row = second.data() + static_cast<size_t>(i) * d;
      for (int j = 0; j < d; ++j) {
        row[j] += static_cast<double>(key[i]) * static_cast<double>(key[j]);
      }
    }
  });
  const std::vector<double> vectors = eigenvectors(std::move(second), d);
  float* basis = basis_.data() + static_cast<size_t>(head) * d * n_channels_;
  for (int i = 0; i < d; ++i) {
    for (int c = 0; c < n_channels_; ++c) {
      basis[i * n_channels_ + c] = static_cast<float>(vectors[static_cast<size_t>(i * d + c)]);
    }
  }
  return n > 0;
}

void ChannelStore::project(int head, const float* x, float* out) const {
  const float* basis = basis_.data() + static_cast<size_t>(head) * shape_.head_dim * n_channels_;
  std::fill_n(out, n_channels_, 0.0f);
  for (int i = 0; i < shape_.head_dim; ++i, basis += n_channels_) {
    for (int c = 0; c < n_channels_; ++c) out[c] += x[i] * basis[c];
  }
}

void ChannelStore::derive(const CacheView& keys, int head, int64_t cell, uint16_t* out) const {
  std::array<float, kMaxHeadDim> key, projected;
  widen_row(keys, cell, head, shape_.head_dim, key.data());
  if (principal_) project(head, key.data(), projected.data());
  const float* from = principal_ ? projected.data() : key.data();
  for (int c = 0; c < n_channels_; ++c) out[c] = f32_to_f16(from[c]);
}

void ChannelStore::update(const CacheView& keys, const CacheView&, std::span<const int32_t> cells,
                          const Worker& worker) {
  if (principal_) {
    first_keys_.measure_once(shape_.n_kv_heads, worker,
                             [&](int head) { return fit(keys, cells, head); });
  }
  share_runs(cells, shape_.n_kv_heads, worker, [&](int head, int64_t cell, int64_t n) {
    std::array<uint16_t, kMaxRun * kMaxHeadDim> run;
    for (int64_t i = 0; i < n; ++i) derive(keys, head, cell + i, run.data() + i * n_channels_);
    for (int c = 0; c < n_channels_; ++c) {
      for (int64_t i = 0; i < n; ++i) {
        at(head, cell + i)[c * kBlock] = run[static_cast<size_t>(i * n_channels_ + c)];
      }
    }
  });
}

void ChannelStore::dots(int head, int64_t cell, int64_t n, const Dots& args) const {
  channel_dots({.data = at(head, cell),
                .block_stride = n_channels_ * kBlock,
                .channels = args.channels,
                .n_channels = args.n_channels,
                .q = args.q,
                .heads = args.heads,
                .n = n,
                .out = args.out,
                .out_stride = args.out_stride});
}

bool ChannelStore::matches(const CacheView& keys, int64_t cell) const {
  std::array<uint16_t, kMaxHeadDim> fresh;
  for (int head = 0; head < shape_.n_kv_heads; ++head) {
    derive(keys, head, cell, fresh.data());
    for (int c = 0; c < n_channels_; ++c) {
      if (at(head, cell)[c * kBlock] != fresh[static_cast<size_t>(c)]) return false;
    }
  }
  return true;
}

}  // namespace hata
