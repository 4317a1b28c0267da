// Plain text on the decode path: how far a method's predictions are from dense attention's. A part
// of the text is prefilled, the tokens after it go through decode steps one by one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/sample.h"
#include "eval/tokenizer.h"

namespace hata::eval {

/// Samples of a text file: n_tokens prefilled (with what the model wants at the start), n_compared
/// after them, in one query of Scoring::compare. Sample i starts where sample i - 1 ended; what is
/// left at the end is dropped. Throws Error where the text is too short for one.
std::unique_ptr<TaskSource> open_text(const Tokenizer& tokenizer, const std::string& path,
                                      const TaskOptions& options);

/// What one step predicts, compared with dense attention at the same position.
struct StepComparison {
  double kl = 0;        ///< KL(dense || method) of the next token, nats; 0: the same
  double nll = 0;       ///< -log p(the text's next token), nats, of the method
  bool agrees = false;  ///< the likeliest token is the same
};

/// Logits of both, [vocabulary]; `next`: the token that the text goes on with.
StepComparison compare_step(std::span<const float> dense, std::span<const float> method,
                            Token next);

}  // namespace hata::eval
