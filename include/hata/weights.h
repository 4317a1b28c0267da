// Trained projections of one model: what a weights file holds, and `hata train` makes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hata/encode.h"

namespace hata {

/// How much attention the codes of a layer keep, on documents that training has not seen.
struct KeptMass {
  int64_t n_keys = 0;                 ///< that its queries saw, on average
  std::vector<int64_t> budgets = {};  ///< ascending
  std::vector<float> mass = {};       ///< [KV head][budget]: share of all attention

  /// The smallest budget that keeps `wanted`, between the measured ones by their logarithm; the
  /// largest one where none does.
  int64_t needed(int head, double wanted) const;
};

struct LayerWeights {
  Projection projection;  ///< of keys
  /// [n_kv_heads] mean |key|: length 8 of the score. Empty: measured on the first keys.
  std::vector<float> mean_lengths = {};
  Projection queries = {};  ///< of queries; n_heads 0: that of the keys serves both
  /// [n_kv_heads][head_dim] subtracted from keys before they are encoded. Empty: nothing is.
  std::vector<float> key_means = {};
  std::shared_ptr<const KeptMass> kept_mass = nullptr;  ///< nullptr: not measured
  /// Part of the budget that the last tokens take (0 < share <= 1). 0: min(32, budget / 2).
  float recent_share = 0;

  const Projection& of_queries() const { return queries.n_heads > 0 ? queries : projection; }
};

struct Weights {
  std::string path;                    ///< the file; empty where there is none
  std::string fingerprint;             ///< of the model that they were trained for
  std::string objective;               ///< what they were trained by: "kl-far", "paper", ...
  std::map<int, LayerWeights> layers;  ///< those that are not in it use the random projection
  /// Layers that should attend to every key, as training found. Empty list: none; no list: it did
  /// not look.
  std::optional<std::vector<int>> dense_layers = {};
};

}  // namespace hata
