// Trained projections of one model: what a weights file holds, and `hata train` makes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "hata/encode.h"

namespace hata {

struct LayerWeights {
  Projection projection;  ///< of queries and keys alike
  /// [n_kv_heads] mean |key|: length 8 of the score. Empty: measured on the first keys.
  std::vector<float> mean_lengths;
};

struct Weights {
  std::string path;                    ///< the file; empty where there is none
  std::string fingerprint;             ///< of the model that they were trained for
  std::string objective;               ///< what they were trained by: "kl-far", "paper", ...
  std::map<int, LayerWeights> layers;  ///< those that are not in it use the random projection
};

}  // namespace hata
