// From a row's mask to the cells it may see.
#pragma once

#include <cstdint>

namespace hata {

/// Sets bit i of `words` (n rounded up to 64 bits) where cell i is valid: its f16 mask is not -inf;
/// no mask, all n are. Returns how many are valid.
int64_t valid_cells(const uint16_t* mask, int64_t n, uint64_t* words);

}  // namespace hata
