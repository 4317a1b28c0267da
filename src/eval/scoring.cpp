#include "eval/scoring.h"

#include <algorithm>

namespace hata::eval {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// As RULER prepares what a model said: control characters are line breaks, none around it.
std::string prepared(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = '\n';
  }
  const size_t begin = text.find_first_not_of(" \n");
  return begin == std::string::npos ? ""
                                    : text.substr(begin, text.find_last_not_of(" \n") - begin + 1);
}

std::string in_small_letters(std::string text) {
  for (char& c : text) c = lower(c);
  return text;
}

}  // namespace

double score_tokens(const Query& query, std::span<const Token> said) {
  const auto expected = query.part(true);
  return std::equal(said.begin(), said.end(), expected.begin(), expected.end()) ? 1 : 0;
}

double score_text(const Query& query, const std::string& said) {
  const std::string text = in_small_letters(prepared(said));
  const auto found =
      std::count_if(query.answers.begin(), query.answers.end(), [&](const std::string& answer) {
        return text.find(in_small_letters(answer)) != std::string::npos;
      });
  if (query.scoring == Scoring::part) return found > 0 ? 1 : 0;
  return query.answers.empty()
             ? 0
             : static_cast<double>(found) / static_cast<double>(query.answers.size());
}

}  // namespace hata::eval
