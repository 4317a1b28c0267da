// The options of the host: one text of `key=value` words (include/hata/ggml.h lists them).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "hata/decode.h"
#include "hata/dense_layers.h"

namespace hata::host {

inline constexpr const char* kAutoWeights = "auto";  ///< those that lie beside the model

struct Options {
  std::string method = "hata";  ///< a selector's name, or "ggml": hands off
  HataOptions hata;
  std::string weights = kAutoWeights;  ///< or "off", or a file
  SparseRule rule;
  DenseLayers dense_layers;
  int64_t max_rows = 8;
  bool prefill = true;
  bool huge_pages = true;
  bool observe = false;
  bool verify = false;
  bool stats = false;
  bool quiet = false;
  bool probe = false;

  bool hands_off() const { return method == "ggml"; }
};

/// Throws Error on an unknown key, a bad value or an unknown method.
Options parse_options(std::string_view text);

/// Those of HATA_OPTIONS; the errors name it.
Options options_of_environment();

}  // namespace hata::host
