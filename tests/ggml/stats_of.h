// The host's statistics as JSON, for tests.
#pragma once

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "hata/ggml.h"

inline nlohmann::json host_stats() {
  char* text = hata_ggml_stats_json();
  auto json = nlohmann::json::parse(text);
  std::free(text);
  return json;
}
