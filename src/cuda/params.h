// What the kernels are given, by value. Host code fills it from include/hata/cuda.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hata/cuda.h"
#include "hata/score.h"

namespace hata::cuda {

constexpr int kMaxGroup = 16;
constexpr int kPiece = 128;     ///< keys that a warp scores at a time
constexpr int kStepWarps = 16;  ///< of a block of the step kernel, one a multiprocessor
constexpr int kHalfWarps = 8;   ///< of one that shares its multiprocessor with another
constexpr int kSplitWarps = 8;  ///< of a block of the split kernel
constexpr int kTileKeys = 16;   ///< keys that a warp attends to at a time

/// Pieces of a warp under way in the step kernel, as many as there is room for whatever the group
/// is; so many of them are asked for before the queries are encoded.
constexpr int n_stages(bool attends, int rbit) { return attends ? 4 : rbit == 256 ? 1 : 2; }
constexpr int kSoonStages = 1;
constexpr int piece_bytes(int rbit) { return kPiece * rbit / 8 + kPiece / 2; }  ///< with lengths

/// Bins of a histogram of scores: of sums score + max_score is the bin, of squares the score
/// itself; and one more bin, the highest, for keys that are always chosen. Rounded up to whole
/// groups of four.
constexpr int forced_bin(bool squares, int group, int rbit) {
  return (squares ? max_level(group, rbit) : 2 * max_score(group, rbit)) + 1;
}
constexpr int n_bins(bool squares, int group, int rbit) {
  return (forced_bin(squares, group, rbit) + 4) / 4 * 4;
}

/// Bit planes of a group's code, for the rule of sums (score.cuh).
constexpr int n_planes(int group) {
  int planes = group % 2;
  for (int half = group / 2; half > 0; half /= 2) ++planes;
  return planes;
}
/// Pairs of heads that the rule of squares scores a group as: a power of two, so that few kernels
/// serve all groups.
constexpr int n_head_pairs(int group) {
  int pairs = 1;
  while (2 * pairs < group) pairs *= 2;
  return pairs;
}

/// Parts of the step kernel, for clocks.cuh, each named by its end.
enum class Part {
  kBegin,
  kInputs,
  kEncode,
  kExchange,
  kSample,
  kScore,
  kThreshold,
  kLists,
  kAttend,
  kMerge,
  kFinish
};
constexpr int kParts = 11;
constexpr const char* kPartNames[kParts] = {"begin",  "inputs", "encode",    "exchange",
                                            "sample", "score",  "threshold", "lists",
                                            "attend", "merge",  "finish"};

/// Shared memory of a block of the step kernel, by offset.
struct StepLayout {
  int ring;    ///< [stage][warp][piece_bytes]: codes under way; then, [warp][gather_bytes], keys
               ///< and values
  int shared;  ///< the candidates
  int slab;    ///< of W: in the candidates' place; in a half block behind the ring's first stages
  int sample, hist, totals, before;  ///< [n_bins]
  int vectors;  ///< [group + 2][vector_stride] f32: queries, the last key less the mean, and that
  int list;     ///< [list_limit]
  int results;  ///< of all blocks: sums [block][group][columns], then maxima and sums
                ///< [block][group]
  int bytes;
};

struct StepParams {
  int n_rows, n_kv_heads, group, head_dim, rbit;
  hata_cuda_cache cache;
  int page_shift;  ///< of a paged cache
  hata_cuda_codes codes;
  hata_cuda_projection projection;

  const void* q;
  void* out;
  hata_cuda_type q_type, out_type;
  int64_t q_row_stride, q_head_stride, out_row_stride, out_head_stride;
  const int32_t* sequences;
  const int32_t* n_kv;
  int max_n_kv;

  const int32_t* budgets;
  int budget, sink, recent;
  const uint32_t* valid;
  const uint32_t* forced;
  int64_t bit_stride;
  bool encode_last;
  bool early;
  bool squares;  ///< the rule of squares, not of sums

  float scale, softcap;
  const float* sinks;
  const float* slopes;
  const uint16_t* bias;
  int64_t bias_stride;

  int32_t* selected;
  int32_t* n_selected;
  int64_t selected_stride;  ///< of one row and KV head

  // --- of the launch ----------------------------------------------------------------------
  int n_warps;          ///< step kernel: of a block, kStepWarps or kHalfWarps
  int slab_columns;     ///< columns of W that lie in shared memory at a time
  int candidate_limit;  ///< candidates per warp
  int list_limit;       ///< chosen keys per block
  StepLayout layout;
  int gather_bytes;  ///< bytes of ring or gather buffers, whichever is larger, per warp
  bool attend;       ///< step kernel: false: it ends with `selected`

  const int32_t* lists;  ///< split kernel: [row][KV head][list_stride] cells; nullptr: all valid
  const int32_t* list_counts;
  int64_t list_stride;
  int splits;
  uint32_t splits_inverse, heads_inverse;  ///< of splits and n_kv_heads, in 2^-32, rounded up
  int encoders;                            ///< split kernel: blocks that encode last keys
  bool bulk;                               ///< split kernel: rows by the copy engine
  float* partial;                          ///< [row][KV head][split][group][head_dim]
  float* partial_ml;   ///< [row][KV head][split][group][2] maximum (log2) and sum
  unsigned* arrivals;  ///< [row][KV head], zero between launches
  long long* clocks;   ///< [block][kParts], or nullptr
};

struct EncodeParams {
  int n_kv_heads, head_dim, rbit;
  hata_cuda_cache cache;
  int page_shift;
  hata_cuda_codes codes;
  hata_cuda_projection projection;
  int sequence;
  int64_t first, count;
  const int64_t* cells;
};

}  // namespace hata::cuda
