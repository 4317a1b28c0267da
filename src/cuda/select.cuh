// Stage 3 on the GPU, by a cluster of blocks: the k best bins, exactly, ties to the lowest cell.
// Scores are never written to memory. Each block's first keys are a sample that gives it a cut
// which its k best will very likely exceed; only keys above it are counted and kept as candidates.
// The histogram over all blocks then gives the exact threshold. If a cut was too high, or
// candidates too many, the codes are read once more: slower, as exact.
#pragma once

#include "score.cuh"

namespace hata::cuda {

constexpr int kIndexBits = 19;  ///< of a candidate: cells of a block; the bin lies above them
constexpr int kMostPieces = (1 << kIndexBits) / kPiece;

/// The threshold in a histogram over all blocks of the cluster, and whose the keys are.
struct Threshold {
  int bin;    ///< the highest bin at or above which there are at least as many as wanted; else 0
  int above;  ///< keys in higher bins, of all blocks
  int before_above;       ///< of these: those of the blocks before
  int before_at, own_at;  ///< keys in this bin
  int all;                ///< keys in the histogram
  int highest_cut;        ///< of any block
};

struct SelectScratch {
  int wanted;        ///< keys of the sample that shall lie at or above the cut, or less
  int needed;        ///< that must; 0: as many as are wanted
  int keys_each;     ///< of Lists, and its
  uint32_t inverse;  ///< inverse
  int cut;           ///< the histogram lacks keys in lower bins
  int highest_cut;   ///< of any block
  int overflowed;    ///< a warp had more candidates than there was room for
  int2 warp_sums[kStepWarps];
  Threshold threshold;
  int warp_above[kStepWarps], warp_ties[kStepWarps];
};

/// Inclusive sum over the lanes of a warp.
__device__ __forceinline__ int scan_warp(int v) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int lower = __shfl_up_sync(kAll, v, step);
    if (lane >= step) v += lower;
  }
  return v;
}

/// Sum over the lanes of a warp.
__device__ __forceinline__ int sum_warp(int v) {
  return static_cast<int>(__reduce_add_sync(kAll, static_cast<unsigned>(v)));
}

/// The highest bin at or above which `counts` has `wanted` keys or more; 0 if it has fewer. A warp.
__device__ __forceinline__ int bin_of_best(const int* counts, int n_bins, int wanted) {
  constexpr int kEach = 4;  // groups of four bins of a lane
  const int lane = threadIdx.x % kWarp, n_groups = n_bins / 4;
  int above = 0;
#pragma unroll 1
  for (int end = n_groups; end > 0; end -= kWarp * kEach) {
    int bins[4 * kEach], sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int group = end - 1 - lane * kEach - i;
      const int4 v =
          group >= 0 ? reinterpret_cast<const int4*>(counts)[group] : make_int4(0, 0, 0, 0);
      bins[4 * i] = v.w, bins[4 * i + 1] = v.z, bins[4 * i + 2] = v.y, bins[4 * i + 3] = v.x;
      sum += v.x + v.y + v.z + v.w;
    }
    const int inclusive = scan_warp(sum);
    const unsigned enough = __ballot_sync(kAll, above + inclusive >= wanted);
    if (enough != 0) {
      int better = above + inclusive - sum, at = -1;
#pragma unroll
      for (int i = 0; i < 4 * kEach; ++i) {
        better += bins[i];
        if (at < 0 && better >= wanted) at = i;
      }
      return __shfl_sync(kAll, 4 * (end - lane * kEach) - 1 - at, __ffs(enough) - 1);
    }
    above += __shfl_sync(kAll, inclusive, kWarp - 1);
  }
  return 0;
}

/// Finds the bin that the `wanted`-th best key of all blocks lies in, how many keys above it and in
/// it the blocks before this one have, and how many in it are this block's. `hist`: n_bins counts
/// in the shared memory of every block; those below the bin `lowest` are not looked at. `totals`,
/// `before`: room for sums over blocks. All threads; has two block barriers.
template <int kWarps>
__device__ __forceinline__ Threshold find_threshold(const int* hist, int* totals, int* before,
                                                    int n_bins, int lowest, int wanted, int rank,
                                                    int n_blocks, SelectScratch& s) {
  constexpr int kAtOnce = 8;  // loads from other blocks under way
  const int warp = warp_index(), lane = threadIdx.x % kWarp;
  const int n_groups = n_bins / 4;
  constexpr int kThreads = kWarps * kWarp;
  const int each = (n_groups + kThreads - 1) / kThreads;
  // Thread 0 has the highest bins.
  const int end = n_groups - static_cast<int>(threadIdx.x) * each;
  const int begin = max(lowest / 4, end - each);
  int total_sum = 0, before_sum = 0;
  const auto sum_of = [](const uint4& v) { return static_cast<int>(v.x + v.y + v.z + v.w); };
#pragma unroll 1
  for (int group = end - 1; group >= begin; --group) {
    const uint32_t at = shared_address(hist + 4 * group);
    uint4 total = make_uint4(0, 0, 0, 0), sooner = total;
    const auto add = [](uint4& to, const uint4& v) {
      to.x += v.x, to.y += v.y, to.z += v.z, to.w += v.w;
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
    reinterpret_cast<uint4*>(totals)[group] = total;
    reinterpret_cast<uint4*>(before)[group] = sooner;
    total_sum += sum_of(total);
    before_sum += sum_of(sooner);
  }
  if (warp == kWarps - 1) {
    const int cut = lane < n_blocks
                        ? static_cast<int>(load_peer(peer_address(shared_address(&s.cut), lane)))
                        : 0;
    const auto highest = __reduce_max_sync(kAll, static_cast<unsigned>(cut));
    if (lane == 0) s.highest_cut = static_cast<int>(highest);
  }
  const int total_to = scan_warp(total_sum), before_to = scan_warp(before_sum);
  if (lane == kWarp - 1) s.warp_sums[warp] = make_int2(total_to, before_to);
  __syncthreads();
  const int2 of_warp = lane < kWarps ? s.warp_sums[lane] : make_int2(0, 0);
  const bool is_earlier = lane < warp;
  const int all = sum_warp(of_warp.x);
  const int better = sum_warp(is_earlier ? of_warp.x : 0) + total_to - total_sum;
  const int before_better = sum_warp(is_earlier ? of_warp.y : 0) + before_to - before_sum;
  // Too few keys: those of the lowest bin are the last.
  const bool found = all >= wanted ? better < wanted && better + total_sum >= wanted
                                   : begin == lowest / 4 && end > begin;
  if (found) {
    Threshold t{0, better, before_better, 0, 0, all, s.highest_cut};
#pragma unroll 1
    for (t.bin = 4 * end - 1; t.bin > 4 * begin && t.above + totals[t.bin] < wanted; --t.bin) {
      t.above += totals[t.bin];
      t.before_above += before[t.bin];
    }
    t.before_at = before[t.bin];
    t.own_at = hist[t.bin];
    s.threshold = t;
  }
  __syncthreads();
  return s.threshold;
}

/// What a block scores: its range of cells, in pieces of 128 that are shared among its warps so
/// that neighbouring pieces go to different warps, and the first round of all warps is a sample of
/// the whole range. A piece has four rows of 32 cells. In a half block they come out of the four
/// quarters of the range, which takes 3 % less where 256 blocks read at once; in a whole one they
/// lie in a row, since addresses that are no constants cost 1 %.
template <int kWarps>
struct Pieces {
  int first, count, rounds;

  /// `shift`: the blocks are 2^shift.
  __device__ __forceinline__ Pieces(int n_kv, int rank, int shift) {
    const int64_t all = (n_kv + kPiece - 1) / kPiece;
    first = static_cast<int>(all * rank >> shift);
    count = static_cast<int>(all * (rank + 1) >> shift) - first;
    rounds = (count + kWarps - 1) / kWarps;
  }
  __device__ __forceinline__ int first_cell() const { return first * kPiece; }
  /// Cells from a row of a piece to the next, and from a piece to the next.
  __device__ __forceinline__ int row_step() const {
    return kWarps == kHalfWarps ? count * kWarp : kWarp;
  }
  static constexpr int kPieceStep = kWarps == kHalfWarps ? kWarp : kPiece;
  /// The first of a row, counted from the block's first cell.
  __device__ __forceinline__ int cell(int piece, int row) const {
    return row * row_step() + piece * kPieceStep;
  }
  /// Pieces in the first round.
  __device__ __forceinline__ int sampled() const {
    return rounds > 0 ? (count + rounds - 1) / rounds : 0;
  }
};

/// The pieces of one warp, a round each: offsets from the block's first.
template <int kWarps>
struct Cursor {
  using Pieces = cuda::Pieces<kWarps>;
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
    if (++segment == kWarps) {
      segment = 0;
      piece -= kWarps * p.rounds;
    }
  }
};

}  // namespace hata::cuda
