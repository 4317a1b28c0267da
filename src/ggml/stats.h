// What the host did, in numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ggml/options.h"
#include "ggml/reasons.h"
#include "ggml/verify.h"
#include "hata/selector.h"
#include "methods/prefill.h"

namespace hata::host {

/// Sums over all graphs since the last reset.
struct Totals {
  StageCounters stages;
  PrefillCounters prefill;
  VerifyCounts verify;
  int64_t sparse_steps = 0;  ///< attention nodes (per stream) with a sparse row
  int64_t dense_steps = 0;   ///< attention nodes on our exact path, or ggml's on a device
  int64_t device_steps = 0;  ///< those of the sparse ones that ran on a CUDA device
};

struct Stats {
  bool at_work = false;
  std::string why_off;
  Options options;
  Totals totals;
  size_t caches = 0;
  size_t code_bytes = 0;       ///< now
  size_t peak_code_bytes = 0;  ///< at most so far
  const Reasons* reasons = nullptr;
  std::vector<std::string> models;
  std::vector<std::string> weights;  ///< found beside models
};

std::string to_json(const Stats& stats);
std::string to_text(const Stats& stats);

/// Prints the text at SIGUSR1 from now on, unless somebody else handles that signal.
void print_stats_on_signal();

}  // namespace hata::host
