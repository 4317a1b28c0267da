// The llama.cpp host in our own process (src/eval/host.h), with its statistics as the commands show
// them.
#pragma once

#include <string>

#include "eval/host.h"
#include "output.h"

namespace hata::cli {

/// What the host counted since the last reset; its keys are described in hata/ggml.h.
struct HostStats {
  Json json;
  double keys_attended = 0, keys_valid = 0;
  double choose_bytes = 0, attend_bytes = 0, dense_bytes = 0;

  double share_of_keys() const { return keys_valid > 0 ? keys_attended / keys_valid : 1.0; }
  double bytes_read() const { return choose_bytes + attend_bytes; }
  /// "2.10 % of the keys, 1.2 MB of 40.1 MB read"
  std::string line() const;
};

using eval::configure_host;  // with host_options of options.h
using eval::reset_host_stats;
HostStats host_stats();

}  // namespace hata::cli
