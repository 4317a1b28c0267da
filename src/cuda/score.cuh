// Stage 2 on the GPU: the bin of a key, which is its score (include/hata/score.h), a sum's plus
// max_score. Each rule is a class that kernels are instantiated for: SumQuery, SquaresQuery.
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

/// A group's query as the rule of sums takes it, in registers.
///
/// Binary tensor cores: lane (r, c) = (lane / 4, lane % 4) puts the words of a key of its own into
/// row r, one of four 32-bit slots: slot c (and c + 4 for the next word). Column 2 c + i of the
/// other factor is plane i in slots c and c + 4 and zero in the rest, so that the sums of both
/// planes come back to the lane that gave the key. A plane alone takes both columns, the first with
/// its bits where the majority is 0, the second with the rest: the difference of the sums is the
/// same but for a constant, and nothing need be exclusive-ored.
template <int kKeyWords, int kPlanes>
struct SumQuery {
  static constexpr int kWords = kKeyWords;
  static constexpr bool kSquares = false;
  /// Of scaled_bins(): a bin times 2^kBinShift and some.
  static constexpr int kBinShift = kScoreShift;
  static constexpr bool kSplit = kBinaryMma && kPlanes == 1;
  static constexpr int kPairs = (kPlanes + 1) / 2;  ///< of planes

  uint32_t majority[kWords];
  uint32_t planes[kBinaryMma ? kPairs : kPlanes][kWords];
  int max_product;  ///< D of a key whose code is the majority's; with the constant
  int factor;       ///< of the planes' sum in a product
  int offset;       ///< max_score, and rounding

  __device__ __forceinline__ SumQuery(const Codes<kWords>& codes, int group, int rbit)
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

  /// The bins of two keys of this lane, times 2^kBinShift and some. Whole warps.
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
    return bin >> kBinShift;
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

/// Each lane has a number; their sum, the same in all.
__device__ __forceinline__ int sum_lanes(int v) {
  return static_cast<int>(__reduce_add_sync(kAll, static_cast<unsigned>(v)));
}

/// A group's query as the rule of squares takes it: 2 kPairs heads, of which those beyond the group
/// agree with no key.
///
/// Binary tensor cores: of a key x that is exclusive-ored with head 0, and m_g, the bits in which
/// head g differs from head 0,  popcount(x xor m_g) = popcount(x) + popcount(m_g)
/// - 2 popcount(x and m_g).  Ones in place of m_0 give popcount(x), which is head 0's distance, so
/// that as many columns as heads will do; they lie as in SumQuery. Elsewhere a distance is counted
/// head by head, the codes out of shared memory: they are too many for registers.
template <int kKeyWords, int kPairs>
struct SquaresQuery {
  static constexpr int kWords = kKeyWords;
  static constexpr bool kSquares = true;
  static constexpr int kBinShift = 17;  ///< a level is a float's bits, shifted: score_level()
  static constexpr int kHeads = 2 * kPairs;

  static_assert(offsetof(Codes<kWords>, vectors) % 16 == 0);  // for load_code

  const Codes<kWords>& codes;
  int group;
  int half;  ///< rbit / 2
  uint32_t first[kBinaryMma ? kWords : 1];
  uint32_t columns[kBinaryMma ? kPairs : 1][kWords];
  int apart[kBinaryMma ? kHeads : 1];  ///< popcount(m_g); of no head: so many that it is never near

  __device__ __forceinline__ SquaresQuery(const Codes<kWords>& c, int heads, int rbit)
      : codes(c), group(heads), half(rbit / 2) {
    if constexpr (kBinaryMma) {
      const int lane = threadIdx.x % kWarp, column = lane / 4;
      load_code(codes.vectors[0], first);
      const bool has = column / 2 == lane % 4;
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const int head = 2 * pair + column % 2;
        load_code(codes.vectors[head < group ? head : 0], columns[pair]);
#pragma unroll
        for (int w = 0; w < kWords; ++w) {
          const uint32_t bits = head == 0 ? ~0u : columns[pair][w] ^ first[w];
          columns[pair][w] = has ? bits : 0u;
        }
      }
#pragma unroll
      for (int g = 1; g < kHeads; ++g) {
        const bool counts = g < group && lane < kWords;
        const uint32_t bits = counts ? codes.vectors[g][lane] ^ codes.vectors[0][lane] : 0u;
        const int count = sum_lanes(__popc(bits));
        apart[g] = g < group ? count : half;
      }
    }
  }

  /// As SumQuery's.
  __device__ __forceinline__ void scaled_bins(const uint32_t (&x)[kWords],
                                              const uint32_t (&y)[kWords], int x_length,
                                              int y_length, int& x_bin, int& y_bin) const {
    int x_sum = 0, y_sum = 0;
    if constexpr (kBinaryMma) {
      int x_near = 0, y_near = 0;  // of head 0; others are as near, less what sets them apart
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        int c[4] = {0, 0, 0, 0};
#pragma unroll
        for (int w = 0; w < kWords; w += 2) {
          binary_mma(c, x[w] ^ first[w], y[w] ^ first[w], x[w + 1] ^ first[w + 1],
                     y[w + 1] ^ first[w + 1], columns[pair][w], columns[pair][w + 1]);
        }
        if (pair == 0) {
          x_near = half - c[0];
          y_near = half - c[2];
          add_square(x_sum, x_near, 0);
          add_square(y_sum, y_near, 0);
        } else {
          add_square(x_sum, c[0] + c[0] + x_near, -apart[2 * pair]);
          add_square(y_sum, c[2] + c[2] + y_near, -apart[2 * pair]);
        }
        add_square(x_sum, c[1] + c[1] + x_near, -apart[2 * pair + 1]);
        add_square(y_sum, c[3] + c[3] + y_near, -apart[2 * pair + 1]);
      }
    } else {
#pragma unroll 1
      for (int g = 0; g < group; ++g) {
        uint32_t head[kWords];
        load_code(codes.vectors[g], head);
        int x_far = 0, y_far = 0;
#pragma unroll
        for (int w = 0; w < kWords; ++w) {
          x_far += __popc(x[w] ^ head[w]);
          y_far += __popc(y[w] ^ head[w]);
        }
        add_square(x_sum, half, -x_far);
        add_square(y_sum, half, -y_far);
      }
    }
    x_bin = scaled_level(x_length * x_sum);
    y_bin = scaled_level(y_length * y_sum);
  }
  /// The bin of one key, for the slow ways. Whole warps.
  __device__ __forceinline__ int bin(const uint32_t (&x)[kWords], int length) const {
    int bin, same;
    scaled_bins(x, x, length, length, bin, same);
    return bin >> kBinShift;
  }

 private:
  /// sum += max(0, a + b)^2
  static __device__ __forceinline__ void add_square(int& sum, int a, int b) {
    const int beyond_chance = __viaddmax_s32(a, b, 0);
    sum += beyond_chance * beyond_chance;
  }
  /// score_level(v) times 2^kBinShift and some. v is below 2^23, and there bits of a float are the
  /// numbers: a conversion takes four times as long.
  static __device__ __forceinline__ int scaled_level(int v) {
    constexpr int kTwo23 = 0x4b000000;
    constexpr int kFloor = (127 + kLevelFloor) << 23;
    const float exact = __fsub_rn(__int_as_float(v + kTwo23), __int_as_float(kTwo23));
    return __viaddmax_s32(__float_as_int(exact), -kFloor, 0);
  }
};
static_assert(15 * kMaxGroup * 128 * 128 < 1 << 23);

}  // namespace hata::cuda
