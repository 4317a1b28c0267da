// Asking questions about a document that a session holds, and counting right answers.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/sample.h"
#include "eval/session.h"

namespace hata::eval {

struct Answer {
  std::vector<Token> tokens = {};  ///< what the model said where it was asked
  bool right = false;              ///< all of them as expected
  int64_t steps = 0;               ///< decode steps taken
  int64_t ns = 0;                  ///< time of these steps
};

/// Question and answer go through decode steps of one token; then the session is as before.
/// Greedy: an answer is right where every asked token is the likeliest one. The expected token is
/// what the next step gets (up to the first wrong token, this is what was generated).
/// `to_the_end`: also go on after a wrong token.
Answer ask(Session& session, const Query& question, bool to_the_end);

}  // namespace hata::eval
