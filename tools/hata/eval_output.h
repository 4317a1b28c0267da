// What hata eval prints: tables of a summary (src/eval/summary.h) in every format.
#pragma once

#include <string>

#include "eval/results.h"
#include "output.h"

namespace hata::cli {

/// md, csv, json (the whole summary), jsonl or html (the report).
std::string render_evaluation(const std::string& format, const Json& summary,
                              const eval::Results& results);

}  // namespace hata::cli
