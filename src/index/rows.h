// Rows of a cache as floats.
#pragma once

#include "cpu/rank.h"
#include "hata/types.h"

namespace hata {

inline void widen_row(const CacheView& view, int64_t cell, int head, int head_dim, float* out) {
  to_floats(view.row(cell, head), view.type, head_dim, out);
}

}  // namespace hata
