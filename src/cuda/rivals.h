// Quest and Loki on the GPU, for comparison only: the benchmark's, not part of the library's API.
// Both rank by the sum over the query heads of a KV head, as src/methods does on the CPU, and both
// end in attend_lists(), so that what differs is how the keys are chosen.
//
// A step enqueues one or two kernels before attention, allocates nothing and waits for nothing, so
// it can be captured in a CUDA graph. Rows, caches (contiguous and paged) and types are those of
// hata_cuda_step; `codes`, `projection` and `mode` are not read; `valid`, `forced` and soft caps in
// the order of keys are not supported (HATA_CUDA_BAD_ARGUMENT where they matter). Cells of the
// first `sink` and last `recent` ones are always chosen, inside the budget. Needs compute
// capability 9.0.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hata/cuda.h"

namespace hata::cuda {

/// How a step's kernels are cut. `separate` uses the whole device to score when there are few rows
/// and KV heads, `fused` saves a launch and the scores' way through memory.
enum class RivalPath { automatic, fused, separate };

/// Quest (arXiv 2406.10774). The bounds of page p of a sequence and KV head: the least element of
/// the page's keys in each channel, then the largest, in the cache's type (so that they are exact).
/// A page's score is sum over g, i of max(q[g][i] * min[i], q[g][i] * max[i]).
struct QuestPages {
  void* bounds;      ///< [sequence][KV head][capacity][2][head_dim], starts on 16 bytes
  int page;          ///< cells: 16 or 32
  int64_t capacity;  ///< pages of a sequence
};

/// Bytes of `bounds`.
size_t quest_store_size(const hata_cuda_step& step, int n_sequences, const QuestPages& pages);
/// The bounds of all pages of the rows' sequences, from the cache.
hata_cuda_status quest_build(const hata_cuda_step& step, const QuestPages& pages,
                             hata_cuda_stream stream);

/// The budget in whole pages (one at least), the newest page always among them. With `encode_last`
/// the newest page's bounds take in the row's last key. head_dim 64 or 128.
/// lists: [n_rows][n_kv_heads][capacity] cells, a multiple of 32 that holds the budget; counts:
/// [n_rows][n_kv_heads].
hata_cuda_status quest_select(const hata_cuda_step& step, const QuestPages& pages, RivalPath path,
                              int32_t* lists, int32_t* counts, int64_t capacity, void* workspace,
                              size_t workspace_size, hata_cuda_stream stream);
/// quest_select(), then attend_lists() with its own workspace.
hata_cuda_status quest_step(const hata_cuda_step& step, const QuestPages& pages, RivalPath path,
                            void* workspace, size_t workspace_size, void* attend_workspace,
                            size_t attend_workspace_size, hata_cuda_stream stream);
/// Enough for both.
size_t quest_workspace_size(const hata_cuda_step& step, const QuestPages& pages);
/// The least bytes that choosing must move: the bounds of all pages.
size_t quest_score_bytes(const hata_cuda_step& step, const QuestPages& pages);

/// Loki (arXiv 2406.02542): the first 32 channels of the keys in the basis of their principal
/// components, kept contiguous, which is Loki's best case (the paper's own layout reads them out of
/// whole rows). A key's score is sum over g of (basis^T q[g]) . channels.
struct LokiKeys {
  void* channels;      ///< [sequence][KV head][capacity][32] in the cache's type, on 16 bytes
  const float* basis;  ///< [n_kv_heads][head_dim][32]
  int64_t capacity;    ///< cells of a sequence
};

size_t loki_store_size(const hata_cuda_step& step, int n_sequences, const LokiKeys& keys);
/// The channels of all keys of the rows' sequences, from the cache.
hata_cuda_status loki_build(const hata_cuda_step& step, const LokiKeys& keys,
                            hata_cuda_stream stream);

/// The budget's best keys, exactly. With `encode_last` the row's last key is projected and stored
/// first. head_dim at most 128.
hata_cuda_status loki_select(const hata_cuda_step& step, const LokiKeys& keys, RivalPath path,
                             int32_t* lists, int32_t* counts, int64_t capacity, void* workspace,
                             size_t workspace_size, hata_cuda_stream stream);
hata_cuda_status loki_step(const hata_cuda_step& step, const LokiKeys& keys, RivalPath path,
                           void* workspace, size_t workspace_size, void* attend_workspace,
                           size_t attend_workspace_size, hata_cuda_stream stream);
size_t loki_workspace_size(const hata_cuda_step& step, const LokiKeys& keys);
size_t loki_score_bytes(const hata_cuda_step& step, const LokiKeys& keys);

}  // namespace hata::cuda
