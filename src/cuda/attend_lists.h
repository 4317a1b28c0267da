// Attention over given cells, as the sparse step and the rivals in the benchmark use it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hata/cuda.h"

namespace hata::cuda {

/// Row r's query heads of KV head h attend to the first counts[r][h] of lists[r][h][..]: cells of
/// the row's sequence, none twice, in any order. f16 and bf16. `workspace` is set to zero once,
/// before its first use.
hata_cuda_status attend_lists(const hata_cuda_step& step,
                              const int32_t* lists,   ///< [n_rows][n_kv_heads][capacity]
                              const int32_t* counts,  ///< [n_rows][n_kv_heads]
                              int64_t capacity, void* workspace, size_t workspace_size,
                              hata_cuda_stream stream);

}  // namespace hata::cuda
