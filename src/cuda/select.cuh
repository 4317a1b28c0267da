// Stage 3 on the GPU, by a cluster of blocks: the k best bins, exactly, ties to the lowest cell.
// Scores are never written to memory. A first sample of the keys gives a cut that k keys will very
// likely exceed; only keys above it are counted and kept as candidates. The histogram over all
// blocks then gives the exact threshold. If the cut was too high, or candidates too many, the codes
// are read once more: slower, as exact.
#pragma once

#include "score.cuh"

namespace hata::cuda {

constexpr int kStepThreads = kStepWarps * kWarp;
constexpr int kIndexBits = 19;  ///< of a candidate: cells of a block; the bin lies above them
constexpr int kMaxTies = 2048;  ///< that are ranked among each other

/// Where the threshold lies in a histogram over all blocks of the cluster.
struct Threshold {
  int bin;    ///< the highest bin at or above which there are at least as many as wanted; else 0
  int above;  ///< keys in higher bins, of all blocks
  int at;     ///< keys in this bin, of all blocks
};

struct SelectScratch {
  int warp_sums[kStepWarps];
  Threshold threshold;
  int all;  ///< keys in the histogram
  int before_above, before_at, own_above, own_at;
  int warp_above[kStepWarps], warp_at[kStepWarps];
};

/// Finds the bin that the `wanted`-th best key lies in. `hist`: n_bins counts in the shared memory of
/// every block, complete; `totals`: room for the sums. All threads; ends with a block barrier.
__device__ __forceinline__ Threshold find_threshold(const int* hist, int* totals, int n_bins,
                                                    int lowest, int wanted, int n_blocks,
                                                    SelectScratch& s) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int n_groups = n_bins / 4;
  const int each = (n_groups + kStepThreads - 1) / kStepThreads;
  // Thread 0 has the highest bins.
  const int end = n_groups - static_cast<int>(threadIdx.x) * each;
  const int begin = max(max(0, lowest / 4), end - each);
  int sum = 0;
  for (int group = end - 1; group >= begin; --group) {
    const uint32_t at = shared_address(hist + 4 * group);
    uint4 total = make_uint4(0, 0, 0, 0);
    for (int rank = 0; rank < n_blocks; ++rank) {
      const uint4 v = load_peer4(peer_address(at, rank));
      total.x += v.x, total.y += v.y, total.z += v.z, total.w += v.w;
    }
    reinterpret_cast<uint4*>(totals)[group] = total;
    sum += static_cast<int>(total.x + total.y + total.z + total.w);
  }
  int inclusive = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int v = __shfl_up_sync(kAll, inclusive, step);
    if (lane >= step) inclusive += v;
  }
  if (lane == kWarp - 1) s.warp_sums[warp] = inclusive;
  if (threadIdx.x == 0) s.threshold = {0, 0, 0};
  __syncthreads();
  int before = inclusive - sum, all = 0;
#pragma unroll
  for (int w = 0; w < kStepWarps; ++w) {
    const int v = s.warp_sums[w];
    if (w < warp) before += v;
    all += v;
  }
  if (threadIdx.x == 0) s.all = all;
  const bool enough = all >= wanted;
  if (enough && before < wanted && before + sum >= wanted) {
    int above = before;
    for (int bin = 4 * end - 1;; --bin) {
      const int at = totals[bin];
      if (above + at >= wanted) {
        s.threshold = {bin, above, at};
        break;
      }
      above += at;
    }
  }
  if (!enough && begin == 0 && end > 0) {  // all keys: those of bin 0 are the last
    s.threshold = {0, all - totals[0], totals[0]};
  }
  __syncthreads();
  return s.threshold;
}

/// Of this block and of those before it: how many keys lie above the threshold and at it.
__device__ __forceinline__ void count_shares(const int* hist, int n_bins, const Threshold& t,
                                             int rank, SelectScratch& s) {
  const int lane = threadIdx.x % kWarp;
  if (threadIdx.x == 0) s.before_above = s.before_at = s.own_above = s.own_at = 0;
  __syncthreads();
  int before_above = 0, own_above = 0;
  for (int group = t.bin / 4 + threadIdx.x; group < n_bins / 4; group += kStepThreads) {
    const uint32_t at = shared_address(hist + 4 * group);
    for (int r = 0; r <= rank; ++r) {
      const uint4 v = load_peer4(peer_address(at, r));
      const uint32_t count[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = static_cast<int>(count[i]);
        if (4 * group + i > t.bin) {
          (r < rank ? before_above : own_above) += n;
        } else if (4 * group + i == t.bin) {
          if (r < rank) {
            atomicAdd(&s.before_at, n);
          } else {
            s.own_at = n;
          }
        }
      }
    }
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    before_above += __shfl_xor_sync(kAll, before_above, step);
    own_above += __shfl_xor_sync(kAll, own_above, step);
  }
  if (lane == 0 && (before_above != 0 || own_above != 0)) {
    atomicAdd(&s.before_above, before_above);
    atomicAdd(&s.own_above, own_above);
  }
  __syncthreads();
}

/// What a block scores: its range of pieces of 128 cells, shared among its warps so that neighbouring
/// pieces go to different warps, and the first round of all warps is a sample of the whole range.
struct Pieces {
  int first, count, rounds;

  __device__ __forceinline__ Pieces(int n_kv, int rank, int n_blocks) {
    const int all = (n_kv + kPiece - 1) / kPiece;
    first = static_cast<int>(static_cast<int64_t>(all) * rank / n_blocks);
    count = static_cast<int>(static_cast<int64_t>(all) * (rank + 1) / n_blocks) - first;
    rounds = (count + kStepWarps - 1) / kStepWarps;
  }
  /// Pieces in the first round of all blocks, about; never too many.
  static __device__ __forceinline__ int sampled(int n_pieces, int n_blocks) {
    const int each = max(1, n_pieces / n_blocks);
    const int rounds = (each + kStepWarps - 1) / kStepWarps;
    return min(n_pieces, (each + rounds - 1) / rounds * n_blocks);
  }
  /// Offset of the warp's piece of a round from the first; not below `count`: none.
  __device__ __forceinline__ int of(int round, int warp) const {
    const int segment = (warp + round) % kStepWarps;
    return round < rounds ? segment * rounds + round : count;
  }
};

}  // namespace hata::cuda
