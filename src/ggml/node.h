// What an attention node of a ggml graph says, in the library's words.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "ggml/real.h"
#include "ggml/reasons.h"
#include "hata/selector.h"

namespace hata::host {

/// ggml's numbers of the operations we know, as its constructors give them.
struct Ops {
  ggml_op none, view, reshape, permute, transpose;
  ggml_op mul_mat, cpy, rope, set_rows, flash_attn, custom;

  /// Nodes of these operations compute nothing.
  bool is_empty(ggml_op op) const {
    return op == none || op == view || op == reshape || op == permute || op == transpose;
  }
};

/// Sources of an attention node.
constexpr int kQ = 0, kK = 1, kV = 2, kMask = 3, kSinks = 4;

/// The tensor that a view looks into; the tensor itself where it is none.
inline const ggml_tensor* root_of(const ggml_tensor* tensor) {
  return tensor->view_src != nullptr ? tensor->view_src : tensor;
}

/// The layer that a key cache's name gives (cache_k_l7, cache_..k_l7), or -1.
int cache_layer(const char* name);

/// An attention node over a KV cache.
struct Attention {
  ggml_tensor* node = nullptr;
  const ggml_tensor* cache = nullptr;  ///< the key tensor of the cache
  ggml_type type = GGML_TYPE_F16;      ///< of keys and values: f16 or q8_0
  int layer = 0;
  HeadShape shape;
  AttendParams params;
  int64_t n_rows = 0;  ///< per stream
  int64_t n_streams = 0;
  int64_t first_cell = 0;    ///< of the first stream's view
  int64_t stream_cells = 0;  ///< from one stream's first cell to the next one's

  /// The step of one stream of an f16 cache; `rows` (n_rows of them) are filled and must outlive
  /// it.
  Step step(int64_t stream, std::span<Row> rows) const;
};

/// Bytes of head_dim elements of f16 or q8_0.
size_t head_row_bytes(ggml_type type, int head_dim);

/// Fills `out` from a FLASH_ATTN_EXT node, or says why the node is left to ggml.
Reason read_attention(const Ops& ops, ggml_tensor* node, Attention& out);

/// The bytes of a tensor, wherever it lies. False: they cannot be had.
bool read_tensor(const Real& real, const ggml_tensor* tensor, std::string& bytes);

/// What of the node gave the reason, in words.
std::string describe(const Real& real, Reason reason, const ggml_tensor* node);

}  // namespace hata::host
