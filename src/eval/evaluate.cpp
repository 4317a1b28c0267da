#include "eval/evaluate.h"

#include <algorithm>

#include "core/clock.h"
#include "hata/types.h"

namespace hata::eval {

Answer ask(Session& session, const Query& question, bool to_the_end) {
  const int64_t document = session.size();
  if (question.scoring != Scoring::tokens) {
    throw Error("task '" + question.task + "' is not asked token by token");
  }
  const auto asked_last = std::find(question.is_answer.rbegin(), question.is_answer.rend(), true);
  const auto n_steps = static_cast<size_t>(question.is_answer.rend() - asked_last) - 1;
  Answer answer{.right = true};
  const auto start = Clock::now();
  for (size_t i = 0; i < n_steps && (answer.right || to_the_end); ++i) {
    const Token said = session.decode(question.tokens[i]);
    ++answer.steps;
    if (!question.is_answer[i + 1]) continue;
    answer.tokens.push_back(said);
    answer.right = answer.right && said == question.tokens[i + 1];
  }
  answer.ns = ns_since(start);
  session.truncate(document);
  return answer;
}

}  // namespace hata::eval
