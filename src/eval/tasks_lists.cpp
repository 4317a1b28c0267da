#include <algorithm>
#include <numeric>

#include "eval/task_forms.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

constexpr size_t kCommon = 5, kCommonRatio = 10;  // each as often as ten others
constexpr size_t kDistinct = 900;                 // other words of a common-words list, at most
constexpr size_t kFrequent = 3;

// How often each word of a list occurs, the words asked for first.
using Counts = std::vector<size_t>;

size_t rounded_up(size_t a, size_t b) { return (a + b - 1) / b; }

Counts common_counts(Author& author, size_t n) {
  const size_t others = std::min(kDistinct, author.words().size() - kCommon);
  const size_t rare =
      std::max(1 + author.random().below(3), rounded_up(n, others + kCommonRatio * kCommon));
  const size_t often = std::min(kCommonRatio * rare, n / 2 / kCommon);
  Counts counts(kCommon, often);
  for (size_t left = n - kCommon * often; left > 0; left -= counts.back()) {
    counts.push_back(std::min(rare, left));
  }
  return counts;
}

// Frequencies that fall with the square of the rank (RULER's, alpha 2); what rounding leaves goes
// to the first.
Counts frequent_counts(Author& author, size_t n) {
  const size_t size = std::min({size_t{1000}, author.words().size(), std::max<size_t>(20, n / 20)});
  double sum = 0;
  for (size_t rank = 1; rank <= size; ++rank) sum += 1.0 / static_cast<double>(rank * rank);
  Counts counts;
  for (size_t rank = 1; rank <= size; ++rank) {
    counts.push_back(
        static_cast<size_t>(static_cast<double>(n) / static_cast<double>(rank * rank) / sum));
  }
  counts.front() += n - std::accumulate(counts.begin(), counts.end(), size_t{0});
  return counts;
}

// Words in random order, those first that are no part of another word: what is found in an answer
// is then what was said.
std::vector<std::string> listed_words(Author& author, size_t n, size_t n_asked) {
  auto words = author.different_words(author.words().size());
  std::vector<std::string> bare;
  for (const auto& w : words) bare.push_back(w.substr(1));
  const auto stands_alone = [&](const std::string& word) {
    return std::count_if(bare.begin(), bare.end(), [&](const std::string& other) {
             return other.find(word.substr(1)) != std::string::npos;
           }) == 1;
  };
  size_t chosen = 0;
  for (size_t i = 0; i < words.size() && chosen < n_asked; ++i) {
    if (stands_alone(words[i])) std::swap(words[i], words[chosen++]);
  }
  words.resize(n);
  return words;
}

// The list, a word a piece, in random order; asks for the first n_asked words.
void write_list(Author& author, const std::string& task, const std::string& head,
                const std::string& question, const Counts& counts, size_t n_asked) {
  const auto words = listed_words(author, counts.size(), n_asked);
  std::vector<size_t> body;
  for (size_t w = 0; w < counts.size(); ++w) body.insert(body.end(), counts[w], w);
  author.random().shuffle(body);

  uint64_t place = 0;
  std::vector<FactId> evidence;
  author.fact_at(place, head);
  for (const size_t w : body) {
    const FactId id = author.fact_at(++place, words[w]);
    if (w < n_asked) evidence.push_back(id);
  }
  author.fact_at(++place, "\n");

  std::string model;
  std::vector<std::string> answers;
  for (size_t w = 0; w < n_asked; ++w) {
    model += " " + std::to_string(w + 1) + words[w];
    answers.push_back(words[w].substr(1));
  }
  author.open_question(task, question, model, answers, evidence);
}

// Words that a list between `head` and a line break can have.
size_t room(const Author& author, const std::string& head, size_t n_tokens) {
  const size_t used = author.used() + author.length(head) + author.length("\n");
  constexpr size_t kMinWords = 100;  // fewer: frequencies mean little
  if (n_tokens < used + kMinWords) {
    throw Error("a document of " + std::to_string(n_tokens) +
                " tokens is too short for a list of words; make it longer");
  }
  return n_tokens - used;
}

void write_common(Author& author, size_t n_tokens) {
  const size_t n = room(author, "words:", n_tokens);
  write_list(author, "common", "words:", "common:", common_counts(author, n), kCommon);
}

void write_frequent(Author& author, size_t n_tokens) {
  const size_t n = room(author, "coded:", n_tokens);
  write_list(author, "frequent", "coded:", "frequent:", frequent_counts(author, n), kFrequent);
}

const ListTask kListTasks[] = {
    {"common", "the five words of a list that are ten times as frequent as others (one a document)",
     write_common},
    {"frequent", "the three most frequent words of a list (one question a document)",
     write_frequent},
};

}  // namespace

std::span<const ListTask> list_tasks() { return kListTasks; }

}  // namespace hata::eval
