// Attention by many blocks for each row and KV head, a part of its keys each (flash decoding): to
// listed cells, or to all valid ones (dense attention). The block that comes last merges the parts.
#pragma once

#include "attend.cuh"
#include "quantised.cuh"

namespace hata::cuda {

constexpr int kSplitThreads = kSplitWarps * kWarp;

/// Tiles under way per warp: as many bytes as fit, with one block a multiprocessor.
template <int kDim>
constexpr int kSplitStages = kDim <= 128 ? 3 : 1;

/// How a warp's rows come, by the type of the cache, and what they are once they are there.
template <class T, int kDim, bool kBulk>
struct SplitRows {
  using Element = T;
  using Copies = TileCopies<kDim, kSplitStages<kDim>, kBulk>;
};
template <int kDim, bool kBulk>
struct SplitRows<Q8, kDim, kBulk> {
  using Element = __half;
  using Copies = QuantisedCopies<kDim, kDim <= 128 ? 2 : 1>;
};

template <class T, int kDim>
constexpr int kSplitBytes = kSplitWarps* SplitRows<T, kDim, true>::Copies::kBytes;

/// Last keys get their codes while others attend: a dense step keeps the codes up to date. A warp
/// makes a word of a code, so that a block has several rows and KV heads at a time; block `at` of
/// p.encoders takes every so manieth. x: kSplitWarps times 2 head_dim floats of shared memory.
static __device__ __noinline__ void encode_last_keys(const StepParams& p, int at, float* x) {
  constexpr int kAtOnce = 64;  // elements of W under way
  const int d = p.head_dim, words = p.rbit / kWarp, lane = threadIdx.x % kWarp;
  const int warp = warp_index(), word = warp & (words - 1);
  const int shift = log2_of(kSplitWarps / words);  // of how many at a time
  float* own = x + warp * 2 * d;                   // the key less the mean, and the key
#pragma unroll 1
  for (int pair = (at << shift) + warp / words; pair < p.n_rows * p.n_kv_heads;
       pair += p.encoders << shift) {
    const int row = pair / p.n_kv_heads, head = pair - row * p.n_kv_heads;
    const float* column =
        p.projection.keys + static_cast<int64_t>(head) * d * p.rbit + word * kWarp + lane;
    float weights[kAtOnce];
    const auto load = [&](int first) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        weights[i] = first + i < d ? column[static_cast<int64_t>(first + i) * p.rbit] : 0.0f;
      }
    };
    load(0);
    const int n_kv = p.n_kv != nullptr ? p.n_kv[row] : p.max_n_kv;
    if (n_kv <= 0) continue;
    const Cells cells(p, p.sequences != nullptr ? p.sequences[row] : row, head);
    const std::byte* key = cells.key(n_kv - 1);
    const int64_t slot = cells.slot(n_kv - 1);
    const float* mean = p.projection.key_means;
#pragma unroll 4
    for (int i = lane; i < d; i += kWarp) {
      const float v = element(key, p.cache.type, i);
      own[i] = mean != nullptr ? __fsub_rn(v, mean[head * d + i]) : v;
      own[d + i] = v;
    }
    __syncwarp();
    float sum = 0.0f;
#pragma unroll 1
    for (int first = 0; first < d; first += kAtOnce) {
      if (first > 0) load(first);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i < d) sum = __fmaf_rn(own[first + i], weights[i], sum);
      }
    }
    const unsigned bits = __ballot_sync(kAll, sum > 0.0f);
    if (lane == 0) p.codes.codes[slot * words + word] = bits;
    if (p.codes.lengths != nullptr && word == words - 1) {
      const float norm2 = norm2_of(d, lane % 16, [&](int i) { return own[d + i]; });
      if (lane == 0) {
        store_length(p.codes.lengths, slot, length_of(norm2, p.projection.inv_units[head]));
      }
    }
    __syncwarp();
  }
}

/// grid: n_rows * n_kv_heads * p.splits, and p.encoders.
template <class T, int kDim, int kHeadTiles, bool kBulk>
__global__ void __launch_bounds__(kSplitThreads, 1)
    split_kernel(const __grid_constant__ StepParams p) {
  extern __shared__ __align__(128) std::byte memory[];
  __shared__ float2 ml[kSplitWarps][8 * kHeadTiles];
  __shared__ float scales[kSplitWarps][8 * kHeadTiles];
  __shared__ Common common[8 * kHeadTiles];
  __shared__ float queries[8 * kHeadTiles * vector_stride(kDim)];
  __shared__ bool is_last;
  const auto divided = [](int n, int by, uint32_t inverse) {  // fewer blocks than 2^32 / by
    return by > 1 ? static_cast<int>(__umulhi(n, inverse)) : n;
  };
  const int block = blockIdx.x, pair_index = divided(block, p.splits, p.splits_inverse);
  const int own_part = block - pair_index * p.splits;
  const int row = divided(pair_index, p.n_kv_heads, p.heads_inverse);
  const int head = pair_index - row * p.n_kv_heads;
  const int64_t pair = pair_index;
  const int warp = warp_index(), lane = threadIdx.x % kWarp;
  wait_for_previous();
  let_next_start();
  if (row >= p.n_rows) {
    encode_last_keys(p, block - p.n_rows * p.n_kv_heads * p.splits,
                     reinterpret_cast<float*>(memory));
    return;
  }
  const int sequence = p.sequences != nullptr ? p.sequences[row] : row;
  const int n_kv = p.n_kv != nullptr ? p.n_kv[row] : p.max_n_kv;
  const Cells cells(p, sequence, head);
  const int32_t* list = p.lists != nullptr ? p.lists + pair * p.list_stride : nullptr;
  const int n_keys = list == nullptr            ? n_kv
                     : p.list_counts != nullptr ? p.list_counts[pair]
                                                : p.budget;
  const uint32_t* valid =
      list == nullptr && p.valid != nullptr ? p.valid + row * p.bit_stride : nullptr;

  // Whole tiles for all warps, so that parts differ by as little as can be.
  const int tiles = (n_keys + kTileKeys - 1) / kTileKeys;
  const int each = tiles / p.splits, rest = tiles - each * p.splits;
  const int first = own_part * each + min(own_part, rest);
  const int n_tiles = each + (own_part < rest ? 1 : 0);
  const int first_key = first * kTileKeys, end_key = min(n_keys, (first + n_tiles) * kTileKeys);
  const auto cell_at = [&](int i) {
    const int at = first_key + i;
    if (at >= end_key) return -1;
    if (list != nullptr) return list[at];
    if (valid != nullptr && (valid[at / 32] >> (at % 32) & 1) == 0) return -1;
    return at;
  };
  using Copies = typename SplitRows<T, kDim, kBulk>::Copies;
  __shared__ uint64_t arrivals[kSplitWarps][Copies::kArrivals];
  std::byte* buffer = memory + warp * Copies::kBytes;
  {
    const Copies copies{cells, shared_address(buffer), shared_address(&arrivals[warp][0])};
    copies.init();
    Queries<kSplitThreads, kDim, 8 * kHeadTiles> q;
    q.load(p, row, head);
    copies.begin_all(warp, kSplitWarps, n_tiles, cell_at);
    q.store(p, queries, vector_stride(kDim));
    __syncthreads();
    Attention<typename SplitRows<T, kDim, kBulk>::Element, kDim, kHeadTiles> attention;
    attention.begin(queries, vector_stride(kDim), p.group);
    attention.run(p, copies, row, head, warp, kSplitWarps, n_tiles, cell_at);
    attention.put(p.group, reinterpret_cast<float*>(buffer), &ml[warp][0].x);
  }
  __syncthreads();
  for (int g = warp; g < p.group; g += kSplitWarps) {
    const Common c = common_of(kSplitWarps, [&](int w) { return ml[w][g]; });
    const float base = c.max == -INFINITY ? 0.0f : c.max;
    if (lane < kSplitWarps) scales[lane][g] = exp2f(ml[lane][g].x - base);
    if (lane == 0) common[g] = c;
  }
  __syncthreads();
  float* parts = p.partial + pair * p.splits * p.group * kDim;
  auto* part_ml = reinterpret_cast<float2*>(p.partial_ml) + pair * p.splits * p.group;
#pragma unroll 1
  for (int i = threadIdx.x; i < p.group * kDim; i += kSplitThreads) {
    const int g = i / kDim, at = g * kHeadStride<kDim> + i % kDim;
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kSplitWarps; ++w) {
      const auto* part = reinterpret_cast<const float*>(memory + w * Copies::kBytes);
      sum += scales[w][g] * part[at];
    }
    if (p.splits == 1) {
      const int q_head = head * p.group + g;
      store_out(p, row, q_head, i % kDim, sum * normaliser(p, q_head, common[g]));
    } else {
      parts[static_cast<int64_t>(own_part) * p.group * kDim + i] = sum;
      if (i % kDim == 0) {
        part_ml[own_part * p.group + g] = make_float2(common[g].max, common[g].sum);
      }
    }
  }
  if (p.splits == 1) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned arrived = atomicAdd(p.arrivals + pair, 1u);
    is_last = arrived == static_cast<unsigned>(p.splits) - 1;
    if (is_last) p.arrivals[pair] = 0;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  auto* factors = reinterpret_cast<float*>(memory);  // [split][group]
  for (int g = warp; g < p.group; g += kSplitWarps) {
    const Common c = common_of(p.splits, [&](int i) { return __ldcg(part_ml + i * p.group + g); });
    const float base = c.max == -INFINITY ? 0.0f : c.max;
    const float scale = normaliser(p, head * p.group + g, c);
    for (int i = lane; i < p.splits; i += kWarp) {
      factors[i * p.group + g] = scale * exp2f(__ldcg(&part_ml[i * p.group + g].x) - base);
    }
  }
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < p.group * kDim / 2; i += kSplitThreads) {
    const int g = i / (kDim / 2);
    float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll 16
    for (int part = 0; part < p.splits; ++part) {
      const float2 v = __ldcg(
          reinterpret_cast<const float2*>(parts + static_cast<int64_t>(part) * p.group * kDim) + i);
      const float factor = factors[part * p.group + g];
      sum.x += factor * v.x, sum.y += factor * v.y;
    }
    const int q_head = head * p.group + g, at = i % (kDim / 2) * 2;
    store_out(p, row, q_head, at, sum.x);
    store_out(p, row, q_head, at + 1, sum.y);
  }
}

}  // namespace hata::cuda
