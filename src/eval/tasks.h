// Documents that hide facts, and questions about them, in the words that the bundled model was
// trained on: what an attention that drops keys gets wrong. Made from a seed; the same on every
// machine for one vocabulary. RULER's set (needle, multi-key 1 to 3, multi-value, multi-query,
// tracing, common and frequent words) and associative recall and copying.
//
// Where they differ from RULER: the wording; a document has many questions, and so many facts. Its
// multi-key 2 (a document of needles alone) is multi-key-full, 3 (of ids) is ids. A multi-query is
// put as four questions in a row; the model knows no question for several keys.
// The bundled model's dense attention finds a third of the common words and two thirds of the
// frequent ones (its card says so): differences between methods are small there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/sample.h"
#include "eval/tokenizer.h"

namespace hata::eval {

std::vector<TaskHelp> word_task_help();
std::vector<TaskHelp> long_task_help();  ///< questions of hundreds of tokens
std::vector<std::string> task_names();   ///< without the long ones

/// A document of exactly `n_tokens` tokens with `n_questions` questions (the list tasks: one).
/// Throws Error on an unknown task, on a vocabulary with too few words, and where the facts that
/// `n_questions` need do not fit.
Sample make_document(const Tokenizer& tokenizer, const std::string& task, int64_t n_tokens,
                     int n_questions, uint64_t seed);

/// Facts of several tasks (not of the list tasks) in one document; `per_task` questions of each,
/// task by task.
Sample make_mixed_document(const Tokenizer& tokenizer, const std::vector<std::string>& tasks,
                           int64_t n_tokens, int per_task, uint64_t seed);

}  // namespace hata::eval
