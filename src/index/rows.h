// Rows of a cache as floats.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "cpu/rank.h"
#include "hata/types.h"

namespace hata {

inline void widen_row(const CacheView& view, int64_t cell, int head, int head_dim, float* out) {
  to_floats(view.row(cell, head), view.type, head_dim, out);
}

/// Calls fn(key) for a few thousand keys, evenly spread over `cells`; unused cells (zeros) are left
/// out. Returns how many there were.
template <class Fn>
int64_t sample_keys(const CacheView& keys, std::span<const int32_t> cells, int head, int head_dim,
                    Fn&& fn) {
  constexpr size_t kSampled = 4096;
  const size_t every = std::max<size_t>(1, cells.size() / kSampled);
  std::array<float, kMaxHeadDim> key;
  int64_t n = 0;
  for (size_t at = 0; at < cells.size(); at += every) {
    widen_row(keys, cells[at], head, head_dim, key.data());
    if (std::all_of(key.begin(), key.begin() + head_dim, [](float x) { return x == 0.0f; })) {
      continue;
    }
    fn(key.data());
    ++n;
  }
  return n;
}

}  // namespace hata
