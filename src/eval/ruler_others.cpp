// RULER's variable tracking, common words and frequent words.
#include <algorithm>
#include <numbers>
#include <set>

#include "eval/ruler_draft.h"
#include "eval/words.h"

namespace hata::eval {
namespace {

// --- vt: variables that are set to one another

constexpr int kHops = 4;
constexpr int64_t kExampleLines = 14;  // of noise; RULER fills 500 tokens

struct Chain {
  std::string value;
  std::vector<std::string> names;
};

// Different names of n letters and different values.
std::vector<Chain> make_chains(Random& random, int n_chains, int n_letters) {
  std::set<std::string> names, values;
  std::vector<Chain> chains(static_cast<size_t>(n_chains));
  for (Chain& chain : chains) {
    do {
      chain.value = random_number(random, 5);
    } while (!values.insert(chain.value).second);
    while (std::ssize(chain.names) <= kHops) {
      const std::string name = random_letters(random, 'A', n_letters);
      if (names.insert(name).second) chain.names.push_back(name);
    }
  }
  return chains;
}

std::string assignment(const Chain& chain, size_t hop) {
  if (hop == 0) return "VAR " + chain.names[0] + " = " + chain.value;
  return "VAR " + chain.names[hop] + " = VAR " + chain.names[hop - 1] + " ";
}

DraftQuery ask(const Chain& chain) {
  return {.question = "Question: Find all variables that are assigned the value " + chain.value +
                      " in the text above.",
          .answer_prefix =
              " Answer: According to the chain(s) of variable assignment in the text "
              "above, " +
              std::to_string(chain.names.size()) + " variables are assigned the value " +
              chain.value + ", they are: ",
          .answers = chain.names};
}

// The text of the chains in n lines of noise.
void append_chains(Draft& draft, Random& random, const std::vector<Chain>& chains, int64_t n) {
  std::vector<std::pair<size_t, Unit>> added;
  for (size_t c = 0; c < chains.size(); ++c) {
    size_t hop = 0;
    for (const size_t place : different_places(random, kHops + 1, static_cast<size_t>(n))) {
      added.push_back({place, {assignment(chains[c], hop++), static_cast<int>(c)}});
    }
  }
  draft.text +=
      "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n";
  append(draft, mix(std::vector<Unit>(static_cast<size_t>(n), {kRulerNoise}), std::move(added)),
         "\n");
  draft.text += "\n";
}

// An example with its answer, as a text before the document.
std::string solved_chain(Random& random) {
  const auto chains = make_chains(random, 1, 3);
  Draft example{.text = {}, .queries = {ask(chains[0])}};
  append_chains(example, random, chains, kExampleLines);
  example.text += example.queries[0].question + example.queries[0].answer_prefix;
  for (const std::string& name : chains[0].names) example.text += " " + name;
  return example.text + "\n\n";
}

Draft draft_chains(Random random, const DraftOrder& order) {
  const auto chains = make_chains(random, order.n_queries, 5);
  Draft draft{.text = solved_chain(random), .queries = {}};
  for (const Chain& chain : chains) draft.queries.push_back(ask(chain));
  append_chains(draft, random, chains, order.n_units);
  return draft;
}

// --- cwe: the ten words of a list that come most often

constexpr size_t kCommon = 10;

struct Repeats {
  size_t common, others;
};

// n different words; pairs of words where the list of words does not suffice.
std::vector<std::string> sample_words(Random& random, size_t n) {
  std::vector<std::string> words(word_list().begin(), word_list().end());
  if (n <= words.size()) {
    random.shuffle(words);
    words.resize(n);
    return words;
  }
  std::set<std::string> seen;
  words.clear();
  while (words.size() < n) {
    const std::string pair = random_word_pair(random);
    if (seen.insert(pair).second) words.push_back(pair);
  }
  return words;
}

std::string numbered(size_t i, const std::string& word) {
  return std::to_string(i + 1) + ". " + word;
}

// A list of n different words and the question for the common ones.
void append_list(Draft& draft, Random& random, size_t n, const Repeats& repeats) {
  const auto words = sample_words(random, n);
  std::vector<Unit> units;
  for (size_t w = 0; w < n; ++w) {
    const bool common = w < kCommon;
    units.insert(units.end(), common ? repeats.common : repeats.others,
                 {words[w], common ? 0 : -1});
  }
  random.shuffle(units);
  for (size_t i = 0; i < units.size(); ++i) units[i].text = numbered(i, units[i].text);
  draft.queries = {
      {.question = "Question: What are the 10 most common words in the above list?",
       .answer_prefix = " Answer: The top 10 words that appear most often in the list are:",
       .answers = {words.begin(), words.begin() + kCommon}}};
  draft.text +=
      "Below is a numbered list of words. In these words, some appear more often than others. "
      "Memorize the ones that appear most often.\n";
  append(draft, units, " ");
  draft.text += "\n";
}

Draft draft_common(Random random, const DraftOrder& order) {
  const bool is_short = order.n_tokens < 4096;
  Draft example;
  append_list(example, random, is_short ? 20 : 40, is_short ? Repeats{3, 1} : Repeats{10, 3});
  const DraftQuery& solved = example.queries[0];
  example.text += solved.question + solved.answer_prefix;
  for (size_t i = 0; i < kCommon; ++i) example.text += " " + numbered(i, solved.answers[i]);
  Draft draft{.text = example.text + "\n", .queries = {}};
  append_list(draft, random, static_cast<size_t>(order.n_units),
              is_short ? Repeats{6, 1} : Repeats{30, 3});
  return draft;
}

// --- fwe: the three coded words that come most often

constexpr int kFrequent = 3, kCodedLetters = 6, kFrequentAnswer = 50;

Draft draft_frequent(Random random, const DraftOrder& order) {
  const int64_t n_words = std::max<int64_t>((order.n_tokens - kFrequentAnswer) / 50, 8);
  std::set<std::string> seen = {"..."};
  std::vector<std::string> words = {"..."};  // the most frequent is noise
  while (std::ssize(words) < n_words) {
    const std::string word = random_letters(random, 'a', kCodedLetters);
    if (seen.insert(word).second) words.push_back(word);
  }
  constexpr double kZeta2 = std::numbers::pi * std::numbers::pi / 6;
  std::vector<Unit> units;
  for (size_t w = 0; w < words.size(); ++w) {
    const auto rank = static_cast<double>(w + 1);
    const double count = static_cast<double>(order.n_units) / (rank * rank) / kZeta2;
    units.insert(units.end(), static_cast<size_t>(count),
                 {words[w], w > 0 && w <= kFrequent ? 0 : -1});
  }
  random.shuffle(units);

  Draft draft{
      .text =
          "Read the following coded text and track the frequency of each coded word. Find the "
          "three most frequently appeared coded words. ",
      .queries = {{.question = "Question: Do not provide any explanation. Please ignore the dots "
                               "'....'. What are the three most frequently appeared words in the "
                               "above coded text?",
                   .answer_prefix = " Answer: According to the coded text above, the three most "
                                    "frequently appeared words are:",
                   .answers = {words.begin() + 1, words.begin() + 1 + kFrequent}}}};
  append(draft, units, " ");
  draft.text += "\n";
  return draft;
}

}  // namespace

std::vector<RulerTask> ruler_other_tasks() {
  return {
      {"vt", "all variables that hold a value, over chains of assignments", 30,
       [](int) { return int64_t{kHops + 1}; }, draft_chains},
      {"cwe", "the ten most common words of a numbered list (one query a document)", 120,
       [](int) { return int64_t{kCommon + 1}; }, draft_common},
      {"fwe", "the three most frequent coded words (one query a document)", kFrequentAnswer,
       [](int) { return int64_t{100}; }, draft_frequent},
  };
}

}  // namespace hata::eval
