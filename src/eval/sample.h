// What an evaluation asks: a document, queries about it, and where they come from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/tokenizer.h"

namespace hata::eval {

/// How a query is put and judged (scoring.h has the functions).
enum class Scoring {
  tokens,   ///< asked token by token: 1 where every asked token is the likeliest one, else 0
  all,      ///< generated: the share of the answers that occur in it (RULER's string_match_all)
  part,     ///< generated: 1 where one of the answers occurs in it (RULER's string_match_part)
  compare,  ///< given, not asked: its logits are compared with dense attention's (text.h)
};

/// Tokens of a document: begin .. end-1.
struct TokenRange {
  int64_t begin = 0, end = 0;
  bool operator==(const TokenRange&) const = default;
};

/// A query about a document. It follows the document directly; each of its tokens is a decode step.
struct Query {
  std::string task = {};
  Scoring scoring = Scoring::tokens;

  /// What goes through decode steps. `all`, `part`: question and answer prefix, after which up to
  /// max_new_tokens are generated. `tokens`: question and answer, of which the model is asked for
  /// those marked; the others are given to it (a list's commas, for example). `compare`: the text.
  std::vector<Token> tokens = {};
  std::vector<bool> is_answer = {};  ///< [token], `tokens` alone; the first one never is

  /// The same as text; empty with `compare`. `tokens` can be put as free generation, too: from
  /// first_answer() on.
  std::string question = {}, answer_prefix = {};
  std::vector<std::string> answers = {};
  int max_new_tokens = 0;
  std::string stop = {};  ///< ends a generation, beside the model's own end; may be empty

  /// Where the document holds what the answer needs, in order; empty where that is not known.
  std::vector<TokenRange> evidence = {};

  /// The tokens that are (or are not) asked for; all are not with other scorings than `tokens`.
  std::vector<Token> part(bool answer) const;
  /// The first token that is asked for; the number of tokens where none is.
  size_t first_answer() const;
};

/// A document and queries about it, each on its own: what one query adds is forgotten before the
/// next.
struct Sample {
  std::string task = {};
  uint64_t seed = 0;               ///< of this sample; 0 where it was read from a file
  std::string text = {};           ///< of the document, without what the model wants at the start
  std::vector<Token> tokens = {};  ///< of the document: what is prefilled
  std::vector<Query> queries = {};

  /// Cells that a context needs: the document and the longest query with its answer.
  int64_t n_ctx() const;
};

/// Samples of one task by number: the same for the same settings, on every machine.
class TaskSource {
 public:
  virtual ~TaskSource() = default;
  virtual const std::string& task() const = 0;
  /// How many there are; nothing where a generator makes them without end.
  virtual std::optional<int64_t> n_samples() const = 0;
  /// Sample 0, 1, ... Throws Error where it cannot be made (a document too short for its facts).
  /// It has `n_queries` queries, or fewer where the task gives fewer (one list: one query).
  virtual Sample make(int64_t number) const = 0;
};

struct TaskOptions {
  int64_t n_tokens = 8192;  ///< of a document (RULER's text form: of everything, as RULER counts)
  int n_queries = 20;       ///< about one document
  uint64_t seed = 1;
  int n_compared = 256;  ///< of a text: tokens after the document that are compared
};

/// A task known by name:
///   needle, multi-key, ...     in the model's own words (tasks.h); long-question, long-session
///   niah_single_1, vt, ...     RULER's text form (ruler.h)
///   jsonl:FILE                 the user's own samples (jsonl.h); lengths are the file's
///   text:FILE                  plain text, compared with dense attention (text.h)
/// The tokenizer must outlive the source. Throws Error; an unknown name lists those there are.
std::unique_ptr<TaskSource> open_task(const Tokenizer& tokenizer, const std::string& name,
                                      const TaskOptions& options);

/// Names without the groups in them, each once: `words` is all in the model's words (but for the
/// long ones), `long` those, `ruler` all of RULER's. Throws Error as open_task does, but opens no
/// file.
std::vector<std::string> expand_tasks(const std::vector<std::string>& names);

/// "NAME  what it asks" for --help: one pair a task, the groups and the two kinds of files last.
struct TaskHelp {
  std::string name, text;
};
std::vector<TaskHelp> task_help();

}  // namespace hata::eval
