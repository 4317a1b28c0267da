// From what a model said to a score in [0, 1].
#pragma once

#include <span>
#include <string>

#include "eval/sample.h"

namespace hata::eval {

/// A query asked token by token: `said` are the likeliest tokens where it asked. 1 where all are as
/// expected; fewer than were asked (one that stopped at its first wrong token): 0.
double score_tokens(const Query& query, std::span<const Token> said);

/// A generated answer, as RULER scores: control characters count as line breaks, case does not
/// count. A query of `tokens` put as free generation is scored as `all`.
double score_text(const Query& query, const std::string& said);

}  // namespace hata::eval
