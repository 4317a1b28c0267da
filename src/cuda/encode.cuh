// Stage 1 on the GPU: sign bits of x W in the reference's order, so that codes are equal bit for
// bit: one f32 accumulator a bit, fused multiply-adds for i = 0 .. head_dim - 1. CUDA cores alone:
// a sum over tensor cores has another order.
#pragma once

#include "cells.cuh"
#include "device.cuh"

namespace hata::cuda {

__device__ __forceinline__ float element(const void* row, hata_cuda_type type, int64_t i) {
  switch (type) {
    case HATA_CUDA_F16:
      return __half2float(static_cast<const __half*>(row)[i]);
    case HATA_CUDA_BF16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(row)[i]);
    default:
      return static_cast<const float*>(row)[i];
  }
}

/// Floats between vectors in shared memory: rows of a matrix product lie in different banks.
constexpr int __host__ __device__ vector_stride(int head_dim) { return head_dim + 8; }

/// The queries of a KV head on their way to shared memory as f32, x[group][stride]: all loads are
/// under way before the first is waited for. kDim: head_dim, 0: any.
template <int kThreads, int kDim, int kMostHeads>
struct Queries {
  static constexpr int kEach = (kMostHeads * (kDim > 0 ? kDim : 256) + kThreads - 1) / kThreads;
  float values[kEach];

  __device__ __forceinline__ void load(const StepParams& p, int row, int head) {
    const int64_t first =
        row * p.q_row_stride + static_cast<int64_t>(head) * p.group * p.q_head_stride;
    const auto load_from = [&](const auto* q) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const int at = j * kThreads + static_cast<int>(threadIdx.x);
        const int d = kDim > 0 ? kDim : p.head_dim, g = at / d;
        if (g < p.group)
          values[j] = static_cast<float>(q[first + g * p.q_head_stride + at - g * d]);
      }
    };
    switch (p.q_type) {
      case HATA_CUDA_F16:
        load_from(static_cast<const __half*>(p.q));
        break;
      case HATA_CUDA_BF16:
        load_from(static_cast<const __nv_bfloat16*>(p.q));
        break;
      default:
        load_from(static_cast<const float*>(p.q));
    }
  }
  __device__ __forceinline__ void store(const StepParams& p, float* x, int stride) const {
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int at = j * kThreads + static_cast<int>(threadIdx.x);
      const int d = kDim > 0 ? kDim : p.head_dim, g = at / d;
      if (g < p.group) x[g * stride + at - g * d] = values[j];
    }
  }
};

/// The 4-bit length from |x|^2, as hata::key_lengths: no contraction here either.
__device__ __forceinline__ uint32_t length_of(float norm2, float inv_unit) {
  const float length = floorf(__fadd_rn(__fmul_rn(__fsqrt_rn(norm2), inv_unit), 0.5f));
  return length >= 15.0f ? 15u : length >= 1.0f ? static_cast<uint32_t>(length) : 1u;
}

/// |x|^2 by 16 neighbouring lanes in the reference's order: lane l takes x[l], x[l + 16], ...,
/// then halves are added. `x(i)` gives element i. The result is right in the first of the lanes.
template <int kDim = 0, class X>
__device__ __forceinline__ float norm2_of(int head_dim, int lane16, X x) {
  float sum = 0.0f;
  if (kDim > 0) head_dim = kDim;
#pragma unroll
  for (int i = lane16; i < head_dim; i += 16) {
    const float v = x(i);
    sum = __fmaf_rn(v, v, sum);
  }
#pragma unroll
  for (int half = 8; half > 0; half /= 2) {
    sum = __fadd_rn(sum, __shfl_down_sync(kAll, sum, half, 16));
  }
  return sum;
}

/// The codes of a KV head's query heads, and of the new key (vector `group`), as every block of the
/// cluster gets them in its shared memory.
template <int kWords>
struct Codes {
  uint32_t vectors[kMaxGroup + 1][kWords];
  uint32_t majority[kWords];
  uint32_t planes[4][kWords];
  int minority[kWords];  ///< bits of the queries that differ from the majority, by word
  uint32_t new_length;
};

/// One slab of W's columns, [head_dim][columns], on its way to shared memory. No more than the copy
/// is begun; the caller commits it. `columns`: a power of two, 8 or more.
__device__ __forceinline__ void begin_slab(const float* w, int head_dim, int rbit, int first,
                                           int columns, float* slab, int n_threads) {
  const int quads = columns / 4, shift = log2_of(quads);
  for (int i = threadIdx.x; i < head_dim * quads; i += n_threads) {
    const int row = i >> shift, quad = i & (quads - 1);
    copy_async<16>(shared_address(slab + 4 * i),
                   w + static_cast<int64_t>(row) * rbit + first + quad * 4, true);
  }
}

/// Encodes n vectors x[v][vector_stride] under the slab's columns; whole bytes of codes go to all blocks
/// of the cluster: vector v's code starts code_bytes * v behind `codes`. A thread takes a column of
/// three vectors: an element of W is read once for them, and their chains of multiply-adds run side
/// by side. kDim: head_dim, 0: any.
template <int kDim>
__device__ __forceinline__ void encode_slab(const float* slab, int head_dim, int first, int columns,
                                            const float* x, int n_vectors, uint32_t codes,
                                            int code_bytes, int n_blocks, int n_threads) {
  constexpr int kAtOnce = 3;
  const int shift = log2_of(columns);
  const int total = (n_vectors + kAtOnce - 1) / kAtOnce * columns;
#pragma unroll 1
  for (int base = threadIdx.x & ~(kWarp - 1); base < total; base += n_threads) {
    const int at = base + threadIdx.x % kWarp;
    const int v = (at >> shift) * kAtOnce, column = at & (columns - 1);
    const float* xs[kAtOnce];
    float sum[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      xs[j] = x + min(v + j, n_vectors - 1) * vector_stride(kDim > 0 ? kDim : head_dim);
      sum[j] = 0.0f;
    }
    const float* wc = slab + column;
    // Enough loads are under way to hide what shared memory takes.
#pragma unroll 4
    for (int i = 0; i < (kDim > 0 ? kDim : head_dim); i += 8) {
      float w[8];
#pragma unroll
      for (int e = 0; e < 8; ++e) w[e] = wc[(i + e) * columns];
#pragma unroll
      for (int e = 0; e < 8; e += 4) {
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          const float4 x4 = *reinterpret_cast<const float4*>(xs[j] + i + e);
          sum[j] = __fmaf_rn(x4.x, w[e], sum[j]);
          sum[j] = __fmaf_rn(x4.y, w[e + 1], sum[j]);
          sum[j] = __fmaf_rn(x4.z, w[e + 2], sum[j]);
          sum[j] = __fmaf_rn(x4.w, w[e + 3], sum[j]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const unsigned bits = __ballot_sync(kAll, sum[j] > 0.0f);
      if (column % 8 == 0 && v + j < n_vectors) {
        const uint32_t byte = bits >> (at % kWarp) & 0xff;
        const uint32_t to = codes + (v + j) * code_bytes + (first + column) / 8;
#pragma unroll 1
        for (int rank = 0; rank < n_blocks; ++rank) store_peer_byte(peer_address(to, rank), byte);
      }
    }
  }
}

/// What scoring needs of the group's codes. The sum over the group of popcount(query xor key) is,
/// with c of the group's queries having bit i set, m = whether these are most of them and
/// t = |group - 2 c|:  sum_i min(c, group - c) + sum_i t_i [key_i != m_i], and t is the sum of a
/// few bit planes: 2 popcounts a word for a group of 4, not 4.
/// Called by whole warps, one a word.
template <int kWords>
__device__ __forceinline__ void make_planes(Codes<kWords>& codes, int group) {
  const int warp = warp_index(), lane = threadIdx.x % kWarp;
  if (warp >= kWords) return;
  int c = 0;
#pragma unroll
  for (int g = 0; g < kMaxGroup; ++g) {
    if (g < group) c += codes.vectors[g][warp] >> lane & 1;
  }
  const int weight = abs(group - 2 * c);
  const unsigned majority = __ballot_sync(kAll, 2 * c > group);
  const unsigned minority = __reduce_add_sync(kAll, static_cast<unsigned>(min(c, group - c)));
  // Odd groups have odd weights: a plane of ones, then the rest by twos.
  const int odd = group % 2;
  unsigned planes[4];
#pragma unroll
  for (int plane = 0; plane < 4; ++plane) {
    const bool set = plane == 0 && odd ? true : (weight >> (plane - odd + 1) & 1) != 0;
    planes[plane] = __ballot_sync(kAll, set);
  }
  if (lane == 0) {
    codes.majority[warp] = majority;
    codes.minority[warp] = static_cast<int>(minority);
#pragma unroll
    for (int plane = 0; plane < 4; ++plane) codes.planes[plane][warp] = planes[plane];
  }
}

}  // namespace hata::cuda
