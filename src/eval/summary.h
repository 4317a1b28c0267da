// From results to the figures that tables and the report show.
#pragma once

#include <string>

#include "eval/results.h"
#include "eval/statistics.h"

namespace hata::eval {

/// {"settings", "errors",
///  "rows":  one per length and setting: {"n_ctx" (0: of a file), "id", "method", "budget",
///           "dense_layers", "documents", "tasks": {task: estimate with "difference" and
///           "verdict"}, "mean": estimate, "difference": estimate against dense, "verdict", "kept",
///           "recall" (each {"all", "sinks", "recent", "far"}), "keys" (attended to, of a sparse
///           layer), "choose_bytes", "attend_bytes" (per step and sparse layer), "share_of_bytes"
///           (of dense attention's, all layers), "ns_per_step", "sparse_share" (of the rows that
///           could be), "against": estimate of the difference to the method `against` at the same
///           budget and dense layers, where that is given and there},
///  "heads": one per length and inspected setting: {"n_ctx", "setting", "layers": [{"layer",
///           "recall", "far_recall", "kept"}]}, each [KV head],
///  "text":  one per length and setting: {"n_ctx", "setting", "task", "n", "kl", "perplexity",
///           "same", "positions": [{"position", "kl"}]}}
/// estimate: {"n", "mean", "low", "high"}, shares of 1. What is not known is null.
Json summarize(const Results& results, const std::string& against = "");

/// "as good", "worse", "better" (the interval excludes 0), or "open".
std::string verdict(const Estimate& difference);

}  // namespace hata::eval
