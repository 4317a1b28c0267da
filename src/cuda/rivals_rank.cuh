// What Quest and Loki share on the GPU: a dot product of every stored row (a page's bounds, a key's
// channels) with one vector per row and KV head, and the exact top-k of the scores.
//
// Scores are bound by reading the rows: a warp has 8 loads of 16 bytes a lane in flight (4 KB), and
// sums 8 rows at once by halving (a transpose and a sum in one), which costs a quarter of what a
// sum per row does. The top-k is a radix select over 11 + 11 + 10 bits of scores that stay in
// shared memory, by one cluster of thread blocks per (row, KV head): histograms are added up
// through distributed shared memory, and it ends early where the bucket holds just what is left to
// take. No score or count goes through global memory when both run in one kernel.
#pragma once

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cuda/attend_lists.h"
#include "cuda/rivals.h"

namespace hata::cuda::rivals {

namespace cg = cooperative_groups;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 2048;
constexpr int kPasses = 3;
constexpr int kMaxCluster = 8;
constexpr int kMaxWeights = 256;
constexpr int kMaxHeadDim = 128;
constexpr int kLokiChannels = 32;
/// Scores that one block keeps; with the rest of the shared memory just below 227 KB.
constexpr int kMaxScores = 48 * 1024;

struct Args {
  hata_cuda_cache cache;
  const void* q;
  hata_cuda_type q_type;
  int64_t q_row_stride, q_head_stride;
  const int32_t* sequences;
  const int32_t* n_kv;
  const int32_t* budgets;
  int max_n_kv, budget, sink, recent, encode_last;
  int n_kv_heads, group, head_dim;
  void* store;
  int64_t store_capacity;  ///< rows of a sequence and KV head
  const float* basis;
  int page;  ///< cells of a stored row
  uint32_t* scores;
  int64_t score_stride;
  int32_t* lists;
  int32_t* counts;
  int64_t list_capacity;
};

/// What is the same for all threads of a block.
struct Segment {
  int row, head, sequence;
  int n;       ///< cells
  int n_pool;  ///< stored rows to rank
  int k;       ///< how many of them are wanted
};

// --- small things -----------------------------------------------------------------------------

template <class T>
__device__ inline float2 widen(uint32_t pair);
template <>
__device__ inline float2 widen<__half>(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}
template <>
__device__ inline float2 widen<__nv_bfloat16>(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

template <class T>
__device__ inline T narrow(float x);
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

__device__ inline float widen_one(__half x) { return __half2float(x); }
__device__ inline float widen_one(__nv_bfloat16 x) { return __bfloat162float(x); }

/// Read once, so it need not stay in L1. Not the read-only path: the block may have written it.
__device__ inline uint4 load_16(const void* p) {
  uint4 x;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(p)
               : "memory");
  return x;
}

/// Larger scores, larger numbers. All ones stands for "always".
constexpr uint32_t kAlways = 0xffffffffu;
__device__ inline uint32_t ordered(float score) {
  const int bits = __float_as_int(score);
  return static_cast<uint32_t>(bits ^ ((bits >> 31) | static_cast<int>(0x80000000u)));
}

__device__ inline float load_q(const Args& a, int row, int q_head, int i) {
  const int64_t at = row * a.q_row_stride + q_head * a.q_head_stride + i;
  switch (a.q_type) {
    case HATA_CUDA_F16:
      return __half2float(static_cast<const __half*>(a.q)[at]);
    case HATA_CUDA_BF16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(a.q)[at]);
    default:
      return static_cast<const float*>(a.q)[at];
  }
}

template <class T>
__device__ inline const T* key_of(const Args& a, int sequence, int cell, int head) {
  const hata_cuda_cache& c = a.cache;
  const char* base = static_cast<const char*>(c.keys) + head * c.head_stride;
  if (c.block_table == nullptr) {
    return reinterpret_cast<const T*>(base + sequence * c.seq_stride + cell * c.cell_stride);
  }
  const int64_t page = c.block_table[sequence * c.table_stride + cell / c.page_size];
  return reinterpret_cast<const T*>(base + page * c.page_stride +
                                    cell % c.page_size * c.cell_stride);
}

__device__ inline bool forced(const Args& a, const Segment& s, int index) {
  return index * a.page < a.sink || (index + 1) * a.page > s.n - a.recent;
}

/// The block's stored rows of a segment: ceil(n_pool / blocks), a multiple of 64.
__device__ inline int2 part_of(const Segment& s, int rank, int blocks) {
  const int part = ((s.n_pool + blocks - 1) / blocks + 63) / 64 * 64;
  const int begin = min(rank * part, s.n_pool);
  return {begin, min(begin + part, s.n_pool)};
}

template <class Method>
__device__ inline Segment segment_of(const Args& a, int index) {
  Segment s;
  s.row = index / a.n_kv_heads;
  s.head = index % a.n_kv_heads;
  s.sequence = a.sequences != nullptr ? a.sequences[s.row] : s.row;
  s.n = a.n_kv != nullptr ? a.n_kv[s.row] : a.max_n_kv;
  const int budget = a.budgets != nullptr ? a.budgets[s.row] : a.budget;
  Method::count(a, budget, s);
  return s;
}

// --- the two methods --------------------------------------------------------------------------
// kLanes: lanes of 16 bytes that a stored row takes. count(): fills n_pool and k. Update: writes
// what the step's new key changes, and fills the vector; begin() .. end() are called by all threads
// of a block, end() after the scores. `owner`: whether this block does the writing.

template <class T, int kHeadDim>
struct Quest {
  using Type = T;
  static constexpr int kLanes = 2 * kHeadDim / 8;

  // The newest page is always chosen, so it is not ranked.
  static __device__ void count(const Args& a, int budget, Segment& s) {
    s.n_pool = max(0, (s.n + a.page - 1) / a.page - 1);
    s.k = min(max(1, budget / a.page) - 1, s.n_pool);
  }
  static __device__ bool owns(const Segment&, int rank, int2) { return rank == 0; }

  struct Update {
    uint4 key, bounds;
    uint4* at;

    __device__ void begin(const Args& a, const Segment& s, bool owner, float* weights) {
      const int tid = static_cast<int>(threadIdx.x);
      at = nullptr;
      if (owner && a.encode_last != 0 && tid < kLanes) {
        const int page = (s.n - 1) / a.page;
        at =
            static_cast<uint4*>(a.store) +
            ((static_cast<int64_t>(s.sequence) * a.n_kv_heads + s.head) * a.store_capacity + page) *
                kLanes +
            tid;
        const T* row = key_of<T>(a, s.sequence, s.n - 1, s.head);
        key = load_16(row + tid % (kLanes / 2) * 8);
        bounds = (s.n - 1) % a.page == 0 ? key : load_16(at);
      }
      if (tid < kHeadDim) {
        float below = 0.0f;
        float above = 0.0f;
        for (int g = 0; g < a.group; ++g) {
          const float x = load_q(a, s.row, s.head * a.group + g, tid);
          below += fminf(x, 0.0f);
          above += fmaxf(x, 0.0f);
        }
        weights[tid] = below;
        weights[kHeadDim + tid] = above;
      }
    }
    __device__ void end() {
      if (at == nullptr) return;
      const bool largest = threadIdx.x >= kLanes / 2;
      uint32_t* b = &bounds.x;
      const uint32_t* k = &key.x;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 was = widen<T>(b[i]);
        const float2 is = widen<T>(k[i]);
        const bool low = largest ? is.x > was.x : is.x < was.x;
        const bool high = largest ? is.y > was.y : is.y < was.y;
        b[i] = (low ? k[i] & 0xffffu : b[i] & 0xffffu) |
               (high ? k[i] & 0xffff0000u : b[i] & 0xffff0000u);
      }
      *at = bounds;
    }
  };
};

template <class T>
struct Loki {
  using Type = T;
  static constexpr int kLanes = kLokiChannels / 8;

  static __device__ void count(const Args&, int budget, Segment& s) {
    s.n_pool = s.n;
    s.k = min(max(budget, 0), s.n);
  }
  static __device__ bool owns(const Segment& s, int, int2 part) {
    return part.x <= s.n - 1 && s.n - 1 < part.y;
  }

  struct Update {
    // 16 parts of the head's dimensions by 32 channels; the basis is asked for before q arrives.
    __device__ void begin(const Args& a, const Segment& s, bool owner, float* weights) {
      constexpr int kRows = kMaxHeadDim / kWarps;
      __shared__ float x[2][kMaxHeadDim];
      __shared__ float sums[2][kWarps][kLokiChannels];
      const int tid = static_cast<int>(threadIdx.x);
      const int lane = tid % 32;
      const int warp = tid / 32;
      const bool writes = owner && a.encode_last != 0;
      float basis[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int at = warp * kRows + i;
        basis[i] =
            at < a.head_dim
                ? a.basis[(static_cast<int64_t>(s.head) * a.head_dim + at) * kLokiChannels + lane]
                : 0.0f;
      }
      if (tid < kMaxHeadDim) {
        float sum = 0.0f;
        if (tid < a.head_dim) {
          for (int g = 0; g < a.group; ++g) sum += load_q(a, s.row, s.head * a.group + g, tid);
        }
        x[0][tid] = sum;
      } else if (tid < 2 * kMaxHeadDim) {
        const int i = tid - kMaxHeadDim;
        x[1][i] = writes && i < a.head_dim ? widen_one(key_of<T>(a, s.sequence, s.n - 1, s.head)[i])
                                           : 0.0f;
      }
      __syncthreads();
      float of_q = 0.0f;
      float of_k = 0.0f;
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        of_q += x[0][warp * kRows + i] * basis[i];
        of_k += x[1][warp * kRows + i] * basis[i];
      }
      sums[0][warp][lane] = of_q;
      sums[1][warp][lane] = of_k;
      __syncthreads();
      if (warp < 2) {
        float sum = 0.0f;
        for (int i = 0; i < kWarps; ++i) sum += sums[warp][i][lane];
        if (warp == 0) {
          weights[lane] = sum;
        } else if (writes) {
          static_cast<T*>(a.store)[((static_cast<int64_t>(s.sequence) * a.n_kv_heads + s.head) *
                                        a.store_capacity +
                                    s.n - 1) *
                                       kLokiChannels +
                                   lane] = narrow<T>(sum);
        }
      }
    }
    __device__ void end() {}
  };
};

// --- scores -----------------------------------------------------------------------------------

/// put(row, score) for the stored rows begin .. end - 1, shared among the block's warps.
template <class Method, class Put>
__device__ inline void score_rows(const Args& a, const Segment& s, const float* weights, int begin,
                                  int end, Put&& put) {
  using T = typename Method::Type;
  constexpr int kLanes = Method::kLanes;
  constexpr int kAtOnce = 32 / kLanes;  // rows of one load
  constexpr int kLoads = 8;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const uint4* rows =
      static_cast<const uint4*>(a.store) +
      (static_cast<int64_t>(s.sequence) * a.n_kv_heads + s.head) * a.store_capacity * kLanes +
      lane % kLanes;
  float w[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) w[i] = weights[lane % kLanes * 8 + i];

  for (int first = begin + warp * kAtOnce * kLoads; first < end;
       first += kWarps * kAtOnce * kLoads) {
    uint4 x[kLoads];
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      x[u] = load_16(rows + min(first + u * kAtOnce + lane / kLanes, end - 1) * kLanes);
    }
    float sum[kLoads];
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const float2 p0 = widen<T>(x[u].x);
      const float2 p1 = widen<T>(x[u].y);
      const float2 p2 = widen<T>(x[u].z);
      const float2 p3 = widen<T>(x[u].w);
      sum[u] = p0.x * w[0] + p0.y * w[1] + p1.x * w[2] + p1.y * w[3] + p2.x * w[4] + p2.y * w[5] +
               p3.x * w[6] + p3.y * w[7];
    }
    // Halves: a lane keeps the rows of its half and hands over those of the other.
    int held = kLoads;
    int row = 0;
    bool writes = true;
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) {
      const bool upper = (lane & step) != 0;
      if (held > 1) {
        held /= 2;
        row += upper ? held : 0;
#pragma unroll
        for (int i = 0; i < kLoads / 2; ++i) {
          if (i >= held) break;
          const float other = upper ? sum[i] : sum[i + held];
          const float mine = upper ? sum[i + held] : sum[i];
          sum[i] = mine + __shfl_xor_sync(0xffffffffu, other, step);
        }
      } else {
        sum[0] += __shfl_xor_sync(0xffffffffu, sum[0], step);
        writes = writes && !upper;
      }
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      if (i >= held) break;
      const int at = first + (row + i) * kAtOnce + lane / kLanes;
      if (writes && at < end) put(at, sum[i]);
    }
  }
}

// --- selection --------------------------------------------------------------------------------

struct SelectShared {
  alignas(16) uint32_t bins[kPasses][kBins];
  float weights[kMaxWeights];
  int warp_all[kWarps], warp_own[kWarps];
  int cut_bin, cut_above, cut_count, cut_own_above, cut_own_count;
  int taken_above, taken_equal;  ///< of rank 0: what the cluster's blocks have claimed
  int claim_above, claim_equal, next_above, next_equal;
};

/// Writes the cells of stored row `index` to place `slot` of the list.
__device__ inline void emit(const Args& a, int32_t* list, int slot, int index) {
  if (a.page == 1) {
    list[slot] = index;
    return;
  }
  int4* to = reinterpret_cast<int4*>(list + slot * a.page);
  for (int i = 0; i < a.page; i += 4) {
    const int cell = index * a.page + i;
    to[i / 4] = {cell, cell + 1, cell + 2, cell + 3};
  }
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
/// The k largest of the cluster's keys, whose first histogram is in place (not yet synchronised);
/// `keys` are those of stored rows begin .. end - 1. 0 < k < n_pool.
__device__ inline void select_rows(const Args& a, const Segment& s, const uint32_t* keys, int begin,
                                   int end, SelectShared& shared, int32_t* list) {
  cg::cluster_group cluster = cg::this_cluster();
  const int tid = static_cast<int>(threadIdx.x);
  const int lane = tid % 32;
  const int warp = tid / 32;
  const int n = end - begin;
  const int n_blocks = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());

  int left = s.k;
  uint32_t prefix = 0;
  int shift = 32;
  int own_above = 0;
  int own_equal = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const int bits = pass < 2 ? 11 : 10;
    if (pass > 0) {
      const int digit_shift = shift - bits;
#pragma unroll 4
      for (int i = tid; i < n; i += kThreads) {
        const uint32_t key = keys[i];
        if (key >> shift == prefix) {
          atomicAdd(&shared.bins[pass][key >> digit_shift & ((1u << bits) - 1)], 1u);
        }
      }
    }
    shift -= bits;
    cluster.sync();

    // Four bins a thread, of all blocks and of this one; then what lies above them.
    uint4 all = {0, 0, 0, 0};
    uint4 own = reinterpret_cast<const uint4*>(shared.bins[pass])[tid];
    for (int i = 0; i < n_blocks; ++i) {
      const int from = (rank + i) % n_blocks;
      const uint32_t* bins =
          from == rank ? shared.bins[pass] : cluster.map_shared_rank(shared.bins[pass], from);
      const uint4 x = reinterpret_cast<const uint4*>(bins)[tid];
      all.x += x.x;
      all.y += x.y;
      all.z += x.z;
      all.w += x.w;
    }
    const int sum_all = static_cast<int>(all.x + all.y + all.z + all.w);
    const int sum_own = static_cast<int>(own.x + own.y + own.z + own.w);
    int from_all = sum_all;
    int from_own = sum_own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int more_all = __shfl_down_sync(0xffffffffu, from_all, step);
      const int more_own = __shfl_down_sync(0xffffffffu, from_own, step);
      if (lane + step < 32) {
        from_all += more_all;
        from_own += more_own;
      }
    }
    if (lane == 0) {
      shared.warp_all[warp] = from_all;
      shared.warp_own[warp] = from_own;
    }
    __syncthreads();
    const bool counts = lane > warp && lane < kWarps;
    int above = from_all - sum_all +
                static_cast<int>(__reduce_add_sync(
                    0xffffffffu, counts ? static_cast<unsigned>(shared.warp_all[lane]) : 0u));
    int above_own = from_own - sum_own +
                    static_cast<int>(__reduce_add_sync(
                        0xffffffffu, counts ? static_cast<unsigned>(shared.warp_own[lane]) : 0u));
    if (above < left && above + sum_all >= left) {
      const uint32_t of_all[4] = {all.x, all.y, all.z, all.w};
      const uint32_t of_own[4] = {own.x, own.y, own.z, own.w};
#pragma unroll
      for (int j = 3; j >= 0; --j) {
        const int count = static_cast<int>(of_all[j]);
        if (above < left && above + count >= left) {
          shared.cut_bin = tid * 4 + j;
          shared.cut_above = above;
          shared.cut_count = count;
          shared.cut_own_above = above_own;
          shared.cut_own_count = static_cast<int>(of_own[j]);
        }
        above += count;
        above_own += static_cast<int>(of_own[j]);
      }
    }
    __syncthreads();
    prefix = prefix << bits | static_cast<uint32_t>(shared.cut_bin);
    left -= shared.cut_above;
    own_above += shared.cut_own_above;
    own_equal = shared.cut_own_count;
    if (shared.cut_count == left) break;
  }

  // Above the cut all are taken, at it the first `left` that are claimed.
  if (tid == 0) {
    SelectShared* first = cluster.map_shared_rank(&shared, 0);
    shared.claim_above = own_above > 0 ? atomicAdd(&first->taken_above, own_above) : 0;
    shared.claim_equal = own_equal > 0 ? atomicAdd(&first->taken_equal, own_equal) : 0;
  }
  __syncthreads();
  const int n_above = s.k - left;
  const int base_above = shared.claim_above;
  const int base_equal = shared.claim_equal;
#pragma unroll 4
  for (int first = warp * 32; first < n; first += kThreads) {
    const int i = first + lane;
    const uint32_t head = i < n ? keys[i] >> shift : 0;
    if (!__any_sync(0xffffffffu, i < n && head >= prefix)) continue;
    if (i < n && head >= prefix) {
      const bool is_above = head > prefix;
      const int at = atomicAdd(is_above ? &shared.next_above : &shared.next_equal, 1);
      if (is_above) {
        emit(a, list, base_above + at, begin + i);
      } else if (base_equal + at < left) {
        emit(a, list, n_above + base_equal + at, begin + i);
      }
    }
  }
  cluster.sync();  // others may still read this block's histograms and claims
}
#endif

// --- kernels ----------------------------------------------------------------------------------

/// Scores alone, to a.scores: blocks (part, segment).
template <class Method>
__global__ void __launch_bounds__(kThreads, 2) score_kernel(Args a) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  __shared__ float weights[kMaxWeights];
  const int index = static_cast<int>(blockIdx.y);
  const Segment s = segment_of<Method>(a, index);
  if (s.n <= 0) return;
  const int2 part = part_of(s, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  const bool owner = Method::owns(s, static_cast<int>(blockIdx.x), part);
  if (part.x >= part.y && !owner) return;
  typename Method::Update update;
  update.begin(a, s, owner, weights);
  __syncthreads();
  uint32_t* out = a.scores + index * a.score_stride;
  score_rows<Method>(a, s, weights, part.x, part.y, [&](int row, float score) {
    out[row] = forced(a, s, row) ? kAlways : ordered(score);
  });
  update.end();
#endif
}

/// Selection by one cluster per segment: of scores it computes (kFused) or that lie in a.scores;
/// `kept`: whether a block's share of those fits into its shared memory.
template <class Method, bool kFused>
__global__ void __launch_bounds__(kThreads, 2) select_kernel(Args a, bool kept) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(16) unsigned char memory[];
  SelectShared& shared = *reinterpret_cast<SelectShared*>(memory);
  uint32_t* own_keys = reinterpret_cast<uint32_t*>(memory + sizeof(SelectShared));
  cg::cluster_group cluster = cg::this_cluster();
  const int n_blocks = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());
  const int index = static_cast<int>(blockIdx.x) / n_blocks;
  const int tid = static_cast<int>(threadIdx.x);
  const Segment s = segment_of<Method>(a, index);
  int32_t* list = a.lists + index * a.list_capacity;

  for (int i = tid; i < kPasses * kBins / 4; i += kThreads) {
    reinterpret_cast<uint4*>(shared.bins)[i] = {0, 0, 0, 0};
  }
  if (tid == 0) {
    shared.taken_above = shared.taken_equal = 0;
    shared.next_above = shared.next_equal = 0;
  }
  if (s.n <= 0) {
    if (rank == 0 && tid == 0) a.counts[index] = 0;
    return;
  }
  const int2 part = part_of(s, rank, n_blocks);
  const bool ranks = s.k > 0 && s.k < s.n_pool;
  typename Method::Update update;
  if constexpr (kFused) update.begin(a, s, Method::owns(s, rank, part), shared.weights);
  __syncthreads();

  const uint32_t* keys = own_keys;
  if constexpr (kFused) {
    if (ranks) {
      score_rows<Method>(a, s, shared.weights, part.x, part.y, [&](int row, float score) {
        const uint32_t key = forced(a, s, row) ? kAlways : ordered(score);
        own_keys[row - part.x] = key;
        atomicAdd(&shared.bins[0][key >> 21], 1u);
      });
    }
    update.end();
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  } else {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (ranks) {
      const uint32_t* from = a.scores + index * a.score_stride + part.x;
      if (!kept) keys = from;
      for (int i = tid * 4; i < part.y - part.x; i += kThreads * 4) {
        const uint4 x = *reinterpret_cast<const uint4*>(from + i);  // the stride leaves room
        const uint32_t of[4] = {x.x, x.y, x.z, x.w};
        if (kept) *reinterpret_cast<uint4*>(own_keys + i) = x;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (i + j < part.y - part.x) atomicAdd(&shared.bins[0][of[j] >> 21], 1u);
        }
      }
    }
  }
  if (ranks) {
    select_rows(a, s, keys, part.x, part.y, shared, list);
  } else if (s.k > 0) {
    for (int i = part.x + tid; i < part.y; i += kThreads) emit(a, list, i, i);
  }
  if (rank != 0) return;
  int count = s.k;
  if (a.page > 1) {  // the newest page, as much of it as there is
    const int first = (s.n - 1) / a.page * a.page;
    if (tid < s.n - first) list[s.k * a.page + tid] = first + tid;
    count = s.k * a.page + s.n - first;
  }
  if (tid == 0) a.counts[index] = count;
#endif
}

// --- host -------------------------------------------------------------------------------------

struct Launch {
  int cluster;      ///< blocks that select for one segment
  int score_parts;  ///< blocks that score one segment, separate path
  int kept;         ///< scores a selecting block keeps; 0: they stay in memory
  bool fused;
};

/// `pool`: stored rows of a segment at most; `row_bytes`: of one.
inline Launch plan(int64_t segments, int64_t pool, int64_t row_bytes, RivalPath path) {
  constexpr int64_t kProcessors = 132;
  Launch l{};
  l.cluster = 1;
  while (l.cluster < kMaxCluster &&
         (segments * l.cluster * 4 < kProcessors * 3 || pool > int64_t{kMaxScores} * l.cluster)) {
    l.cluster *= 2;
  }
  const int64_t part = ((pool + l.cluster - 1) / l.cluster + 63) / 64 * 64;
  l.kept = part <= kMaxScores ? static_cast<int>(part) : 0;
  // Half of the processors read half as fast; that is worth a launch from some 8 MB on.
  const bool few = segments * l.cluster * 4 < kProcessors * 3;
  l.fused = path == RivalPath::fused ||
            (path == RivalPath::automatic && !(few && segments * pool * row_bytes > (8 << 20)));
  if (l.kept == 0) l.fused = false;
  const int64_t rows_of_block = (32 << 10) / row_bytes;  // 32 KB a block at least
  const int64_t most = std::max<int64_t>(1, (pool + rows_of_block - 1) / rows_of_block);
  l.score_parts =
      static_cast<int>(std::clamp<int64_t>((2 * kProcessors + segments - 1) / segments, 1, most));
  return l;
}

inline int64_t score_stride(int64_t pool) { return (pool + 63) / 64 * 64 + 64; }

inline hata_cuda_status status_of(cudaError_t error) {
  return error == cudaSuccess ? HATA_CUDA_OK : HATA_CUDA_FAILED;
}

template <class Method>
hata_cuda_status enqueue(const Args& a, int64_t segments, int64_t pool, RivalPath path,
                         cudaStream_t stream) {
  const Launch l = plan(segments, pool, Method::kLanes * 16, path);
  const size_t bytes = sizeof(SelectShared) + size_t{4} * static_cast<size_t>(l.kept);
  constexpr int kMost = static_cast<int>(sizeof(SelectShared)) + 4 * kMaxScores;
  auto* select = l.fused ? select_kernel<Method, true> : select_kernel<Method, false>;
  cudaError_t error =
      cudaFuncSetAttribute(select, cudaFuncAttributeMaxDynamicSharedMemorySize, kMost);
  if (error != cudaSuccess) return HATA_CUDA_FAILED;
  if (!l.fused) {
    const dim3 grid(static_cast<unsigned>(l.score_parts), static_cast<unsigned>(segments));
    score_kernel<Method><<<grid, kThreads, 0, stream>>>(a);
    error = cudaGetLastError();
    if (error != cudaSuccess) return HATA_CUDA_FAILED;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(segments * l.cluster));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(l.cluster);
  attributes[0].val.clusterDim.y = 1;
  attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  config.attrs = attributes;
  config.numAttrs = l.fused ? 1 : 2;
  return status_of(cudaLaunchKernelEx(&config, select, a, l.kept > 0));
}

/// What both methods read of a step.
inline Args args_of(const hata_cuda_step& step, int32_t* lists, int32_t* counts, int64_t capacity) {
  Args a{};
  a.cache = step.cache;
  a.q = step.q;
  a.q_type = step.q_type;
  a.q_row_stride = step.q_row_stride;
  a.q_head_stride = step.q_head_stride;
  a.sequences = step.sequences;
  a.n_kv = step.n_kv;
  a.budgets = step.budgets;
  a.max_n_kv = step.max_n_kv;
  a.budget = step.budget;
  a.sink = step.sink;
  a.recent = step.recent;
  a.encode_last = step.encode_last;
  a.n_kv_heads = step.shape.n_kv_heads;
  a.group = step.shape.n_q_heads / step.shape.n_kv_heads;
  a.head_dim = step.shape.head_dim;
  a.lists = lists;
  a.counts = counts;
  a.list_capacity = capacity;
  return a;
}

inline bool supported(const hata_cuda_step& step) {
  return step.valid == nullptr && step.forced == nullptr && step.n_rows > 0 &&
         step.shape.n_kv_heads > 0 && step.shape.n_q_heads % step.shape.n_kv_heads == 0 &&
         step.max_n_kv > 0 &&
         (step.cache.type == HATA_CUDA_F16 || step.cache.type == HATA_CUDA_BF16);
}

inline int64_t segments_of(const hata_cuda_step& step) {
  return int64_t{step.n_rows} * step.shape.n_kv_heads;
}

/// Cells of a list: whole pages of 32 that hold the budget, and one more for a budget of none.
inline int64_t list_capacity(const hata_cuda_step& step) {
  return (std::min<int64_t>(step.budget, step.max_n_kv) + 31) / 32 * 32 + 32;
}

inline size_t rounded(size_t bytes) { return (bytes + 255) / 256 * 256; }

/// Lists, counts, then scores.
struct Workspace {
  size_t lists, counts, scores;
  Workspace(const hata_cuda_step& step, int64_t pool) {
    const auto segments = static_cast<size_t>(segments_of(step));
    lists = rounded(segments * static_cast<size_t>(list_capacity(step)) * sizeof(int32_t));
    counts = rounded(segments * sizeof(int32_t));
    scores = rounded(segments * static_cast<size_t>(score_stride(pool)) * sizeof(uint32_t));
  }
  size_t size() const { return lists + counts + scores; }
};

}  // namespace hata::cuda::rivals
