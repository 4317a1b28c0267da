// The report: one HTML file with everything in it.
#pragma once

#include <string>

#include "eval/results.h"

namespace hata::eval {

/// `summary`: of these results (summary.h).
std::string render_report(const Json& summary, const Results& results);

}  // namespace hata::eval
