#include "index/code_store.h"

#include <algorithm>
#include <array>

#include "cpu/q4.h"
#include "hata/encode.h"
#include "index/cell_runs.h"
#include "index/rows.h"

namespace hata {
namespace {

constexpr int kKeysMeasured = 1024;  // that the mean length is taken over

void put_length(uint8_t* lengths, int64_t cell, uint8_t length) {
  const int shift = cell % 2 == 0 ? 0 : 4;
  uint8_t& byte = lengths[cell / 2];
  byte = static_cast<uint8_t>((byte & ~(15 << shift)) | (length << shift));
}

}  // namespace

CodeStore::CodeStore(std::shared_ptr<const LayerWeights> weights, const HeadShape& shape,
                     int64_t n_cells, const Extras& extras)
    : weights_(std::move(weights)),
      shape_(shape),
      n_cells_((n_cells + 63) / 64 * 64),
      extras_(extras),
      inv_unit_(static_cast<size_t>(shape.n_kv_heads), 0.0f),
      codes_(static_cast<size_t>(shape.n_kv_heads * n_cells_ * projection().words()) * 8),
      lengths_(extras.lengths ? static_cast<size_t>(shape.n_kv_heads * n_cells_ / 2) : 0),
      q4_keys_(extras.q4_keys
                   ? static_cast<size_t>(shape.n_kv_heads * n_cells_ * q4_bytes(shape.head_dim))
                   : 0) {
  const std::vector<float>& lengths = weights_->mean_lengths;
  std::transform(lengths.begin(), lengths.end(), inv_unit_.begin(),
                 [](float mean) { return 8.0f / mean; });
}

size_t CodeStore::bytes() const {
  return codes_.bytes() + lengths_.bytes() + q4_keys_.bytes() +
         projection().weights.size() * sizeof(float);
}

bool CodeStore::measure_mean_length(const CacheView& keys, std::span<const int32_t> cells,
                                    int head) {
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
  return n > 0;
}

// Codes of up to kMaxRun cells.
void CodeStore::encode_keys(const CacheView& keys, int head, int64_t cell, int64_t n,
                            uint64_t* out) const {
  const float* w = projection().head(head);
  const int d = shape_.head_dim, rbit = projection().rbit;
  if (weights_->key_means.empty()) {
    encode(w, d, rbit, keys.row(cell, head), keys.type, keys.cell_stride, n, out);
    return;
  }
  const float* mean = weights_->key_means.data() + head * d;
  std::array<float, kMaxHeadDim> key;
  for (int64_t i = 0; i < n; ++i) {
    widen_row(keys, cell + i, head, d, key.data());
    for (int j = 0; j < d; ++j) key[static_cast<size_t>(j)] -= mean[j];
    encode(w, d, rbit, key.data(), DType::f32, sizeof(key), 1, out + i * projection().words());
  }
}

void CodeStore::encode_run(const CacheView& keys, int head, int64_t cell, int64_t n) {
  encode_keys(keys, head, cell, n,
              codes_.as<uint64_t>() + (head * n_cells_ + cell) * projection().words());
  if (extras_.q4_keys) {
    q4_encode(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, n,
              q4_at(head, cell));
  }
  if (!extras_.lengths) return;
  std::array<uint8_t, kMaxRun> run;
  key_lengths(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, n,
              inv_unit_[static_cast<size_t>(head)], run.data());
  uint8_t* lengths = lengths_.as<uint8_t>() + head * n_cells_ / 2;
  for (int64_t i = 0; i < n; ++i) put_length(lengths, cell + i, run[static_cast<size_t>(i)]);
}

void CodeStore::update(const CacheView& keys, const CacheView&, std::span<const int32_t> cells,
                       const Worker& worker) {
  if (extras_.lengths && weights_->mean_lengths.empty()) {
    first_keys_.measure_once(shape_.n_kv_heads, worker,
                             [&](int head) { return measure_mean_length(keys, cells, head); });
  }
  share_runs(cells, shape_.n_kv_heads, worker,
             [&](int head, int64_t cell, int64_t n) { encode_run(keys, head, cell, n); });
}

bool CodeStore::matches(const CacheView& keys, int64_t cell) const {
  for (int head = 0; head < shape_.n_kv_heads; ++head) {
    std::array<uint64_t, kMaxRbit / kCodeWordBits> fresh;
    encode_keys(keys, head, cell, 1, fresh.data());
    if (!std::equal(fresh.begin(), fresh.begin() + projection().words(), codes(head, cell))) {
      return false;
    }
    if (extras_.lengths && !length_matches(keys, head, cell)) return false;
    if (extras_.q4_keys && !q4_key_matches(keys, head, cell)) return false;
  }
  return true;
}

bool CodeStore::length_matches(const CacheView& keys, int head, int64_t cell) const {
  uint8_t length = 0;
  key_lengths(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, 1,
              inv_unit_[static_cast<size_t>(head)], &length);
  const uint8_t pair = lengths_.as<uint8_t>()[(head * n_cells_ + cell) / 2];
  return (cell % 2 == 0 ? pair & 15 : pair >> 4) == length;
}

bool CodeStore::q4_key_matches(const CacheView& keys, int head, int64_t cell) const {
  std::array<uint8_t, q4_bytes(kMaxHeadDim)> fresh;
  q4_encode(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, 1, fresh.data());
  return std::equal(fresh.begin(), fresh.begin() + q4_bytes(shape_.head_dim), q4_at(head, cell));
}

}  // namespace hata
