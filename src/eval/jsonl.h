// Samples as lines of JSON, one line a query, in the fields of kvpress's evaluation:
//   context         string, what is prefilled
//   question        string
//   answer_prefix   string, may be empty
//   answer          string, or a list of strings
//   max_new_tokens  integer, 1 or more
// The prompt is context, question and answer_prefix, one directly after the other: line breaks
// between them are the file's own. Beside these may stand
//   task            string, for tables; without it the file's name
//   scoring         "all" (the share of the answers found; the default) or "part" (any of them)
//   stop            string that ends an answer
// Other fields are left alone. Lines of the same context in a row are one sample.
#pragma once

#include <iosfwd>
#include <memory>
#include <string>

#include "eval/sample.h"
#include "eval/tokenizer.h"

namespace hata::eval {

/// Reads the file once to check it. Throws Error with file, line and field. Contexts stay on disk.
std::unique_ptr<TaskSource> open_jsonl(const Tokenizer& tokenizer, const std::string& path);

/// Writes a sample's queries; returns how many. Left out are those that cannot be put as free
/// generation (multi-query's questions in a row; compared text).
int64_t write_jsonl(const Sample& sample, std::ostream& out);

}  // namespace hata::eval
