#include <algorithm>

#include "eval/task_forms.h"

namespace hata::eval {
namespace {

constexpr int kHops = 4;     // of a trace
constexpr int kValues = 4;   // of a multi-value key
constexpr int kQueried = 4;  // keys of a multi-query
constexpr int kPassageWords = 16;
constexpr int kPremiseLines = 5, kPremiseWords = 40;  // before a long question
constexpr int kAnsweredBefore = 40;                   // questions of a long session

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
    const FactId fact = author.fact(number_fact(keys[i], value));
    if (static_cast<int>(i) >= asked) continue;
    author.question(
        task, {{"Q: special number for" + keys[i] + "?\nA: ", false}, {value, true}, {"\n", false}},
        {fact});
  }
}

void write_key_values(Author& author, const std::string& task, int n, int asked, bool hard) {
  const auto keys = word_pairs(author, n, hard);
  for (int i = 0; i < n; ++i) {
    const std::string value = author.number(2);
    const FactId fact = author.fact("key" + keys[i] + ": " + value + "\n");
    if (i >= asked) continue;
    author.question(task, {{"get" + keys[i] + ": ", false}, {value, true}, {"\n", false}}, {fact});
  }
}

void write_ids(Author& author, int n, int asked) {
  const auto ids = id_triples(author, n);
  for (int i = 0; i < n; ++i) {
    const std::string value = author.number(3);
    const FactId fact = author.fact("id " + ids[i] + " = " + value + "\n");
    if (i >= asked) continue;
    author.question("ids", {{"find " + ids[i] + " = ", false}, {value, true}, {"\n", false}},
                    {fact});
  }
}

void write_multi_values(Author& author, int n, int asked) {
  const auto keys = author.different_words(n);
  for (int i = 0; i < n; ++i) {
    std::vector<Piece> pieces = {{"Q: all special numbers for" + keys[i] + "?\nA:", false}};
    std::vector<FactId> facts;
    for (const uint64_t place : author.places(kValues)) {
      const std::string value = author.number(2);
      facts.push_back(author.fact_at(place, number_fact(keys[i], value)));
      if (facts.size() > 1) pieces.push_back({",", false});
      pieces.insert(pieces.end(), {{" ", false}, {value, true}});
    }
    pieces.push_back({"\n", false});
    if (i < asked) author.question("multi-value", pieces, facts);
  }
}

// Questions for several keys in a row; the answers to the first ones stay in the context.
void write_multi_queries(Author& author, int n, int asked) {
  const auto keys = word_pairs(author, n * kQueried, false);
  for (int i = 0; i < n; ++i) {
    std::vector<Piece> pieces;
    std::vector<FactId> facts;
    for (int j = 0; j < kQueried; ++j) {
      const std::string& key = keys[static_cast<size_t>(i * kQueried + j)];
      const std::string value = author.number(2);
      facts.push_back(author.fact(number_fact(key, value)));
      pieces.insert(
          pieces.end(),
          {{"Q: special number for" + key + "?\nA: ", false}, {value, true}, {"\n", false}});
    }
    if (i < asked) author.question("multi-query", pieces, facts);
  }
}

void write_traces(Author& author, int n, int asked) {
  const auto names = author.different_words(static_cast<size_t>(n) * (kHops + 1));
  const auto values = author.different(n, [&] { return author.number(2); });
  for (int i = 0; i < n; ++i) {
    std::vector<Piece> pieces = {{"vars equal " + values[i] + ":", false}};
    std::vector<FactId> facts;
    std::string source = " " + values[i];
    for (const uint64_t place : author.places(kHops + 1)) {
      const auto& name = names[static_cast<size_t>(i) * (kHops + 1) + facts.size()];
      facts.push_back(author.fact_at(place, "let" + name + " =" + source + "\n"));
      pieces.push_back({name, true});
      source = name;
    }
    pieces.push_back({"\n", false});
    if (i < asked) author.question("trace", pieces, facts);
  }
}

void write_recall(Author& author, int n, int asked) {
  n = std::max(asked, std::min(n, static_cast<int>(author.words().size())));
  const auto keys = author.different_words(n);
  for (int i = 0; i < n; ++i) {
    const std::string value = author.word();
    const FactId fact = author.fact(keys[i] + " ->" + value + "\n");
    if (i >= asked) continue;
    author.question("recall", {{"?" + keys[i] + " =>", false}, {value, true}, {"\n", false}},
                    {fact});
  }
}

void write_passages(Author& author, int n, int asked) {
  const auto numbers = author.different(n, [&] { return author.number(1); });
  for (int i = 0; i < n; ++i) {
    const std::string passage = author.words_in_a_row(kPassageWords);
    const FactId fact = author.fact("passage " + numbers[i] + ":" + passage + "\n");
    if (i >= asked) continue;
    author.question("copy", {{"repeat " + numbers[i] + ":", false}, {passage, true}, {"\n", false}},
                    {fact});
  }
}

// Text of no use, then the question: its words lie far behind what a window of recent keys holds.
void write_long_questions(Author& author, int n, int asked) {
  const auto keys = word_pairs(author, n, false);
  for (int i = 0; i < n; ++i) {
    const std::string value = author.number(2);
    const FactId fact = author.fact(number_fact(keys[i], value));
    if (i >= asked) continue;
    std::string premise;
    for (int line = 0; line < kPremiseLines; ++line) {
      premise += "The" + author.words_in_a_row(kPremiseWords) + ".\n";
    }
    author.question("long-question",
                    {{premise + "Q: special number for" + keys[i] + "?\nA: ", false},
                     {value, true},
                     {"\n", false}},
                    {fact});
  }
}

// Many questions with their answers, then the one that is asked.
void write_long_sessions(Author& author, int n, int asked) {
  const auto keys = word_pairs(author, n, false);
  const auto question = [&](size_t i) { return "Q: special number for" + keys[i] + "?\nA: "; };
  std::vector<std::string> values;
  std::vector<FactId> facts;
  for (const std::string& key : keys) {
    values.push_back(author.number(2));
    facts.push_back(author.fact(number_fact(key, values.back())));
  }
  for (size_t i = 0; i < static_cast<size_t>(asked); ++i) {
    std::string before;
    for (size_t answered = 0; answered < static_cast<size_t>(kAnsweredBefore);) {
      const size_t other = author.random().below(keys.size());
      if (other == i) continue;
      before += question(other) + values[other] + "\n";
      ++answered;
    }
    author.question("long-session",
                    {{before + question(i), false}, {values[i], true}, {"\n", false}}, {facts[i]});
  }
}

int all(int full, int) { return full; }
int as_asked(int, int asked) { return asked; }
int some(int full, int asked) { return std::max(asked, std::min(64, full / 3)); }

std::string sample_number(Author& a) { return number_fact(a.word() + a.word(), a.number(2)); }
std::string sample_pair(Author& a) { return "key" + a.word() + a.word() + ": 123456\n"; }

const FactTask kFactTasks[] = {
    {"needle", "a number for each of a few words, in fixed noise", Hay::noise, sample_number,
     as_asked,
     [](Author& a, int n, int asked) { write_numbers(a, "needle", a.different_words(n), asked); }},
    {"multi-key", "a number for each of many word pairs, in text", Hay::text, sample_number, some,
     [](Author& a, int n, int asked) {
       write_numbers(a, "multi-key", word_pairs(a, n, false), asked);
     }},
    {"multi-key-full", "the same, the document full of them", Hay::noise, sample_number, all,
     [](Author& a, int n, int asked) {
       write_numbers(a, "multi-key-full", word_pairs(a, n, false), asked);
     }},
    {"ids", "a nine-digit number for each nine-digit id, ids sharing parts, nothing else",
     Hay::noise, [](Author&) { return std::string("id 123456789 = 123456789\n"); }, all, write_ids},
    {"key-value", "a number for each pair of words, nothing else", Hay::noise, sample_pair, all,
     [](Author& a, int n, int asked) { write_key_values(a, "key-value", n, asked, false); }},
    {"key-value-hard", "the same, pairs sharing words", Hay::noise, sample_pair, all,
     [](Author& a, int n, int asked) { write_key_values(a, "key-value-hard", n, asked, true); }},
    {"multi-value", "four numbers for each word, asked for in order", Hay::text, sample_number,
     as_asked, write_multi_values},
    {"multi-query", "the numbers of four word pairs, asked for in a row", Hay::text, sample_number,
     as_asked, write_multi_queries},
    {"trace", "variables that were set to one another: all that hold a value", Hay::noise,
     [](Author& a) { return "let" + a.word() + " =" + a.word() + "\n"; }, as_asked, write_traces},
    {"recall", "word -> word, half of the document", Hay::text,
     [](Author& a) { return a.word() + " ->" + a.word() + "\n"; },
     [](int full, int asked) { return std::max(asked, std::min(full / 2, 1000)); }, write_recall},
    {"copy", "a passage of 16 words, by its number", Hay::text,
     [](Author& a) { return "passage 123:" + a.words_in_a_row(kPassageWords) + "\n"; },
     [](int full, int) { return std::min(full, 400); }, write_passages},
};

const FactTask kLongTasks[] = {
    {"long-question", "multi-key after 200 tokens of text that belong to the question", Hay::text,
     sample_number, some, write_long_questions},
    {"long-session", "multi-key after 40 other questions with their answers (600 tokens)",
     Hay::text, sample_number, some, write_long_sessions},
};

}  // namespace

std::span<const FactTask> fact_tasks() { return kFactTasks; }
std::span<const FactTask> long_tasks() { return kLongTasks; }

}  // namespace hata::eval
