// Putting a query to a document that a session holds, one decode step a token.
#pragma once

#include "eval/inspect.h"
#include "eval/results.h"
#include "eval/sample.h"
#include "eval/session.h"

namespace hata::eval {

/// The session is as before when it returns. Greedy. An answer that is asked token by token ends
/// at its first wrong token: up to there it is what would have been generated. The recorder (may
/// be nullptr) sees the step that says the first asked token; its time is not counted.
/// Not for queries of Scoring::compare.
QueryResult ask(Session& session, const Tokenizer& tokenizer, const Query& query,
                Recorder* recorder);

/// What is predicted after each token but the last; [step][vocabulary]. The session is as before.
using Predictions = std::vector<std::vector<float>>;
Predictions predict(Session& session, const Query& query);

/// The same, compared with dense attention's. The recorder sees one step in 64.
TextResult compare(Session& session, const Query& query, const Predictions& dense,
                   Recorder* recorder);

}  // namespace hata::eval
