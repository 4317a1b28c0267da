#include "train_documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "core/files.h"
#include "eval/encode.h"
#include "eval/ruler.h"
#include "eval/tasks.h"
#include "hata/types.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

// Of a document, one question: an eighth of them for the question and its answer, so that none is
// asked twice, and less than half for facts.
constexpr int64_t kTokensAQuestion = 104;
// Evaluations count their seeds from 1: training must not see their documents.
constexpr uint64_t kSeeds = uint64_t{1} << 40;
constexpr size_t kFewestWords = 1000;  // of the project's list that are one token each

const std::vector<std::string> kWordTasks = {
    "multi-key",   "multi-key-full", "key-value", "key-value-hard",
    "multi-value", "trace",          "recall",    "copy"};
const std::vector<std::string> kTextTasks = {"niah_multikey_1", "niah_multikey_2",
                                             "niah_multikey_3", "niah_multivalue",
                                             "niah_multiquery", "vt"};

}  // namespace

TrainingDocuments::TrainingDocuments(const eval::Tokenizer& tokenizer,
                                     const std::vector<std::string>& texts, int64_t n_tokens,
                                     int64_t n_documents, uint64_t seed)
    : tokenizer_(tokenizer), n_tokens_(n_tokens), n_documents_(n_documents), seed_(seed) {
  if (!texts.empty()) {
    cut_texts(texts);
    return;
  }
  own_words_ = tokenizer.words().size() >= kFewestWords;
  description_ = own_words_ ? "synthetic documents of facts in the model's words"
                            : "synthetic documents of facts";
}

// Every text gives its share of the documents, spread over its length.
void TrainingDocuments::cut_texts(const std::vector<std::string>& texts) {
  int64_t longest = 0;
  for (const std::string& path : texts) {
    const auto tokens = eval::encode_document(tokenizer_, read_file(path));
    longest = std::max(longest, static_cast<int64_t>(tokens.size()));
    for (size_t at = 0; at + static_cast<size_t>(n_tokens_) <= tokens.size();
         at += static_cast<size_t>(n_tokens_)) {
      cut_.emplace_back(tokens.begin() + static_cast<std::ptrdiff_t>(at),
                        tokens.begin() + static_cast<std::ptrdiff_t>(at) + n_tokens_);
    }
    description_ += (description_.empty() ? "" : ", ") + fs::path(path).filename().string();
  }
  if (cut_.empty()) {
    throw Error(
        fmt::format("the longest text has {} tokens, a document needs {}: give longer texts "
                    "or a smaller -c, or leave -f out for synthetic documents",
                    longest, n_tokens_));
  }
  n_documents_ = std::min(n_documents_, static_cast<int64_t>(cut_.size()));
}

std::vector<eval::Token> TrainingDocuments::make(int64_t number) const {
  if (cut_.empty()) return synthetic(number);
  return cut_[static_cast<size_t>(number * static_cast<int64_t>(cut_.size()) / n_documents_)];
}

// Seven eighths are the document, the last one questions about it with their answers: the queries
// that look far back.
std::vector<eval::Token> TrainingDocuments::synthetic(int64_t number) const {
  const int64_t body = n_tokens_ - n_tokens_ / 8;
  const uint64_t seed = kSeeds + seed_ * 1'000'003 + static_cast<uint64_t>(number);
  const auto& tasks = own_words_ ? kWordTasks : kTextTasks;
  const auto n_tasks = static_cast<int64_t>(tasks.size());
  const int64_t questions = std::max(n_tokens_ / kTokensAQuestion, n_tasks);
  eval::Sample sample =
      own_words_
          ? eval::make_mixed_document(tokenizer_, tasks, body,
                                      static_cast<int>(questions / n_tasks), seed)
          : eval::make_ruler_sample(tokenizer_, tasks[static_cast<size_t>(number) % tasks.size()],
                                    body, static_cast<int>(questions) / 4, seed);
  std::vector<eval::Token> tokens = std::move(sample.tokens);
  for (size_t i = 0; static_cast<int64_t>(tokens.size()) < n_tokens_; ++i) {
    const eval::Query& query = sample.queries[i % sample.queries.size()];
    tokens.insert(tokens.end(), query.tokens.begin(), query.tokens.end());
    if (query.scoring == eval::Scoring::tokens) continue;
    for (const std::string& answer : query.answers) {
      const auto more = tokenizer_.encode(" " + answer);
      tokens.insert(tokens.end(), more.begin(), more.end());
    }
  }
  tokens.resize(static_cast<size_t>(n_tokens_));
  return tokens;
}

}  // namespace hata::cli
