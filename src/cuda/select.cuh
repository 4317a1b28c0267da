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
constexpr int kMostPieces = (1 << kIndexBits) / kPiece;

/// Where the threshold lies in a histogram over all blocks of the cluster.
struct Threshold {
  int bin;    ///< the highest bin at or above which there are at least as many as wanted; else 0
  int above;  ///< keys in higher bins, of all blocks
  int at;     ///< keys in this bin, of all blocks
};

struct SelectScratch {
  int warp_sums[kStepWarps];
  Threshold threshold;
  int all;                      ///< keys in the histogram
  int before_above, own_above;  ///< keys above the threshold: of the blocks before, of this one
  int before_at, own_at;        ///< keys at it
  int warp_above[kStepWarps], warp_at[kStepWarps];
};

/// Finds the bin that the `wanted`-th best key lies in; with `shares` also how many keys above it
/// and in it this block has, and those before it. `hist`: n_bins counts in the shared memory of
/// every block, complete, zero below the bin `lowest`; `totals`, `before`: room for sums over
/// blocks. All threads; ends with a block barrier. Out of line, as all that runs once or twice:
/// code is fetched more slowly than it runs.
static __device__ __noinline__ Threshold find_threshold(const int* hist, int* totals, int* before,
                                                        int n_bins, int lowest, int wanted,
                                                        int rank, int n_blocks, bool shares,
                                                        SelectScratch& s) {
  constexpr int kAtOnce = 8;  // loads from other blocks under way
  const int warp = warp_index(), lane = threadIdx.x % kWarp;
  const int n_groups = n_bins / 4;
  const int each = (n_groups + kStepThreads - 1) / (kStepThreads);
  // Thread 0 has the highest bins.
  const int end = n_groups - static_cast<int>(threadIdx.x) * each;
  const int begin = max(max(0, lowest / 4), end - each);
  int sum = 0;
#pragma unroll 1
  for (int group = end - 1; group >= begin; --group) {
    const uint32_t at = shared_address(hist + 4 * group);
    int4 total = make_int4(0, 0, 0, 0), sooner = total;
    const auto add = [](int4& to, const uint4& v) {
      to.x += static_cast<int>(v.x), to.y += static_cast<int>(v.y);
      to.z += static_cast<int>(v.z), to.w += static_cast<int>(v.w);
    };
    // Each block begins with itself, so that they do not all ask the same one. A power of two.
#pragma unroll 1
    for (int first = 0; first < n_blocks; first += kAtOnce) {
      uint4 v[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        v[i] = make_uint4(0, 0, 0, 0);
        if (i < n_blocks) v[i] = load_peer4(peer_address(at, (rank + first + i) & (n_blocks - 1)));
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        add(total, v[i]);
        if (((rank + first + i) & (n_blocks - 1)) < rank) add(sooner, v[i]);
      }
    }
    reinterpret_cast<int4*>(totals)[group] = total;
    reinterpret_cast<int4*>(before)[group] = sooner;
    sum += total.x + total.y + total.z + total.w;
  }
  int inclusive = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int v = __shfl_up_sync(kAll, inclusive, step);
    if (lane >= step) inclusive += v;
  }
  if (lane == kWarp - 1) s.warp_sums[warp] = inclusive;
  if (threadIdx.x == 0) {
    s.threshold = {0, 0, 0};
    s.before_above = s.own_above = 0;
  }
  __syncthreads();
  const int of_warp = lane < kStepWarps ? s.warp_sums[lane] : 0;
  const int all = static_cast<int>(__reduce_add_sync(kAll, static_cast<unsigned>(of_warp)));
  const int of_earlier =
      static_cast<int>(__reduce_add_sync(kAll, static_cast<unsigned>(lane < warp ? of_warp : 0)));
  int better = of_earlier + inclusive - sum;
  if (threadIdx.x == 0) s.all = all;
  if (all >= wanted && better < wanted && better + sum >= wanted) {
#pragma unroll 1
    for (int bin = 4 * end - 1;; --bin) {
      const int at = totals[bin];
      if (better + at >= wanted) {
        s.threshold = {bin, better, at};
        break;
      }
      better += at;
    }
  }
  if (all < wanted && begin == 0 && end > 0) {  // all keys: those of bin 0 are the last
    s.threshold = {0, all - totals[0], totals[0]};
  }
  __syncthreads();
  const Threshold t = s.threshold;
  if (!shares) return t;
  int before_above = 0, own_above = 0;
#pragma unroll 1
  for (int bin = 4 * end - 1; bin >= 4 * begin && bin > t.bin; --bin) {
    before_above += before[bin];
    own_above += hist[bin];
  }
  before_above = static_cast<int>(__reduce_add_sync(kAll, static_cast<unsigned>(before_above)));
  own_above = static_cast<int>(__reduce_add_sync(kAll, static_cast<unsigned>(own_above)));
  if (lane == 0 && before_above != 0) atomicAdd(&s.before_above, before_above);
  if (lane == 0 && own_above != 0) atomicAdd(&s.own_above, own_above);
  if (t.bin >= 4 * begin && t.bin < 4 * end) {
    s.before_at = before[t.bin];
    s.own_at = hist[t.bin];
  }
  __syncthreads();
  return t;
}

/// Ranks the block's keys at the threshold by their cells. `tied`: offsets of their cells, those of
/// a piece side by side and in order; `first`, `start`: room for an int a piece. Afterwards the
/// rank of tied[j] is start[piece] + j - first[piece]. All threads; ends with a block barrier.
static __device__ __noinline__ void rank_ties(const uint32_t* tied, int n_ties, int* first,
                                              int* start, int n_pieces, SelectScratch& s) {
  const int warp = warp_index(), lane = threadIdx.x % kWarp;
  const auto piece = [&](int j) { return static_cast<int>(tied[j]) / kPiece; };
#pragma unroll 1
  for (int i = threadIdx.x; i < n_pieces; i += kStepThreads) start[i] = 0;
  __syncthreads();
#pragma unroll 1
  for (int j = threadIdx.x; j < n_ties; j += kStepThreads) {
    const int at = piece(j);
    if (j == 0 || piece(j - 1) != at) {
      first[at] = j;
      atomicSub(start + at, j);  // the count of a piece: its end less its first
    }
    if (j == n_ties - 1 || piece(j + 1) != at) atomicAdd(start + at, j + 1);
  }
  __syncthreads();
  const int each = (n_pieces + kStepThreads - 1) / kStepThreads;
  const int begin = min(n_pieces, static_cast<int>(threadIdx.x) * each);
  const int end = min(n_pieces, begin + each);
  int sum = 0;
#pragma unroll 1
  for (int i = begin; i < end; ++i) sum += start[i];
  int inclusive = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int v = __shfl_up_sync(kAll, inclusive, step);
    if (lane >= step) inclusive += v;
  }
  if (lane == kWarp - 1) s.warp_sums[warp] = inclusive;
  __syncthreads();
  const int of_warp = lane < warp ? s.warp_sums[lane] : 0;
  int at =
      static_cast<int>(__reduce_add_sync(kAll, static_cast<unsigned>(of_warp))) + inclusive - sum;
#pragma unroll 1
  for (int i = begin; i < end; ++i) {
    const int count = start[i];
    start[i] = at;
    at += count;
  }
  __syncthreads();
}

/// What a block scores: its range of pieces of 128 cells, shared among its warps so that
/// neighbouring pieces go to different warps, and the first round of all warps is a sample of the
/// whole range.
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
};

/// The pieces of one warp, a round each: offsets from the block's first.
struct Cursor {
  int piece, segment, round;

  __device__ __forceinline__ explicit Cursor(const Pieces& p, int warp)
      : piece(warp * p.rounds), segment(warp), round(0) {}
  /// Whether the warp has a piece in this round.
  __device__ __forceinline__ bool has(const Pieces& p) const {
    return piece < p.count && round < p.rounds;
  }
  __device__ __forceinline__ void next(const Pieces& p) {
    piece += p.rounds + 1;
    ++round;
    if (++segment == kStepWarps) {
      segment = 0;
      piece -= kStepWarps * p.rounds;
    }
  }
};

}  // namespace hata::cuda
