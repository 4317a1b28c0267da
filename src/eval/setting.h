// One way to attend that an evaluation compares with others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/json.h"
#include "hata/dense_layers.h"
#include "hata/selector.h"

namespace hata::eval {

struct Setting {
  std::string method = {};  ///< a spec (hata/selector.h), or "ggml": the host's hands off
  Budget budget = {};       ///< of sparse methods
  DenseLayers dense_layers = {.first = 0};  ///< of sparse methods
  int64_t min_ctx = 1024;
  std::string weights = "auto";  ///< or "off", or a file (include/hata/ggml.h)

  /// Every other setting is compared with "dense".
  bool is_dense() const { return method == "dense"; }
  bool reads_every_key() const { return is_dense() || method == "ggml"; }
  /// "hata 64 +2": method, budget and dense layers; "dense".
  std::string id() const;
  /// How the llama.cpp host is told.
  std::string host_options() const;
};

/// A number where the text is one.
Json dense_layers_json(const DenseLayers& layers);

/// Names without the groups in them: `all`, every method as it is published, and `windowed`, every
/// method that has no window of HATA's with one. Throws Error as make_selector does.
std::vector<std::string> expand_methods(const std::vector<std::string>& names);

/// Every combination. Dense attention comes first, whether it is named or not; a method that reads
/// every key has no budget and comes once. `base` gives what all share.
std::vector<Setting> make_settings(const std::vector<std::string>& methods,
                                   const std::vector<Budget>& budgets,
                                   const std::vector<DenseLayers>& dense_layers,
                                   const Setting& base);

}  // namespace hata::eval
