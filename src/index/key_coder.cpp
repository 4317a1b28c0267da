#include "index/key_coder.h"

#include <algorithm>
#include <array>

#include "hata/encode.h"
#include "index/rows.h"

namespace hata {

KeyCoder::KeyCoder(std::shared_ptr<const LayerWeights> weights, const HeadShape& shape)
    : weights_(std::move(weights)),
      shape_(shape),
      inv_unit_(static_cast<size_t>(shape.n_kv_heads), 0.0f) {
  const std::vector<float>& lengths = weights_->mean_lengths;
  std::transform(lengths.begin(), lengths.end(), inv_unit_.begin(),
                 [](float mean) { return 8.0f / mean; });
}

int KeyCoder::measure(const CacheView& keys, std::span<const int32_t> cells, int head) {
  double sum = 0.0;
  int n = 0;
  for (const int32_t cell : cells) {
    float norm = 0.0f;
    key_norms(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, 1, &norm);
    if (!(norm > 0.0f && norm < 1e30f)) continue;  // an unused cell, or no number
    sum += norm;
    if (++n == kKeysMeasured) break;
  }
  inv_unit_[static_cast<size_t>(head)] = n > 0 ? static_cast<float>(8.0 * n / sum) : 0.0f;
  return n;
}

void KeyCoder::codes(const CacheView& keys, int head, int64_t cell, int64_t n,
                     uint64_t* out) const {
  const Projection& projection = weights_->projection;
  const float* w = projection.head(head);
  const int d = shape_.head_dim;
  if (weights_->key_means.empty()) {
    encode(w, d, projection.rbit, keys.row(cell, head), keys.type, keys.cell_stride, n, out);
    return;
  }
  const float* mean = weights_->key_means.data() + head * d;
  std::array<float, kMaxHeadDim> key;
  for (int64_t i = 0; i < n; ++i) {
    widen_row(keys, cell + i, head, d, key.data());
    for (int j = 0; j < d; ++j) key[static_cast<size_t>(j)] -= mean[j];
    encode(w, d, projection.rbit, key.data(), DType::f32, sizeof(key), 1,
           out + i * projection.words());
  }
}

void KeyCoder::lengths(const CacheView& keys, int head, int64_t cell, int64_t n,
                       uint8_t* out) const {
  key_lengths(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, n,
              inv_unit_[static_cast<size_t>(head)], out);
}

}  // namespace hata
