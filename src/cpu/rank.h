// What methods that rank by floats share: sums over channels, exponentials, equal hashes. All give
// the same bits on every instruction set.
#pragma once

#include <cstdint>

#include "hata/types.h"

namespace hata {

/// n elements (a multiple of 16) of a row as floats.
void to_floats(const void* row, DType type, int n, float* out);

/// f16 keys kept in blocks of 64, channel by channel within a block: block b's channel c starts at
/// data + b * block_stride + c * 64.
struct ChannelArgs {
  const uint16_t* data;
  int64_t block_stride;
  const int32_t* channels;  ///< [n_channels] those to read; nullptr: the first ones
  int n_channels;
  const float* q;  ///< [heads][n_channels]
  int heads;
  int64_t n;   ///< a multiple of 64
  float* out;  ///< head h's start at out + h * out_stride
  int64_t out_stride;
};

/// out[h][i] = sum over c of q[h][c] * element i of channels[c]: one f32 accumulator that starts at
/// 0 and takes fused multiply-adds in the order of c.
void channel_dots(const ChannelArgs& args);

/// Bit i: x[i] > threshold, for 64 floats (a NaN is not).
uint64_t floats_above(const float* x, float threshold);

/// How many of n floats (a multiple of 64) are above `threshold` (a NaN is not).
int64_t count_floats_above(const float* x, int64_t n, float threshold);

/// x[i] = e^(x[i] - max), n a multiple of 16; 0 below e^-87. Returns their sum, taken in 16 lanes
/// and these in order.
float exp_all(float* x, int64_t n, float max);

/// counts[i] += 1 where hashes[i] == hash; n a multiple of 64.
void count_equal(const uint16_t* hashes, uint16_t hash, int64_t n, uint16_t* counts);

}  // namespace hata
