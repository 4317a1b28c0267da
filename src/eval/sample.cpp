#include "eval/sample.h"

#include <algorithm>

namespace hata::eval {

std::vector<Token> Query::part(bool answer) const {
  if (is_answer.empty()) return answer ? std::vector<Token>{} : tokens;
  std::vector<Token> some;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (is_answer[i] == answer) some.push_back(tokens[i]);
  }
  return some;
}

size_t Query::first_answer() const {
  const auto first = std::find(is_answer.begin(), is_answer.end(), true);
  return first == is_answer.end() ? tokens.size() : static_cast<size_t>(first - is_answer.begin());
}

int64_t Sample::n_ctx() const {
  int64_t longest = 0;
  for (const Query& query : queries) {
    const auto put = static_cast<int64_t>(query.tokens.size());
    const auto generated = static_cast<int64_t>(query.first_answer()) + query.max_new_tokens;
    longest = std::max({longest, put, generated});
  }
  return static_cast<int64_t>(tokens.size()) + longest;
}

}  // namespace hata::eval
