// The format of keys in 4 bits.
//
// A key is cut into quads of 128 elements, a quad into four blocks of 32. It is kept as 4 f16
// scales, one a block, and 4 rows of 16 bytes: byte 4 b + i of row r holds the elements 8 r + i
// (low 4 bits) and 8 r + 4 + i (high ones) of block b. So the blocks' sums come out side by side,
// in the lanes of a vector. Where the last quad has no more than 64 elements it is a half: 2 rows,
// blocks of 16.
//
// An element is (2 u - 15) * scale, u in 0..15, with scale = (the block's largest |element|) / 16:
// so none is off by more than the scale (and 1 % of it, for the scale is rounded to f16). Elements
// behind head_dim are kept as 0 would be.
#pragma once

#include <cstdint>

namespace hata {

constexpr int kQ4Quad = 128;  // elements
constexpr int kQ4Rows = 4;
constexpr int kQ4ScaleBytes = 4 * 2;
constexpr int kQ4QuadBytes = kQ4ScaleBytes + kQ4Rows * 16;
constexpr int kQ4HalfBytes = kQ4ScaleBytes + kQ4Rows / 2 * 16;

/// Bytes of one key: 72 at head_dim 128, 40 at 64; a multiple of 8.
constexpr int q4_bytes(int head_dim) {
  const int rest = head_dim % kQ4Quad;
  const int rest_bytes = rest == 0 ? 0 : rest <= kQ4Quad / 2 ? kQ4HalfBytes : kQ4QuadBytes;
  return head_dim / kQ4Quad * kQ4QuadBytes + rest_bytes;
}

/// Rows of the quad that begins with this element.
constexpr int q4_rows(int head_dim, int element) {
  return head_dim - element <= kQ4Quad / 2 ? kQ4Rows / 2 : kQ4Rows;
}

}  // namespace hata
