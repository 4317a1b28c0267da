// Stage 2 on the GPU: the bin of a key, which is its score (include/hata/score.h) plus max_score.
#pragma once

#include "encode.cuh"

namespace hata::cuda {

/// A group's query as scoring takes it, in registers.
template <int kWords, int kPlanes>
struct Query {
  uint32_t majority[kWords];
  uint32_t planes[kPlanes][kWords];
  int max_product;
  int weight;  ///< of the first plane; each further one has twice that
  int offset;

  __device__ __forceinline__ Query(const Codes<kWords>& codes, int group, int rbit)
      : max_product(codes.max_product),
        weight(group % 2 != 0 ? 1 : 2),
        offset(max_score(group, rbit)) {
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      majority[w] = codes.majority[w];
#pragma unroll
      for (int p = 0; p < kPlanes; ++p) planes[p][w] = codes.planes[p][w];
    }
  }

  __device__ __forceinline__ int bin(const uint32_t (&key)[kWords], int length) const {
    int sum = 0;
#pragma unroll
    for (int p = kPlanes - 1; p >= 0; --p) {
      int plane = 0;
#pragma unroll
      for (int w = 0; w < kWords; ++w) plane += __popc((key[w] ^ majority[w]) & planes[p][w]);
      sum = 2 * sum + plane;
    }
    return ((length * (max_product - 2 * weight * sum)) >> kScoreShift) + offset;
  }
};

/// A code out of shared or global memory.
template <int kWords>
__device__ __forceinline__ void load_code(const void* from, uint32_t (&key)[kWords]) {
  if constexpr (kWords == 2) {
    const uint2 v = *static_cast<const uint2*>(from);
    key[0] = v.x, key[1] = v.y;
  } else {
#pragma unroll
    for (int w = 0; w < kWords; w += 4) {
      const uint4 v = static_cast<const uint4*>(from)[w / 4];
      key[w] = v.x, key[w + 1] = v.y, key[w + 2] = v.z, key[w + 3] = v.w;
    }
  }
}

}  // namespace hata::cuda
