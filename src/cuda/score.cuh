// Stage 2 on the GPU: the bin of a key, which is its score (include/hata/score.h) plus max_score.
#pragma once

#include "encode.cuh"

namespace hata::cuda {

// Hopper still has binary tensor cores, and they do what is wanted: popcounts of many ands at once.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr bool kBinaryMma = true;
#else
constexpr bool kBinaryMma = false;
#endif

/// c += popcount(a and b), 16 rows of 256 bits by 8 columns.
__device__ __forceinline__ void binary_mma(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                           uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

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

/// A group's query as scoring takes it, in registers.
///
/// Binary tensor cores: lane (r, c) = (lane / 4, lane % 4) puts the words of a key of its own into
/// row r, one of four 32-bit slots: slot c (and c + 4 for the next word). Column 2 c + i of the
/// other factor is plane i in slots c and c + 4 and zero in the rest, so that the sums of both
/// planes come back to the lane that gave the key. A plane alone takes both columns, the first with
/// its bits where the majority is 0, the second with the rest: the difference of the sums is the
/// same but for a constant, and nothing need be exclusive-ored.
template <int kWords, int kPlanes>
struct Query {
  static constexpr bool kSplit = kBinaryMma && kPlanes == 1;
  static constexpr int kPairs = (kPlanes + 1) / 2;  ///< of planes

  uint32_t majority[kWords];
  uint32_t planes[kBinaryMma ? kPairs : kPlanes][kWords];
  int max_product;  ///< D of a key whose code is the majority's; with the constant
  int factor;       ///< of the planes' sum in a product
  int offset;       ///< max_score, and rounding

  __device__ __forceinline__ Query(const Codes<kWords>& codes, int group, int rbit)
      : max_product(group * rbit),
        factor(group % 2 != 0 ? -2 : -4),
        offset(max_score(group, rbit) << kScoreShift) {
    const int lane = threadIdx.x % kWarp, column = lane / 4;
    uint32_t most[kWords], minority[kWords];
    load_code(codes.majority, most);
    load_code(codes.minority, minority);
    uint32_t own[kBinaryMma ? kPairs : 1][kWords];
    if constexpr (kBinaryMma) {
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        load_code(codes.planes[kSplit ? 0 : 2 * pair + column % 2], own[pair]);
      }
    }
    const bool has = column / 2 == lane % 4;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const uint32_t m = most[w];
      majority[w] = kSplit ? 0u : m;
      max_product -= 2 * static_cast<int>(minority[w]);
      if constexpr (kSplit) {
        planes[0][w] = has ? own[0][w] & (column % 2 != 0 ? m : ~m) : 0u;
        max_product += factor * __popc(own[0][w] & m);
      } else if constexpr (kBinaryMma) {
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
          planes[pair][w] = has ? own[pair][w] : 0u;  // there are no bits in planes not needed
        }
      } else {
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) planes[p][w] = codes.planes[p][w];
      }
    }
  }

  /// The bins of two keys of this lane, times 2^kScoreShift and some. Whole warps.
  __device__ __forceinline__ void scaled_bins(const uint32_t (&x)[kWords],
                                              const uint32_t (&y)[kWords], int x_length,
                                              int y_length, int& x_bin, int& y_bin) const {
    int x_sum = 0, y_sum = 0;
    if constexpr (kBinaryMma) {
#pragma unroll
      for (int pair = kPairs - 1; pair >= 0; --pair) {
        int c[4] = {0, 0, 0, 0};
#pragma unroll
        for (int w = 0; w < kWords; w += 2) {
          binary_mma(c, x[w] ^ majority[w], y[w] ^ majority[w], x[w + 1] ^ majority[w + 1],
                     y[w + 1] ^ majority[w + 1], planes[pair][w], planes[pair][w + 1]);
        }
        x_sum = 4 * x_sum + (kSplit ? -1 : 2) * c[1] + c[0];
        y_sum = 4 * y_sum + (kSplit ? -1 : 2) * c[3] + c[2];
      }
    } else {
      x_sum = sum_of(x);
      y_sum = sum_of(y);
    }
    x_bin = x_length * (max_product + factor * x_sum) + offset;
    y_bin = y_length * (max_product + factor * y_sum) + offset;
  }
  /// The bin of one key, for the slow ways. Whole warps.
  __device__ __forceinline__ int bin(const uint32_t (&x)[kWords], int length) const {
    int bin, same;
    scaled_bins(x, x, length, length, bin, same);
    return bin >> kScoreShift;
  }

  /// The planes' sum of a key, by this lane alone.
  __device__ __forceinline__ int sum_of(const uint32_t (&key)[kWords]) const {
    int sum = 0;
#pragma unroll
    for (int p = kPlanes - 1; p >= 0; --p) {
      sum *= 2;
#pragma unroll
      for (int w = 0; w < kWords; ++w) sum += __popc((key[w] ^ majority[w]) & planes[p][w]);
    }
    return sum;
  }
};

}  // namespace hata::cuda
