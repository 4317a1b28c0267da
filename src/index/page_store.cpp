#include "index/page_store.h"

#include <algorithm>
#include <array>
#include <limits>

#include "core/f16.h"
#include "index/cell_runs.h"
#include "index/rows.h"

namespace hata {
namespace {

// The next f16 in the direction of +infinity.
uint16_t next_up(uint16_t half) {
  if (half == 0x8000) return 0x0001;
  return static_cast<uint16_t>((half & 0x8000) == 0 ? half + 1 : half - 1);
}

uint16_t f16_at_least(float value) {
  const uint16_t half = f32_to_f16(value);
  return f16_to_f32(half) < value ? next_up(half) : half;
}

uint16_t f16_at_most(float value) { return static_cast<uint16_t>(f16_at_least(-value) ^ 0x8000); }

}  // namespace

PageStore::PageStore(const HeadShape& shape, int64_t n_cells, int page)
    : shape_(shape),
      page_(page),
      n_pages_((n_cells + page - 1) / page),
      known_(n_cells),
      pages_(static_cast<size_t>(shape.n_kv_heads * n_pages_) * page_bytes()) {}

void PageStore::derive(const CacheView& keys, int head, int64_t page, uint16_t* out) const {
  const int d = shape_.head_dim;
  std::array<float, kMaxHeadDim> most, least, key;
  most.fill(-std::numeric_limits<float>::infinity());
  least.fill(std::numeric_limits<float>::infinity());
  for (int64_t cell = page * page_; cell < (page + 1) * page_; ++cell) {
    if (!known_.has(cell)) continue;
    widen_row(keys, cell, head, d, key.data());
    for (size_t i = 0; i < static_cast<size_t>(d); ++i) {
      most[i] = key[i] > most[i] ? key[i] : most[i];
      least[i] = key[i] < least[i] ? key[i] : least[i];
    }
  }
  for (size_t i = 0; i < static_cast<size_t>(d); ++i) {
    out[i] = f16_at_least(most[i]);
    out[static_cast<size_t>(d) + i] = f16_at_most(least[i]);
  }
}

void PageStore::update(const CacheView& keys, const CacheView&, std::span<const int32_t> cells,
                       const Worker& worker) {
  known_.add(cells, worker);
  share_blocks(cells, page_, shape_.n_kv_heads, worker, [&](int head, int64_t page) {
    derive(keys, head, page,
           pages_.as<uint16_t>() + (head * n_pages_ + page) * 2 * shape_.head_dim);
  });
}

bool PageStore::matches(const CacheView& keys, int64_t cell) const {
  std::array<uint16_t, 2 * kMaxHeadDim> fresh;
  for (int head = 0; head < shape_.n_kv_heads; ++head) {
    derive(keys, head, cell / page_, fresh.data());
    if (!std::equal(fresh.begin(), fresh.begin() + 2 * shape_.head_dim,
                    pages(head, cell / page_))) {
      return false;
    }
  }
  return true;
}

}  // namespace hata
