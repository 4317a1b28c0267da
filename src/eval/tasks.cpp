#include "eval/tasks.h"

#include <algorithm>
#include <functional>
#include <set>
#include <unordered_set>

#include "eval/random.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

constexpr const char* kNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n";
constexpr int kHops = 4;    // of a trace
constexpr int kValues = 4;  // of a multi-value key
constexpr int kPassageWords = 16;
constexpr int kQuoteGiven = 6, kQuoteAsked = 16;
constexpr size_t kMinWords = 256;

enum class Hay { noise, text };

// A piece of a question: given to the model, or asked from it.
struct Piece {
  std::string text;
  bool answer;
};

// A line of the document and where it belongs: lines are ordered by `place`.
struct Line {
  uint64_t place;
  std::vector<Token> tokens;
};

// Collects the facts and questions of one document.
class Author {
 public:
  Author(const Tokenizer& tokenizer, uint64_t seed) : tokenizer_(tokenizer), random_(seed) {
    if (tokenizer.words().size() < kMinWords) {
      throw Error("the model's vocabulary has " + std::to_string(tokenizer.words().size()) +
                  " of the list's words as single tokens; the tasks need " +
                  std::to_string(kMinWords));
    }
  }

  Random& random() { return random_; }
  const std::vector<std::string>& words() const { return tokenizer_.words(); }

  // Each word comes with its leading space.
  std::string word() { return " " + words()[random_.below(words().size())]; }
  std::string words_in_a_row(int n) {
    std::string text;
    for (int i = 0; i < n; ++i) text += word();
    return text;
  }
  // n different words, in random order.
  std::vector<std::string> different_words(size_t n) {
    if (n > words().size()) throw Error("the tasks need more words than the vocabulary has");
    std::vector<std::string> all = words();
    random_.shuffle(all);
    all.resize(n);
    for (auto& w : all) w.insert(0, " ");
    return all;
  }
  // Numbers of 3 digits a token: "007", or several of them without a space.
  std::string number(int groups) {
    std::string text;
    for (int i = 0; i < groups; ++i) {
      const std::string digits = std::to_string(random_.below(1000));
      text += std::string(3 - digits.size(), '0') + digits;
    }
    return text;
  }
  // n different texts drawn from `make`.
  std::vector<std::string> different(size_t n, const std::function<std::string()>& make) {
    std::set<std::string> seen;
    std::vector<std::string> texts;
    for (size_t tries = 0; texts.size() < n; ++tries) {
      if (tries > 100 * n + 1000) throw Error("the tasks need more keys than there are");
      std::string text = make();
      if (seen.insert(text).second) texts.push_back(std::move(text));
    }
    return texts;
  }

  void fact(const std::string& text) { fact_at(random_.next(), text); }
  void fact_at(uint64_t place, const std::string& text) {
    facts_.push_back({place, tokenizer_.encode(text)});
  }
  // n places in ascending order, for facts that build on one another.
  std::vector<uint64_t> places(int n) {
    std::vector<uint64_t> places;
    for (int i = 0; i < n; ++i) places.push_back(random_.next());
    std::sort(places.begin(), places.end());
    return places;
  }

  void question(const std::string& task, const std::vector<Piece>& pieces) {
    Question question{.task = task};
    for (const Piece& piece : pieces) {
      const auto tokens = tokenizer_.encode(piece.text);
      question.tokens.insert(question.tokens.end(), tokens.begin(), tokens.end());
      question.is_answer.resize(question.tokens.size(), piece.answer);
    }
    questions_.push_back(std::move(question));
  }

  // The document: facts and hay in order of their places, exactly n_tokens long.
  Document finish(Hay hay, int64_t n_tokens, int n_quotes);

  // Tokens of a fact line, to see how many fit.
  size_t length(const std::string& text) const { return tokenizer_.encode(text).size(); }

 private:
  std::string hay_line(Hay hay);
  void add_hay(Hay hay, size_t n_tokens, std::vector<Line>& lines);
  void ask_quotes(const std::vector<Line>& hay, int n);

  const Tokenizer& tokenizer_;
  Random random_;
  std::vector<Line> facts_;
  std::vector<Question> questions_;
};

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
void Author::add_hay(Hay hay, size_t n_tokens, std::vector<Line>& lines) {
  size_t left = n_tokens;
  lines.push_back({0, {}});
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
}

void Author::ask_quotes(const std::vector<Line>& hay, int n) {
  const auto asked = tokenizer_.encode("quote:");
  const auto line_end = tokenizer_.encode("\n");
  std::vector<const Line*> long_enough;
  for (const Line& line : hay) {
    if (line.tokens.size() > kQuoteGiven + kQuoteAsked) long_enough.push_back(&line);
  }
  if (long_enough.empty()) throw Error("the document is too short to quote from");
  for (int i = 0; i < n; ++i) {
    const Line& line = *long_enough[random_.below(long_enough.size())];
    const size_t last = line.tokens.size() - kQuoteGiven - kQuoteAsked;
    const auto begin = line.tokens.begin() + static_cast<int64_t>(random_.below(last));
    Question question{.task = "quote", .tokens = asked};
    question.tokens.insert(question.tokens.end(), begin, begin + kQuoteGiven + kQuoteAsked);
    question.is_answer.assign(question.tokens.size(), false);
    std::fill(question.is_answer.end() - kQuoteAsked, question.is_answer.end(), true);
    question.tokens.insert(question.tokens.end(), line_end.begin(), line_end.end());
    question.is_answer.resize(question.tokens.size(), false);
    questions_.push_back(std::move(question));
  }
}

Document Author::finish(Hay hay, int64_t n_tokens, int n_quotes) {
  Document document;
  document.tokens = tokenizer_.start();
  size_t used = document.tokens.size();
  for (const Line& fact : facts_) used += fact.tokens.size();
  if (used > static_cast<size_t>(n_tokens)) {
    throw Error("a document of " + std::to_string(n_tokens) +
                " tokens cannot hold its facts, which take " + std::to_string(used) +
                "; make it longer or ask less");
  }
  std::vector<Line> lines;
  add_hay(hay, static_cast<size_t>(n_tokens) - used, lines);
  if (n_quotes > 0) ask_quotes(lines, n_quotes);
  lines.insert(lines.end(), std::make_move_iterator(facts_.begin()),
               std::make_move_iterator(facts_.end()));
  std::stable_sort(lines.begin(), lines.end(),
                   [](const Line& a, const Line& b) { return a.place < b.place; });
  for (const Line& line : lines) {
    document.tokens.insert(document.tokens.end(), line.tokens.begin(), line.tokens.end());
  }
  if (document.tokens.size() != static_cast<size_t>(n_tokens)) {
    throw Error("the model's tokenizer does not keep words apart: a document of " +
                std::to_string(n_tokens) + " tokens came out with " +
                std::to_string(document.tokens.size()));
  }
  document.questions = std::move(questions_);
  return document;
}

// --- the kinds of facts ------------------------------------------------------------------------
// Each adds `n` facts and asks about the first `asked` of them (their places are random).

// Pairs of words; `hard`: from few words, so that many pairs share one.
std::vector<std::string> word_pairs(Author& author, int n, bool hard) {
  if (!hard) return author.different(n, [&] { return author.word() + author.word(); });
  int side = 4;
  while (side * side < 2 * n) ++side;
  const auto pool = author.different_words(side);
  return author.different(
      n, [&] { return pool[author.random().below(side)] + pool[author.random().below(side)]; });
}

// Ids of three parts, from few parts, so that many ids share some.
std::vector<std::string> id_triples(Author& author, int n) {
  int side = 3;
  while (side * side * side < 2 * n) ++side;
  const auto pool = author.different(side, [&] { return author.number(1); });
  return author.different(n, [&] {
    std::string id;
    for (int i = 0; i < 3; ++i) id += pool[author.random().below(side)];
    return id;
  });
}

std::string number_fact(const std::string& key, const std::string& value) {
  return "The special number for" + key + " is: " + value + ".\n";
}

void write_numbers(Author& author, const std::string& task, const std::vector<std::string>& keys,
                   int asked) {
  for (size_t i = 0; i < keys.size(); ++i) {
    const std::string value = author.number(2);
    author.fact(number_fact(keys[i], value));
    if (static_cast<int>(i) >= asked) continue;
    author.question(
        task,
        {{"Q: special number for" + keys[i] + "?\nA: ", false}, {value, true}, {"\n", false}});
  }
}

void write_key_values(Author& author, const std::string& task, int n, int asked, bool hard) {
  const auto keys = word_pairs(author, n, hard);
  for (int i = 0; i < n; ++i) {
    const std::string value = author.number(2);
    author.fact("key" + keys[i] + ": " + value + "\n");
    if (i < asked) {
      author.question(task, {{"get" + keys[i] + ": ", false}, {value, true}, {"\n", false}});
    }
  }
}

void write_ids(Author& author, int n, int asked) {
  const auto ids = id_triples(author, n);
  for (int i = 0; i < n; ++i) {
    const std::string value = author.number(3);
    author.fact("id " + ids[i] + " = " + value + "\n");
    if (i < asked) {
      author.question("ids", {{"find " + ids[i] + " = ", false}, {value, true}, {"\n", false}});
    }
  }
}

void write_multi_values(Author& author, int n, int asked) {
  const auto keys = author.different_words(n);
  for (int i = 0; i < n; ++i) {
    std::vector<Piece> pieces = {{"Q: all special numbers for" + keys[i] + "?\nA:", false}};
    for (const uint64_t place : author.places(kValues)) {
      const std::string value = author.number(2);
      author.fact_at(place, number_fact(keys[i], value));
      if (pieces.size() > 1) pieces.push_back({",", false});
      pieces.insert(pieces.end(), {{" ", false}, {value, true}});
    }
    pieces.push_back({"\n", false});
    if (i < asked) author.question("multi-value", pieces);
  }
}

void write_traces(Author& author, int n, int asked) {
  const auto names = author.different_words(static_cast<size_t>(n) * (kHops + 1));
  const auto values = author.different(n, [&] { return author.number(2); });
  for (int i = 0; i < n; ++i) {
    const auto places = author.places(kHops + 1);
    std::string chain;
    for (int hop = 0; hop <= kHops; ++hop) {
      const auto& name = names[static_cast<size_t>(i) * (kHops + 1) + hop];
      const std::string source =
          hop == 0 ? " " + values[i] : names[static_cast<size_t>(i) * (kHops + 1) + hop - 1];
      author.fact_at(places[hop], "let" + name + " =" + source + "\n");
      chain += name;
    }
    if (i < asked) {
      author.question("trace",
                      {{"vars equal " + values[i] + ":", false}, {chain, true}, {"\n", false}});
    }
  }
}

void write_recall(Author& author, int n, int asked) {
  const auto keys = author.different_words(n);
  for (int i = 0; i < n; ++i) {
    const std::string value = author.word();
    author.fact(keys[i] + " ->" + value + "\n");
    if (i < asked) {
      author.question("recall", {{"?" + keys[i] + " =>", false}, {value, true}, {"\n", false}});
    }
  }
}

void write_passages(Author& author, int n, int asked) {
  const auto numbers = author.different(n, [&] { return author.number(1); });
  for (int i = 0; i < n; ++i) {
    const std::string passage = author.words_in_a_row(kPassageWords);
    author.fact("passage " + numbers[i] + ":" + passage + "\n");
    if (i < asked) {
      author.question("copy",
                      {{"repeat " + numbers[i] + ":", false}, {passage, true}, {"\n", false}});
    }
  }
}

// --- the tasks ---------------------------------------------------------------------------------

struct Task {
  const char* name;
  Hay hay;
  // A fact of this kind, to see how many fill a document.
  std::string (*sample)(Author& author);
  // How many facts, where `full` would fill the document.
  int (*count)(int full, int asked);
  void (*write)(Author& author, int n, int asked);
};

int all(int full, int) { return full; }
int as_asked(int, int asked) { return asked; }

std::string sample_number(Author& a) { return number_fact(a.word() + a.word(), a.number(2)); }
std::string sample_pair(Author& a) { return "key" + a.word() + a.word() + ": 123456\n"; }

const Task kTasks[] = {
    {"needle", Hay::noise, sample_number, as_asked,
     [](Author& a, int n, int asked) { write_numbers(a, "needle", a.different_words(n), asked); }},
    {"multi-key", Hay::text, sample_number,
     [](int full, int asked) { return std::max(asked, std::min(64, full / 3)); },
     [](Author& a, int n, int asked) {
       write_numbers(a, "multi-key", word_pairs(a, n, false), asked);
     }},
    {"multi-key-full", Hay::noise, sample_number, all,
     [](Author& a, int n, int asked) {
       write_numbers(a, "multi-key-full", word_pairs(a, n, false), asked);
     }},
    {"ids", Hay::noise, [](Author&) { return std::string("id 123456789 = 123456789\n"); }, all,
     write_ids},
    {"key-value", Hay::noise, sample_pair, all,
     [](Author& a, int n, int asked) { write_key_values(a, "key-value", n, asked, false); }},
    {"key-value-hard", Hay::noise, sample_pair, all,
     [](Author& a, int n, int asked) { write_key_values(a, "key-value-hard", n, asked, true); }},
    {"multi-value", Hay::text, sample_number, as_asked, write_multi_values},
    {"trace", Hay::noise, [](Author& a) { return "let" + a.word() + " =" + a.word() + "\n"; },
     as_asked, write_traces},
    {"recall", Hay::text, [](Author& a) { return a.word() + " ->" + a.word() + "\n"; },
     [](int full, int asked) { return std::max(asked, std::min(full / 2, 1000)); }, write_recall},
    {"copy", Hay::text,
     [](Author& a) { return "passage 123:" + a.words_in_a_row(kPassageWords) + "\n"; },
     [](int full, int) { return std::min(full, 400); }, write_passages},
};
constexpr const char* kQuote = "quote";  // has no facts: it asks for the text itself

const Task& find_task(const std::string& name) {
  for (const Task& task : kTasks) {
    if (name == task.name) return task;
  }
  std::string known;
  for (const std::string& task : task_names()) known += (known.empty() ? "" : ", ") + task;
  throw Error("task '" + name + "' is unknown; there are " + known);
}

}  // namespace

std::vector<Token> Question::part(bool answer) const {
  std::vector<Token> some;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (is_answer[i] == answer) some.push_back(tokens[i]);
  }
  return some;
}

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const Task& task : kTasks) names.emplace_back(task.name);
  names.emplace_back(kQuote);
  return names;
}

Document make_document(const Tokenizer& tokenizer, const std::string& name, int64_t n_tokens,
                       int n_questions, uint64_t seed) {
  Author author(tokenizer, seed);
  if (name == kQuote) return author.finish(Hay::text, n_tokens, n_questions);
  const Task& task = find_task(name);
  const auto full = static_cast<int>(static_cast<size_t>(n_tokens) * 97 / 100 /
                                     author.length(task.sample(author)));
  task.write(author, task.count(full, n_questions), n_questions);
  return author.finish(task.hay, n_tokens, 0);
}

Document make_mixed_document(const Tokenizer& tokenizer, const std::vector<std::string>& tasks,
                             int64_t n_tokens, int per_task, uint64_t seed) {
  Author author(tokenizer, seed);
  int n_quotes = 0;
  for (const std::string& name : tasks) {
    if (name == kQuote) {
      n_quotes = per_task;
    } else {
      find_task(name).write(author, 2 * per_task, per_task);
    }
  }
  return author.finish(Hay::text, n_tokens, n_quotes);
}

}  // namespace hata::eval
