// Keys in 4 bits (core/q4.h has the format), and the logits of a group's queries for some of them.
// All gives the same bits on every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/q4.h"
#include "hata/types.h"

namespace hata {

constexpr int kQ4Heads = 4;  // query heads whose logits are taken together

/// `n` vectors (vector v starts v * stride bytes behind x) as 4-bit keys, one behind another. A
/// NaN becomes any value; a block with an infinity has an infinite scale.
void q4_encode(int head_dim, const void* x, DType type, size_t stride, int64_t n, uint8_t* keys);

/// Four query heads' part of one quad, as 8-bit numbers with a scale per block (largest |element| /
/// 127). Heads and elements that do not exist are 0.
struct Q4Query {
  // In lanes 4 h + b of head h and block b:
  alignas(64) float scales[16];
  int32_t offsets[16];  ///< 15 times the sum of the numbers
  /// By head: those of the low halves of the quad's bytes, then those of the high ones.
  int8_t numbers[kQ4Heads][2][64];
};

/// The keys i = cells[j], q4_bytes apart from `keys` on, and `group` query heads.
struct Q4Args {
  const Q4Query* queries;  ///< [4 heads][quad]
  int group;
  int n_quads;
  int key_bytes;
  const uint8_t* keys;
  const int32_t* cells;
  int64_t n;
  float* out;  ///< head g's start at out + g * out_stride
  int64_t out_stride;
};

/// out[g * out_stride + j] = sum over the blocks of n * (query's scale * key's scale), n the
/// integer sum over the block of number * (2 u - 15). Each of a quad's four blocks has an f32
/// accumulator that starts at 0 and takes fused multiply-adds in the order of the quads; they are
/// added as (0 + 2) + (1 + 3).
void q4_logits(const Q4Args& args);

/// The queries of a group.
class Q4Queries {
 public:
  /// Query head g starts g * stride floats behind q; its logits are multiplied by `scale`. Reuses
  /// its memory.
  void set(const float* q, size_t stride, int group, int head_dim, float scale);

  /// As q4_logits above.
  void logits(const uint8_t* keys, std::span<const int32_t> cells, float* out,
              int64_t out_stride) const;

 private:
  int group_ = 0;
  int n_quads_ = 0;
  int key_bytes_ = 0;
  std::vector<Q4Query> queries_;  ///< [4 heads][quad]
};

}  // namespace hata
