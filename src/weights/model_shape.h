// What a model's metadata says about its attention layers.
#pragma once

#include <string>
#include <vector>

#include "hata/types.h"
#include "weights/gguf.h"

namespace hata::weights {

struct LayerShape {
  HeadShape heads;  ///< head_dim: of keys
  int value_dim = 0;
  int64_t window = 0;     ///< keys a sliding-window layer sees; 0: all
  std::string why_dense;  ///< empty: the layer can be sparse
};

struct ModelShape {
  std::string architecture;
  std::string name;
  int64_t context = 0;                  ///< trained length
  bool window_pattern_unknown = false;  ///< some layers slide; which ones the file does not say
  std::vector<LayerShape> layers;
};

/// Throws Error where the file is not a model, or lacks what every attention model has.
ModelShape model_shape(const GgufFile& file);

}  // namespace hata::weights
