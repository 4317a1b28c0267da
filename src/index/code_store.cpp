#include "index/code_store.h"

#include <algorithm>
#include <array>

namespace hata {
namespace {

constexpr int64_t kCellsPerItem = 256;   // stale cells that one thread encodes at a time
constexpr int64_t kRun = 64;             // neighbouring cells encoded in one call
constexpr int64_t kKeysMeasured = 1024;  // keys that the mean length is taken over

// Neighbours share a byte of lengths, so one thread takes both: item i starts at this list index.
size_t item_start(std::span<const int32_t> cells, int64_t item) {
  auto at = static_cast<size_t>(item * kCellsPerItem);
  if (at == 0 || at >= cells.size()) return std::min(at, cells.size());
  return cells[at] / 2 == cells[at - 1] / 2 ? at + 1 : at;
}

void put_length(uint8_t* lengths, int64_t cell, uint8_t length) {
  const int shift = cell % 2 == 0 ? 0 : 4;
  uint8_t& byte = lengths[cell / 2];
  byte = static_cast<uint8_t>((byte & ~(15 << shift)) | (length << shift));
}

}  // namespace

CodeStore::CodeStore(Projection projection, const HeadShape& shape, int64_t n_cells,
                     bool with_lengths)
    : projection_(std::move(projection)),
      shape_(shape),
      n_cells_((n_cells + 63) / 64 * 64),
      with_lengths_(with_lengths),
      inv_unit_(static_cast<size_t>(shape.n_kv_heads), 0.0f),
      codes_(static_cast<size_t>(shape.n_kv_heads * n_cells_ * projection_.words()) * 8),
      lengths_(with_lengths ? static_cast<size_t>(shape.n_kv_heads * n_cells_ / 2) : 0) {}

size_t CodeStore::bytes() const {
  return codes_.bytes() + lengths_.bytes() + projection_.weights.size() * sizeof(float);
}

void CodeStore::measure_mean_length(const CacheView& keys, std::span<const int32_t> cells,
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
}

void CodeStore::encode_run(const CacheView& keys, int head, int64_t cell, int64_t n) {
  encode(projection_.head(head), shape_.head_dim, projection_.rbit, keys.row(cell, head), keys.type,
         keys.cell_stride, n,
         codes_.as<uint64_t>() + (head * n_cells_ + cell) * projection_.words());
  if (!with_lengths_) return;
  std::array<uint8_t, kRun> run;
  key_lengths(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, n,
              inv_unit_[static_cast<size_t>(head)], run.data());
  uint8_t* lengths = lengths_.as<uint8_t>() + head * n_cells_ / 2;
  for (int64_t i = 0; i < n; ++i) put_length(lengths, cell + i, run[static_cast<size_t>(i)]);
}

void CodeStore::update(const CacheView& keys, const CacheView&, std::span<const int32_t> cells,
                       const Worker& worker) {
  const bool measure = with_lengths_ && !measured_;
  worker.barrier();  // all have read measured_
  if (measure) {
    worker.share(shape_.n_kv_heads,
                 [&](int64_t head) { measure_mean_length(keys, cells, static_cast<int>(head)); });
    if (worker.ith == 0) measured_ = inv_unit_[0] > 0.0f;
  }
  const auto n_items = (static_cast<int64_t>(cells.size()) + kCellsPerItem - 1) / kCellsPerItem;
  worker.share(n_items * shape_.n_kv_heads, [&](int64_t i) {
    const int head = static_cast<int>(i % shape_.n_kv_heads);
    const int64_t item = i / shape_.n_kv_heads;
    const size_t end = item_start(cells, item + 1);
    for (size_t at = item_start(cells, item); at < end;) {
      size_t next = at + 1;
      while (next < end && next - at < kRun && cells[next] == cells[next - 1] + 1) ++next;
      encode_run(keys, head, cells[at], static_cast<int64_t>(next - at));
      at = next;
    }
  });
}

bool CodeStore::matches(const CacheView& keys, int64_t cell) const {
  for (int head = 0; head < shape_.n_kv_heads; ++head) {
    std::array<uint64_t, kMaxRbit / kCodeWordBits> fresh;
    encode(projection_.head(head), shape_.head_dim, projection_.rbit, keys.row(cell, head),
           keys.type, keys.cell_stride, 1, fresh.data());
    if (!std::equal(fresh.begin(), fresh.begin() + projection_.words(), codes(head, cell))) {
      return false;
    }
    if (!with_lengths_) continue;
    uint8_t length = 0;
    key_lengths(shape_.head_dim, keys.row(cell, head), keys.type, keys.cell_stride, 1,
                inv_unit_[static_cast<size_t>(head)], &length);
    const uint8_t pair = lengths_.as<uint8_t>()[(head * n_cells_ + cell) / 2];
    if ((cell % 2 == 0 ? pair & 15 : pair >> 4) != length) return false;
  }
  return true;
}

}  // namespace hata
