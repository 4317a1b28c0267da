#include "eval/author.h"

#include <algorithm>
#include <set>

#include "hata/types.h"

namespace hata::eval {
namespace {

constexpr const char* kNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n";
constexpr size_t kMinWords = 256;

std::string without_spaces_around(const std::string& text) {
  const size_t begin = text.find_first_not_of(' ');
  return begin == std::string::npos ? ""
                                    : text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

// Tokens from the first asked one to the last, where what stands between can be generated, too: on
// one line. Else 0.
int answer_length(const Query& query, const std::string& text_between) {
  if (text_between.find('\n') != std::string::npos) return 0;
  const auto last = std::find(query.is_answer.rbegin(), query.is_answer.rend(), true);
  return static_cast<int>(query.is_answer.rend() - last) - static_cast<int>(query.first_answer());
}

// Question, answers and the rest, as the pieces have them.
void add_text(const std::vector<Piece>& pieces, Query& query) {
  std::string given, between;
  for (const Piece& piece : pieces) {
    if (piece.answer) {
      between += given;
      given.clear();
      query.answers.push_back(without_spaces_around(piece.text));
    } else {
      (query.answers.empty() ? query.question : given) += piece.text;
    }
  }
  query.max_new_tokens = answer_length(query, between);
  query.stop = "\n";
}

}  // namespace

Author::Author(const Tokenizer& tokenizer, uint64_t seed) : tokenizer_(tokenizer), random_(seed) {
  if (words().size() < kMinWords) {
    throw Error("the model's vocabulary has " + std::to_string(words().size()) +
                " of the list's words as single tokens; the tasks need " +
                std::to_string(kMinWords) + " (RULER's text form needs none: --task ruler)");
  }
}

std::string Author::words_in_a_row(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += word();
  return text;
}

std::vector<std::string> Author::different_words(size_t n) {
  if (n > words().size()) throw Error("the tasks need more words than the vocabulary has");
  std::vector<std::string> all = words();
  random_.shuffle(all);
  all.resize(n);
  for (auto& w : all) w.insert(0, " ");
  return all;
}

std::string Author::number(int groups) {
  std::string text;
  for (int i = 0; i < groups; ++i) {
    const std::string digits = std::to_string(random_.below(1000));
    text += std::string(3 - digits.size(), '0') + digits;
  }
  return text;
}

std::vector<std::string> Author::different(size_t n, const std::function<std::string()>& make) {
  std::set<std::string> seen;
  std::vector<std::string> texts;
  for (size_t tries = 0; texts.size() < n; ++tries) {
    if (tries > 100 * n + 1000) throw Error("the tasks need more keys than there are");
    std::string text = make();
    if (seen.insert(text).second) texts.push_back(std::move(text));
  }
  return texts;
}

FactId Author::fact_at(uint64_t place, const std::string& text) {
  const FactId id = facts_.size();
  facts_.push_back({place, tokenizer_.encode(text), static_cast<int64_t>(id)});
  return id;
}

std::vector<uint64_t> Author::places(int n) {
  std::vector<uint64_t> places;
  for (int i = 0; i < n; ++i) places.push_back(random_.next());
  std::sort(places.begin(), places.end());
  return places;
}

void Author::question(const std::string& task, const std::vector<Piece>& pieces,
                      const std::vector<FactId>& evidence) {
  Query query{.task = task, .scoring = Scoring::tokens};
  for (const Piece& piece : pieces) {
    const auto tokens = tokenizer_.encode(piece.text);
    query.tokens.insert(query.tokens.end(), tokens.begin(), tokens.end());
    query.is_answer.resize(query.tokens.size(), piece.answer);
  }
  add_text(pieces, query);
  queries_.push_back(std::move(query));
  evidence_.push_back(evidence);
}

void Author::open_question(const std::string& task, const std::string& question,
                           const std::string& model, const std::vector<std::string>& answers,
                           const std::vector<FactId>& evidence) {
  queries_.push_back({.task = task,
                      .scoring = Scoring::all,
                      .tokens = tokenizer_.encode(question),
                      .question = question,
                      .answers = answers,
                      .max_new_tokens = static_cast<int>(length(model)),
                      .stop = "\n"});
  evidence_.push_back(evidence);
}

// Text that reads a little like prose: common words in two sentences a line.
std::string Author::hay_line(Hay hay) {
  if (hay == Hay::noise) return kNoise;
  std::string line;
  for (int sentence = 0; sentence < 2; ++sentence) {
    line += sentence == 0 ? "The" : " The";
    line += words_in_a_row(4 + static_cast<int>(random_.below(4))) + " and";
    line += words_in_a_row(3 + static_cast<int>(random_.below(4))) + " of the";
    line += words_in_a_row(3 + static_cast<int>(random_.below(4))) + ".";
  }
  return line + "\n";
}

// Whole lines while they fit; before them a line of single words that takes the rest (at the end,
// an empty one would melt into the line break before it).
std::vector<Author::Line> Author::hay_lines(Hay hay, size_t n_tokens) {
  std::vector<Line> lines = {{0, {}}};
  size_t left = n_tokens;
  for (;;) {
    auto tokens = tokenizer_.encode(hay_line(hay));
    if (tokens.size() > left) break;
    left -= tokens.size();
    lines.push_back({0, std::move(tokens)});
  }
  if (left > 0) {
    lines[0].tokens = tokenizer_.encode(words_in_a_row(static_cast<int>(left) - 1) + "\n");
  }
  for (size_t i = 0; i < lines.size(); ++i) lines[i].place = ~uint64_t{0} / lines.size() * i;
  return lines;
}

size_t Author::used() const {
  size_t used = tokenizer_.start().size();
  for (const Line& fact : facts_) used += fact.tokens.size();
  return used;
}

Sample Author::finish(Hay hay, int64_t n_tokens) {
  if (used() > static_cast<size_t>(n_tokens)) {
    throw Error("a document of " + std::to_string(n_tokens) +
                " tokens cannot hold its facts, which take " + std::to_string(used()) +
                "; make it longer or ask less");
  }
  std::vector<Line> lines = hay_lines(hay, static_cast<size_t>(n_tokens) - used());
  std::vector<TokenRange> places(facts_.size());
  lines.insert(lines.end(), std::make_move_iterator(facts_.begin()),
               std::make_move_iterator(facts_.end()));
  std::stable_sort(lines.begin(), lines.end(),
                   [](const Line& a, const Line& b) { return a.place < b.place; });

  Sample sample{.tokens = tokenizer_.start(), .queries = std::move(queries_)};
  const size_t n_start = sample.tokens.size();
  for (const Line& line : lines) {
    const auto begin = static_cast<int64_t>(sample.tokens.size());
    sample.tokens.insert(sample.tokens.end(), line.tokens.begin(), line.tokens.end());
    if (line.fact >= 0) {
      places[static_cast<size_t>(line.fact)] = {begin, static_cast<int64_t>(sample.tokens.size())};
    }
  }
  if (sample.tokens.size() != static_cast<size_t>(n_tokens)) {
    throw Error("the model's tokenizer does not keep words apart: a document of " +
                std::to_string(n_tokens) + " tokens came out with " +
                std::to_string(sample.tokens.size()));
  }
  sample.text = tokenizer_.decode(std::span<const Token>(sample.tokens).subspan(n_start));
  for (size_t q = 0; q < sample.queries.size(); ++q) {
    auto& evidence = sample.queries[q].evidence;
    for (const FactId id : evidence_[q]) evidence.push_back(places[id]);
    std::sort(evidence.begin(), evidence.end(),
              [](const TokenRange& a, const TokenRange& b) { return a.begin < b.begin; });
  }
  return sample;
}

}  // namespace hata::eval
