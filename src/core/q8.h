// Rows of ggml's type q8_0: blocks of 32 elements, an f16 scale d and then 32 int8 q; an element is
// d * q.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/f16.h"

namespace hata {

constexpr int kQ8Block = 32;
constexpr size_t kQ8BlockBytes = 2 + kQ8Block;

/// Of a row of n elements, a multiple of kQ8Block.
constexpr size_t q8_bytes(int n) { return static_cast<size_t>(n / kQ8Block) * kQ8BlockBytes; }

/// The products are exact.
inline void widen_q8(const std::byte* row, int n, float* out) {
  for (int block = 0; block < n; block += kQ8Block, row += kQ8BlockBytes) {
    uint16_t scale;
    int8_t q[kQ8Block];
    std::memcpy(&scale, row, sizeof(scale));
    std::memcpy(q, row + sizeof(scale), sizeof(q));
    for (int i = 0; i < kQ8Block; ++i) {
      out[block + i] = f16_to_f32(scale) * static_cast<float>(q[i]);
    }
  }
}

}  // namespace hata
