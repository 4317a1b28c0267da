// Writes one document: facts at random places in a haystack, and questions about them, all from
// pieces whose tokens are known.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/random.h"
#include "eval/sample.h"
#include "eval/tokenizer.h"

namespace hata::eval {

/// What fills a document between its facts: one line again and again, or lines of random words.
enum class Hay { noise, text };

/// A piece of a question: given to the model, or asked from it.
struct Piece {
  std::string text;
  bool answer;
};

using FactId = size_t;

class Author {
 public:
  /// Throws Error where the vocabulary has too few words.
  Author(const Tokenizer& tokenizer, uint64_t seed);

  Random& random() { return random_; }
  const std::vector<std::string>& words() const { return tokenizer_.words(); }

  /// A random word; like every word of an author, it comes with its leading space.
  std::string word() { return " " + words()[random_.below(words().size())]; }
  std::string words_in_a_row(int n);
  /// n different words, in random order.
  std::vector<std::string> different_words(size_t n);
  /// Numbers of 3 digits a token: "007", or several of them without a space.
  std::string number(int groups);
  /// n different texts drawn from `make`.
  std::vector<std::string> different(size_t n, const std::function<std::string()>& make);

  /// Tokens of a text.
  size_t length(const std::string& text) const { return tokenizer_.encode(text).size(); }

  /// Facts come in the order of their places; without one, at a random place.
  FactId fact(const std::string& text) { return fact_at(random_.next(), text); }
  FactId fact_at(uint64_t place, const std::string& text);
  /// n places in ascending order, for facts that build on one another.
  std::vector<uint64_t> places(int n);

  /// A question that is asked token by token; `evidence`: the facts that its answer needs.
  void question(const std::string& task, const std::vector<Piece>& pieces,
                const std::vector<FactId>& evidence);
  /// A question whose answers are looked for in what is generated: up to as many tokens as `model`
  /// has, a right answer in the form that the model gives it.
  void open_question(const std::string& task, const std::string& question, const std::string& model,
                     const std::vector<std::string>& answers, const std::vector<FactId>& evidence);

  /// Tokens that facts and what the model wants at the start take.
  size_t used() const;
  /// The document: facts and hay in order of their places, exactly n_tokens long.
  Sample finish(Hay hay, int64_t n_tokens);

 private:
  // A line of the document: a fact, or (-1) hay.
  struct Line {
    uint64_t place;
    std::vector<Token> tokens;
    int64_t fact = -1;
  };

  std::string hay_line(Hay hay);
  std::vector<Line> hay_lines(Hay hay, size_t n_tokens);

  const Tokenizer& tokenizer_;
  Random random_;
  std::vector<Line> facts_;
  std::vector<Query> queries_;
  std::vector<std::vector<FactId>> evidence_;  ///< [query]
};

}  // namespace hata::eval
