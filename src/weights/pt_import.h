// The hash weights of the paper's reference implementation (github.com/gpzlx1/HATA), for a model of
// ours. It saves a file a layer, hash_weight_layer_02.pt and so on, each one bf16 tensor
// [n_kv_heads, head_dim, rbit], or [head_dim, rbit] for all heads; W of queries and keys after
// RoPE, dimensions in Hugging Face's order; the first layers, which stay dense there, have none.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "weights/gguf.h"
#include "weights/model_shape.h"
#include "weights/weights_file.h"

namespace hata::weights {

/// Where a model's file has the dimensions of a head that Hugging Face has at 0 ... head_dim - 1:
/// there, or with the halves interleaved (0, d/2, 1, d/2 + 1, ...), as the conversion of Llama and
/// its like to GGUF puts the rows of their query and key projections.
enum class RowOrder { kept, interleaved };

/// By general.architecture; nothing where we do not know.
std::optional<RowOrder> row_order(const std::string& architecture);

struct ImportedLayer {
  int layer = 0;
  std::string path;            ///< the .pt file
  std::vector<int64_t> shape;  ///< as it was there
  std::string dtype;           ///< as PtTensor says
};

struct ImportedWeights {
  WeightsFile file;                   ///< without mean lengths: they are measured on the first keys
  std::vector<ImportedLayer> layers;  ///< ascending
};

/// A tensor's layer is in its dict key where it has one ("layers.2.hash_weight", 2), else in its
/// file's name. Throws Error naming file, tensor, value and the way out: no layer, one that comes
/// twice or that the model lacks, another shape than its layer's, numbers that are not finite.
ImportedWeights import_pt(const std::vector<std::string>& paths, const GgufFile& model,
                          const ModelShape& shape, RowOrder order);

}  // namespace hata::weights
