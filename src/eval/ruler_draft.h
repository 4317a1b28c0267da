// A sample of RULER's as text, before it has tokens: what its tasks share.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/random.h"
#include "eval/encode.h"
#include "eval/sample.h"

namespace hata::eval {

struct DraftQuery {
  std::string question, answer_prefix;
  std::vector<std::string> answers;
  std::vector<ByteRange> evidence = {};  ///< of the document's text
};

struct Draft {
  std::string text;
  std::vector<DraftQuery> queries;
};

/// What a task is asked to draft. The larger `n_units`, the longer the text; what `random` gives
/// first (keys, values) does not depend on it.
struct DraftOrder {
  int64_t n_units;
  int n_queries;
  int64_t n_tokens;
};

struct RulerTask {
  const char* name;
  const char* help;
  int max_new_tokens;
  int64_t (*min_units)(int n_queries);
  Draft (*draft)(Random random, const DraftOrder& order);
};

/// A part of a context: a sentence, a line or a word; `query`: the one it is evidence for, or -1.
struct Unit {
  std::string text;
  int query = -1;
};

/// Appends the units to the draft's text and notes the evidence of its queries.
void append(Draft& draft, const std::vector<Unit>& units, const std::string& separator);

/// `added` between the units of `hay`: each before the unit at its place.
std::vector<Unit> mix(std::vector<Unit> hay, std::vector<std::pair<size_t, Unit>> added);

/// n different numbers below `end`, ascending.
std::vector<size_t> different_places(Random& random, size_t n, size_t end);

std::string random_word(Random& random);
std::string random_word_pair(Random& random);  ///< "memory-index"
std::string random_letters(Random& random, char first, int n);
std::string random_number(Random& random, int n_digits);  ///< without leading zeros

extern const char* const kRulerNoise;

/// A sentence of plain prose, in the place of RULER's essays.
std::string prose_sentence(Random& random);

std::vector<RulerTask> ruler_needle_tasks();
std::vector<RulerTask> ruler_other_tasks();

}  // namespace hata::eval
