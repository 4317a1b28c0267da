#include "index/code_store.h"

#include <algorithm>
#include <array>

#include "cpu/q4.h"
#include "index/cell_runs.h"

namespace hata {
namespace {

void put_length(uint8_t* lengths, int64_t cell, uint8_t length) {
  const int shift = cell % 2 == 0 ? 0 : 4;
  uint8_t& byte = lengths[cell / 2];
  byte = static_cast<uint8_t>((byte & ~(15 << shift)) | (length << shift));
}

}  // namespace

CodeStore::CodeStore(std::shared_ptr<const LayerWeights> weights, const HeadShape& shape,
                     int64_t n_cells, const Extras& extras)
    : coder_(std::move(weights), shape),
      shape_(shape),
      n_cells_((n_cells + 63) / 64 * 64),
      extras_(extras),
      codes_(static_cast<size_t>(shape.n_kv_heads * n_cells_ * projection().words()) * 8),
      lengths_(extras.lengths ? static_cast<size_t>(shape.n_kv_heads * n_cells_ / 2) : 0),
      q4_keys_(extras.q4_keys
                   ? static_cast<size_t>(shape.n_kv_heads * n_cells_ * q4_bytes(shape.head_dim))
                   : 0) {}

size_t CodeStore::bytes() const {
  return codes_.bytes() + lengths_.bytes() + q4_keys_.bytes() +
         projection().weights.size() * sizeof(float);
}

void CodeStore::encode_run(const CacheView& keys, int head, int64_t cell, int64_t n) {
  coder_.codes(keys, head, cell, n,
               codes_.as<uint64_t>() + (head * n_cells_ + cell) * projection().words());
  if (extras_.q4_keys) {
    q4_encode(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, n,
              q4_at(head, cell));
  }
  if (!extras_.lengths) return;
  std::array<uint8_t, kMaxRun> run;
  coder_.lengths(keys, head, cell, n, run.data());
  uint8_t* lengths = lengths_.as<uint8_t>() + head * n_cells_ / 2;
  for (int64_t i = 0; i < n; ++i) put_length(lengths, cell + i, run[static_cast<size_t>(i)]);
}

void CodeStore::update(const CacheView& keys, const CacheView&, std::span<const int32_t> cells,
                       const Worker& worker) {
  if (extras_.lengths && coder_.measures()) {
    first_keys_.measure_once(shape_.n_kv_heads, worker,
                             [&](int head) { return coder_.measure(keys, cells, head) > 0; });
  }
  share_runs(cells, shape_.n_kv_heads, worker,
             [&](int head, int64_t cell, int64_t n) { encode_run(keys, head, cell, n); });
}

bool CodeStore::matches(const CacheView& keys, int64_t cell) const {
  for (int head = 0; head < shape_.n_kv_heads; ++head) {
    std::array<uint64_t, kMaxRbit / kCodeWordBits> fresh;
    coder_.codes(keys, head, cell, 1, fresh.data());
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
  coder_.lengths(keys, head, cell, 1, &length);
  const uint8_t pair = lengths_.as<uint8_t>()[(head * n_cells_ + cell) / 2];
  return (cell % 2 == 0 ? pair & 15 : pair >> 4) == length;
}

bool CodeStore::q4_key_matches(const CacheView& keys, int head, int64_t cell) const {
  std::array<uint8_t, q4_bytes(kMaxHeadDim)> fresh;
  q4_encode(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, 1, fresh.data());
  return std::equal(fresh.begin(), fresh.begin() + q4_bytes(shape_.head_dim), q4_at(head, cell));
}

}  // namespace hata
