// Stage 1, encode: a query or key becomes rbit sign bits of its projection (paper, section 3.1:
// h(x) = sign(x W)), a key also a 4-bit length.
#pragma once

#include <cstdint>
#include <vector>

#include "hata/types.h"

namespace hata {

/// W of one layer: one matrix [head_dim][rbit] per KV head, row-major f32.
struct Projection {
  int n_heads = 0;
  int head_dim = 0;
  int rbit = 0;                ///< bits of a code: 64, 128 or 256
  std::vector<float> weights;  ///< [n_heads][head_dim][rbit]

  const float* head(int h) const {
    return weights.data() + static_cast<size_t>(h) * head_dim * rbit;
  }
  int words() const { return rbit / kCodeWordBits; }
};

/// The projection used without a weights file: per KV head rbit random directions, orthonormal
/// within each block of head_dim bits. The same on every machine for one (seed, layer).
/// Throws Error on an unsupported head_dim or rbit.
Projection random_projection(uint64_t seed, int layer, int n_heads, int head_dim, int rbit);

/// codes[v][rbit/64] of `n` vectors (vector v starts v * stride bytes behind `x`) under one head's
/// W [head_dim][rbit].
/// Exactly: each bit is one f32 accumulator that starts at 0 and takes the fused multiply-adds
/// x[i] * W[i][j] in the order i = 0..head_dim-1; the bit is 1 where the sum is > 0 (NaN gives 0).
/// `codes` of consecutive vectors are `rbit / 64` words apart.
void encode(const float* w, int head_dim, int rbit, const void* x, DType type, size_t stride,
            int64_t n, uint64_t* codes);

/// Key lengths: lengths[v] = clamp(floor(|x| * inv_unit + 0.5), 1, 15), where
/// inv_unit = 8 / (mean |key| of the layer and KV head), so that 8 is the mean.
/// |x|^2 is summed in 16 lanes (lane l takes i = l, l + 16, ... by fused multiply-adds), and the
/// lanes by halves (l += l + 8, then + 4, + 2, + 1); the root is IEEE's.
void key_lengths(int head_dim, const void* x, DType type, size_t stride, int64_t n, float inv_unit,
                 uint8_t* lengths);

/// out[v] = q.x of `n` vectors, by the same sums (methods that rank by logits).
void dots(const float* q, int head_dim, const void* x, DType type, size_t stride, int64_t n,
          float* out);

/// The norms |x| themselves, by the same sums.
void key_norms(int head_dim, const void* x, DType type, size_t stride, int64_t n, float* norms);

}  // namespace hata
