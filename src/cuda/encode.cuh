// Stage 1 on the GPU: sign bits of x W in the reference's order, so that codes are equal bit for
// bit: one f32 accumulator a bit, fused multiply-adds for i = 0 .. head_dim - 1. CUDA cores alone:
// a sum over tensor cores has another order.
#pragma once

#include "cells.cuh"
#include "device.cuh"

namespace hata::cuda {

/// An element as it lies in memory; `widen` makes it a number, once it is there.
__device__ __forceinline__ uint32_t load_element(const void* row, hata_cuda_type type, int64_t i) {
  return type == HATA_CUDA_F32 ? static_cast<const uint32_t*>(row)[i]
                               : static_cast<const uint16_t*>(row)[i];
}
__device__ __forceinline__ float widen(uint32_t bits, hata_cuda_type type) {
  return type == HATA_CUDA_F16    ? __half2float(__ushort_as_half(static_cast<uint16_t>(bits)))
         : type == HATA_CUDA_BF16 ? __uint_as_float(bits << 16)
                                  : __uint_as_float(bits);
}

constexpr int kQ8Block = 32;  ///< elements of a block of q8_0, behind its scale in f16
constexpr int kQ8Bytes = 34;

/// The same of a cache's row, which may be q8_0: the scale, and the byte below it.
__device__ __forceinline__ uint32_t load_key_element(const void* row, hata_cuda_type type, int i) {
  if (type != HATA_CUDA_Q8_0) return load_element(row, type, i);
  const auto* block = static_cast<const uint8_t*>(row) + i / kQ8Block * kQ8Bytes;
  return static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(block)) << 16 |
         block[2 + i % kQ8Block];
}
__device__ __forceinline__ float widen_key(uint32_t bits, hata_cuda_type type) {
  if (type != HATA_CUDA_Q8_0) return widen(bits, type);
  const float scale = __half2float(__ushort_as_half(static_cast<uint16_t>(bits >> 16)));
  return __fmul_rn(scale, static_cast<float>(static_cast<int8_t>(bits & 0xff)));  // exact
}
__device__ __forceinline__ float element(const void* row, hata_cuda_type type, int i) {
  return widen_key(load_key_element(row, type, i), type);
}

/// Floats between vectors in shared memory: rows of a matrix product lie in different banks.
constexpr int __host__ __device__ vector_stride(int head_dim) { return head_dim + 8; }

/// The queries of a KV head on their way to shared memory as f32, x[group][stride]: all loads are
/// under way before the first is waited for. kDim: head_dim, 0: any.
template <int kThreads, int kDim, int kMostHeads>
struct Queries {
  static constexpr int kEach = (kMostHeads * (kDim > 0 ? kDim : 256) + kThreads - 1) / kThreads;
  uint32_t bits[kEach];

  __device__ __forceinline__ void load(const StepParams& p, int row, int head) {
    const int64_t first =
        row * p.q_row_stride + static_cast<int64_t>(head * p.group) * p.q_head_stride;
    // One branch on the type for all loads.
    const auto load_all = [&](const auto* from) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const int at = j * kThreads + static_cast<int>(threadIdx.x);
        const int d = kDim > 0 ? kDim : p.head_dim, g = at / d;
        if (g < p.group) bits[j] = from[g * p.q_head_stride + (at - g * d)];
      }
    };
    if (p.q_type == HATA_CUDA_F32) {
      load_all(static_cast<const uint32_t*>(p.q) + first);
    } else {
      load_all(static_cast<const uint16_t*>(p.q) + first);
    }
  }
  __device__ __forceinline__ void store(const StepParams& p, float* x, int stride) const {
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int at = j * kThreads + static_cast<int>(threadIdx.x);
      const int d = kDim > 0 ? kDim : p.head_dim, g = at / d;
      if (g < p.group) x[g * stride + at - g * d] = widen(bits[j], p.q_type);
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

constexpr int kCodeParts = 16;  ///< of a code as blocks send them, at most

/// The codes of a KV head's query heads, and of the new key (vector `group`).
template <int kWords>
struct Codes {
  uint32_t parts[kMaxGroup + 1][kCodeParts];  ///< as they come from the blocks
  uint32_t vectors[kMaxGroup + 1][kWords];
  // For the rule of sums:
  alignas(16) uint32_t majority[kWords];
  alignas(16) uint32_t planes[4][kWords];
  alignas(16) int minority[kWords];  ///< bits of the queries that differ from the majority, by word
  uint32_t new_length;
};

constexpr int kSlabBytes = 32 * 1024;  ///< of W in shared memory at a time, at most

/// Floats between rows of a slab: known to the compiler where it can be, so that addresses are.
template <int kDim>
__device__ __forceinline__ int slab_stride(int columns) {
  return kDim > 0 ? kSlabBytes / 4 / kDim : columns;
}

/// One slab of W's columns, [head_dim][slab_stride], on its way to shared memory. No more than the
/// copy is begun; the caller commits it. `columns`: a power of two, 8 or more.
template <int kDim>
__device__ __forceinline__ void begin_slab(const float* w, int head_dim, int rbit, int first,
                                           int columns, float* slab, int n_threads) {
  const int quads = columns / 4, shift = log2_of(quads);
  if (kDim > 0) head_dim = kDim;
  // Threads are whole rows, so that they go on by the same distance; all offsets are below 2^31.
  const int row = static_cast<int>(threadIdx.x) >> shift, quad = threadIdx.x & (quads - 1);
  const int rows = n_threads >> shift, stride = slab_stride<kDim>(columns);
  const float* from = w + (row * rbit + first + 4 * quad);
  uint32_t to = shared_address(slab + row * stride + 4 * quad);
#pragma unroll 1
  for (int r = row; r < head_dim; r += rows) {
    copy_async<16>(to, from, true);
    from += rows * rbit;
    to += rows * stride * 4;
  }
}

/// Encodes n vectors x[v][vector_stride] under the slab's columns. The bits go to all blocks of the
/// cluster, as [v][kCodeParts] words from `codes` on; a part is 32 columns, or all of a block's
/// where these are fewer. A thread takes a column of kAtOnce vectors: an element of W is read once
/// for them, and their chains of multiply-adds run side by side. What takes long is reading shared
/// memory, 6 cycles a warp and instruction: 1760 cycles for 64 columns of 5 vectors, and 1430 for
/// 16, or 1130 with one vector a thread (H200, 2026-11; two columns a thread, or a pipeline by
/// hand, took longer; columns that lie in rows, 1550 and 900). kDim: head_dim, 0: any.
template <int kDim, int kAtOnce>
__device__ __forceinline__ void encode_slab(const float* slab, int head_dim, int first, int columns,
                                            const float* x, int n_vectors, uint32_t codes,
                                            uint32_t arrival, int n_blocks, int n_threads) {
  const int shift = log2_of(columns), stride = slab_stride<kDim>(columns);
  const int total = (n_vectors + kAtOnce - 1) / kAtOnce * columns;
  if (kDim > 0) head_dim = kDim;
#pragma unroll 1
  for (int base = threadIdx.x & ~(kWarp - 1); base < total; base += n_threads) {
    const int at = base + threadIdx.x % kWarp;
    const int v = (at >> shift) * kAtOnce;
    const float* xs[kAtOnce];
    float sum[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      xs[j] = x + min(v + j, n_vectors - 1) * vector_stride(head_dim);
      sum[j] = 0.0f;
    }
    const float* wc = slab + (at & (columns - 1));
#pragma unroll 8
    for (int i = 0; i < head_dim; i += 4) {
      float w[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) w[e] = wc[(i + e) * stride];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const float4 x4 = *reinterpret_cast<const float4*>(xs[j] + i);
        sum[j] = __fmaf_rn(x4.x, w[0], sum[j]);
        sum[j] = __fmaf_rn(x4.y, w[1], sum[j]);
        sum[j] = __fmaf_rn(x4.z, w[2], sum[j]);
        sum[j] = __fmaf_rn(x4.w, w[3], sum[j]);
      }
    }
    unsigned bits[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) bits[j] = __ballot_sync(kAll, sum[j] > 0.0f);
    // The warp has 32 columns of three vectors, or fewer columns of several threes. A lane sends
    // what one block gets of one vector.
    const int width = min(columns, kWarp), threes = kWarp >> log2_of(width);
    const int base_vector = (base >> shift) * kAtOnce;
    const int base_column = first + (base & (columns - 1));
    const int part = base_column >> log2_of(width);
#pragma unroll 1
    for (int i = threadIdx.x % kWarp; i < threes * kAtOnce * n_blocks; i += kWarp) {
      const int of_warp = i >> log2_of(n_blocks), three = of_warp / kAtOnce;
      const int j = of_warp - three * kAtOnce, to = base_vector + of_warp;
      unsigned word = bits[0];
#pragma unroll
      for (int k = 1; k < kAtOnce; ++k) word = j == k ? bits[k] : word;
      word >>= three * width;
      const int rank = i & (n_blocks - 1);
      send(to < n_vectors, peer_address(codes + (to * kCodeParts + part) * 4, rank),
           width == kWarp ? word : word & ((1u << width) - 1), peer_address(arrival, rank),
           n_blocks == 1);
    }
  }
}

/// What scoring needs of the group's codes: the codes, joined of their parts, and for the rule of
/// sums (kSums) bit planes. The sum over the group of popcount(query xor key) is, with c of the
/// group's queries having bit i set, m = whether these are most of them and t = |group - 2 c|:
/// sum_i min(c, group - c) + sum_i t_i [key_i != m_i], and t is the sum of a few bit planes:
/// 2 popcounts a word for a group of 4, not 4.
/// Called by whole warps, one a word; lane v has the word of vector v. `width`: columns of a part.
template <bool kSums, int kWords>
__device__ __forceinline__ void finish_codes(Codes<kWords>& codes, int n_vectors, int group,
                                             int width) {
  static_assert(kMaxGroup < kWarp);
  const int warp = warp_index(), lane = threadIdx.x % kWarp;
  if (warp >= kWords) return;
  uint32_t word = 0;
  if (lane < n_vectors) {
    const int shift = log2_of(kWarp) - log2_of(width);
#pragma unroll 1
    for (int i = 0; i < 1 << shift; ++i) {
      word |= codes.parts[lane][(warp << shift) + i] << (i * width);
    }
    codes.vectors[lane][warp] = word;
  }
  if (!kSums) return;
  int c = 0;
#pragma unroll 4
  for (int g = 0; g < group; ++g) c += __shfl_sync(kAll, word, g) >> lane & 1;
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
