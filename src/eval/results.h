// What an evaluation found, as lines of JSON that are appended as they come: a run that was
// interrupted goes on from them.
//
//   {"hata_eval": 1, "settings": {...}}                     the first line: what was asked for
//   {"type": "result", "task", "n_ctx", "document", ...}    one document under one setting
//   {"type": "document", "task", "n_ctx", "document", ...}  a text that a page of the report shows
//   {"type": "error", "task", "n_ctx", "document", ...}     a document that could not be asked
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "eval/inspect.h"
#include "eval/json.h"
#include "eval/tokenizer.h"

namespace hata::eval {

/// One document of one task and length. n_ctx 0: the length is the document's own.
struct DocumentKey {
  std::string task;
  int64_t n_ctx = 0;
  int64_t document = 0;
  auto operator<=>(const DocumentKey&) const = default;
};

struct QueryResult {
  double score = 0;
  std::vector<Token> said = {};  ///< where it was asked
  std::string text = {};         ///< the same
  int64_t steps = 0;             ///< timed decode steps
  int64_t ns = 0;                ///< time of these
};

/// Plain text, compared with dense attention's predictions; [position].
struct TextResult {
  int64_t steps = 0, ns = 0;
  std::vector<double> kl = {};     ///< of the next token's distribution, nats
  std::vector<double> nll = {};    ///< of the true next token, nats
  std::vector<uint8_t> same = {};  ///< the likeliest token is dense attention's
};

/// One document under one setting.
struct Record {
  DocumentKey key;
  std::string setting;  ///< Setting::id
  int64_t n_tokens = 0;
  std::vector<QueryResult> queries = {};
  TextResult text = {};
  StageCounters counters = {};
  LayerCounts layers = {};
  ChosenCells chosen = {};  ///< of the first query, where a page of the report shows it
};

/// [{"layer", "heads": [[distance to the cell before, ...], ...]}, ...]: short numbers.
Json chosen_json(const ChosenCells& chosen);
Json to_json(const Record& record);
/// Throws nlohmann's exceptions where it is none.
Record record_from(const Json& line);

/// Everything in a file of results.
struct Results {
  Json settings;
  std::vector<Record> records = {};
  std::vector<Json> documents = {};  ///< lines of that type
  int64_t errors = 0;
};

/// The file that results are appended to; without a path they are in memory alone.
class ResultsFile {
 public:
  /// Goes on with what the file holds. Throws Error where it was made with other settings (naming
  /// the first that differs), where a line of it is broken, or where it cannot be written. A last
  /// line without its end (a run that was killed) is cut off; so are earlier errors' effects: those
  /// documents are tried again.
  ResultsFile(const std::string& path, const Json& settings);
  ~ResultsFile();

  const Results& results() const { return results_; }
  bool has(const DocumentKey& key, const std::string& setting) const;
  bool has_document(const DocumentKey& key) const;
  /// How many results the file already held.
  int64_t continued() const { return continued_; }

  void add(const Record& record);
  /// `shown`: what the report shows of it, beside its key.
  void add_document(const DocumentKey& key, const Json& shown);
  void add_error(const DocumentKey& key, const std::string& setting, const std::string& what);

 private:
  void read(const std::string& bytes);
  void take(const Json& line);
  void write(const Json& line);

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  Results results_;
  int64_t continued_ = 0;
};

}  // namespace hata::eval
