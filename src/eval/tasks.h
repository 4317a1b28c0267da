// Documents that hide facts, and questions about them: what an attention that drops keys gets
// wrong. Made from a seed; the same on every machine for one vocabulary.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/tokenizer.h"

namespace hata::eval {

/// A question and its answer, as the tokens that follow the document. The model is asked for the
/// tokens marked as answer; the others are given to it (a list's commas, for example).
struct Question {
  std::string task;
  std::vector<Token> tokens = {};
  std::vector<bool> is_answer = {};  ///< [token]; the first token never is

  /// The tokens that are (or are not) part of the answer.
  std::vector<Token> part(bool answer) const;
};

struct Document {
  std::vector<Token> tokens;
  std::vector<Question> questions;
};

/// needle         a number for each of a few words, in fixed noise
/// multi-key      a number for each of many word pairs, in text
/// multi-key-full the same, the document full of them
/// ids            a nine-digit number for each nine-digit id, ids sharing parts, nothing else
/// key-value      a number for each pair of words, nothing else
/// key-value-hard the same, pairs sharing words
/// multi-value    four numbers for each word, asked for in order
/// trace          variables that were set to one another: all that hold a value
/// recall         word -> word, half of the document
/// copy           a passage of 16 words, by its number
/// quote          the next 16 tokens of a line of text
std::vector<std::string> task_names();

/// A document of exactly `n_tokens` tokens. Throws Error on an unknown task, on a vocabulary with
/// too few words, and where the facts that `n_questions` need do not fit.
Document make_document(const Tokenizer& tokenizer, const std::string& task, int64_t n_tokens,
                       int n_questions, uint64_t seed);

/// Facts of several tasks in one document; `per_task` questions of each, task by task.
Document make_mixed_document(const Tokenizer& tokenizer, const std::vector<std::string>& tasks,
                             int64_t n_tokens, int per_task, uint64_t seed);

}  // namespace hata::eval
