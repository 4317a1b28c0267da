#include "eval/jsonl.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "eval/encode.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

using Json = nlohmann::json;

// One line of the file, and what to say where it is broken.
class Line {
 public:
  Line(const std::string& path, int64_t number, const std::string& text)
      : where_(path + ", line " + std::to_string(number) + ": ") {
    try {
      json_ = Json::parse(text);
    } catch (const Json::exception& error) {
      fail("no JSON (" + std::string(error.what()) + "); each line is one object");
    }
    if (!json_.is_object()) fail("is " + what(json_) + ", not an object");
  }

  std::string text(const char* field) const {
    const Json& value = at(field);
    if (!value.is_string()) fail_type(field, value, "a string");
    return value.get<std::string>();
  }
  std::string text_or(const char* field, const std::string& otherwise) const {
    return json_.contains(field) ? text(field) : otherwise;
  }

  std::vector<std::string> answers() const {
    const Json& value = at("answer");
    const Json list = value.is_array() ? value : Json::array({value});
    if (list.empty()) fail("field 'answer' is an empty list; it needs an answer to look for");
    std::vector<std::string> answers;
    for (const Json& answer : list) {
      if (!answer.is_string()) fail_type("answer", answer, "a string or a list of strings");
      answers.push_back(answer.get<std::string>());
      if (answers.back().empty()) {
        fail("field 'answer' has an empty string, which every text contains");
      }
    }
    return answers;
  }

  int max_new_tokens() const {
    const Json& value = at("max_new_tokens");
    const bool is_good = value.is_number_integer() && value.get<double>() >= 1 &&
                         value.get<double>() <= std::numeric_limits<int>::max() / 2;
    if (!is_good) fail_type("max_new_tokens", value, "an integer, 1 or more");
    return value.get<int>();
  }

  Scoring scoring() const {
    const std::string name = text_or("scoring", "all");
    if (name == "all") return Scoring::all;
    if (name == "part") return Scoring::part;
    fail("field 'scoring' is \"" + name + "\"; there are \"all\" and \"part\"");
  }

  [[noreturn]] void fail(const std::string& why) const { throw Error(where_ + why); }

 private:
  static std::string what(const Json& value) {
    if (value.is_structured()) return "an " + std::string(value.type_name());
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 40) text = text.substr(0, 40) + "...";
    return text;
  }

  const Json& at(const char* field) const {
    if (!json_.contains(field)) {
      fail("field '" + std::string(field) +
           "' is missing; a line has context, question, answer_prefix, answer and max_new_tokens");
    }
    return json_[field];
  }

  [[noreturn]] void fail_type(const char* field, const Json& value, const char* wanted) const {
    fail("field '" + std::string(field) + "' is " + what(value) + "; it must be " + wanted);
  }

  std::string where_;
  Json json_;
};

// A line's query without tokens.
Query read_query(const Line& line, const std::string& task) {
  Query query = {.task = line.text_or("task", task),
                 .scoring = line.scoring(),
                 .question = line.text("question"),
                 .answer_prefix = line.text("answer_prefix"),
                 .answers = line.answers(),
                 .max_new_tokens = line.max_new_tokens(),
                 .stop = line.text_or("stop", "")};
  if (query.question.empty() && query.answer_prefix.empty()) {
    line.fail("fields 'question' and 'answer_prefix' are both empty; one must ask for an answer");
  }
  return query;
}

// Where a document says the answers.
std::vector<ByteRange> mentions(const std::string& text, const std::vector<std::string>& answers) {
  std::vector<ByteRange> ranges;
  for (const std::string& answer : answers) {
    for (size_t at = text.find(answer); at != std::string::npos; at = text.find(answer, at + 1)) {
      ranges.push_back({at, at + answer.size()});
    }
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const ByteRange& a, const ByteRange& b) { return a.begin < b.begin; });
  return ranges;
}

class JsonlSource final : public TaskSource {
 public:
  JsonlSource(const Tokenizer& tokenizer, const std::string& path)
      : tokenizer_(tokenizer), path_(path), task_(std::filesystem::path(path).stem().string()) {
    find_samples();
  }

  const std::string& task() const override { return task_; }
  std::optional<int64_t> n_samples() const override { return std::ssize(places_); }

  Sample make(int64_t number) const override {
    if (number < 0 || number >= std::ssize(places_)) {
      throw Error(path_ + " has " + std::to_string(places_.size()) + " samples; sample " +
                  std::to_string(number) + " is not one of them");
    }
    const Place& place = places_[static_cast<size_t>(number)];
    std::ifstream file = open();
    file.seekg(place.offset);
    Sample sample;
    std::string text;
    for (int64_t i = 0; i < place.n_lines && std::getline(file, text); ++i) {
      if (is_blank(text)) continue;
      const Line line(path_, place.line + i, text);
      if (sample.queries.empty()) sample.text = line.text("context");
      sample.queries.push_back(read_query(line, task_));
    }
    return with_tokens(std::move(sample));
  }

 private:
  // The lines of one sample.
  struct Place {
    std::streamoff offset;
    int64_t line, n_lines;
  };

  static bool is_blank(const std::string& text) {
    return text.find_first_not_of(" \t\r") == std::string::npos;
  }

  std::ifstream open() const {
    std::ifstream file(path_, std::ios::binary);
    if (!file || std::filesystem::is_directory(path_)) throw Error(path_ + ": cannot be read");
    return file;
  }

  void find_samples() {
    std::ifstream file = open();
    std::string text, context;
    std::streamoff offset = 0;
    for (int64_t number = 1; std::getline(file, text); ++number) {
      const std::streamoff begin = offset;
      offset += static_cast<std::streamoff>(text.size()) + 1;
      if (is_blank(text)) continue;
      const Line line(path_, number, text);
      read_query(line, task_);  // checks the fields
      std::string its_context = line.text("context");
      if (its_context.empty()) line.fail("field 'context' is empty; it is what is prefilled");
      if (places_.empty() || its_context != context) places_.push_back({begin, number, 0});
      places_.back().n_lines = number - places_.back().line + 1;
      context = std::move(its_context);
    }
    if (places_.empty()) throw Error(path_ + ": has no samples; each line is one JSON object");
  }

  Sample with_tokens(Sample sample) const {
    sample.task = sample.queries.front().task;
    sample.tokens = encode_document(tokenizer_, sample.text);
    for (Query& query : sample.queries) {
      query.tokens = encode_continuation(tokenizer_, query.question + query.answer_prefix);
      query.evidence = token_ranges(tokenizer_, sample.tokens, sample.text,
                                    mentions(sample.text, query.answers));
    }
    return sample;
  }

  const Tokenizer& tokenizer_;
  std::string path_, task_;
  std::vector<Place> places_;
};

}  // namespace

std::unique_ptr<TaskSource> open_jsonl(const Tokenizer& tokenizer, const std::string& path) {
  return std::make_unique<JsonlSource>(tokenizer, path);
}

int64_t write_jsonl(const Sample& sample, std::ostream& out) {
  int64_t written = 0;
  for (const Query& query : sample.queries) {
    if (query.max_new_tokens == 0) continue;
    nlohmann::ordered_json line;
    line["context"] = sample.text;
    line["question"] = query.question;
    line["answer_prefix"] = query.answer_prefix;
    line["answer"] = query.answers;
    line["max_new_tokens"] = query.max_new_tokens;
    line["task"] = query.task;
    line["scoring"] = query.scoring == Scoring::part ? "part" : "all";
    line["stop"] = query.stop;
    out << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    ++written;
  }
  return written;
}

}  // namespace hata::eval
