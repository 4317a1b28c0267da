#include "eval/asking.h"

#include "core/clock.h"
#include "eval/host.h"
#include "eval/scoring.h"
#include "eval/text.h"

namespace hata::eval {
namespace {

constexpr size_t kTextSteps = 64;  // of a text, one in so many is inspected

// Decode steps with their time, but for those that are inspected.
class Steps {
 public:
  explicit Steps(Session& session) : session_(session) {}

  /// recorder nullptr: nobody looks.
  Token take(Token token, Recorder* recorder) {
    if (recorder != nullptr) {
      const Watch watch(recorder);
      return session_.decode(token);
    }
    const auto start = Clock::now();
    const Token said = session_.decode(token);
    ns_ += ns_since(start);
    ++n_;
    return said;
  }

  int64_t n() const { return n_; }
  int64_t ns() const { return ns_; }

 private:
  Session& session_;
  int64_t n_ = 0, ns_ = 0;
};

// The likeliest tokens where it asks.
std::vector<Token> ask_tokens(const Query& query, Steps& steps, Recorder* recorder) {
  std::vector<Token> said;
  size_t last = query.tokens.size();
  while (last > 0 && !query.is_answer[last - 1]) --last;
  for (size_t i = 0; i + 1 < last; ++i) {
    const bool asked = query.is_answer[i + 1];
    const Token next = steps.take(query.tokens[i], asked && said.empty() ? recorder : nullptr);
    if (!asked) continue;
    said.push_back(next);
    if (next != query.tokens[i + 1]) break;
  }
  return said;
}

// What is generated, up to the model's end or the query's; its text without the latter.
std::string generate(const Session& session, const Tokenizer& tokenizer, const Query& query,
                     Steps& steps, Recorder* recorder, std::vector<Token>& said) {
  Token next = 0;
  for (size_t i = 0; i < query.tokens.size(); ++i) {
    next = steps.take(query.tokens[i], i + 1 == query.tokens.size() ? recorder : nullptr);
  }
  std::string text;
  for (int i = 0; i < query.max_new_tokens && !session.ends(next); ++i) {
    if (i > 0) next = steps.take(next, nullptr);
    if (session.ends(next)) break;
    said.push_back(next);
    text = tokenizer.decode(said);
    const size_t stop = query.stop.empty() ? std::string::npos : text.find(query.stop);
    if (stop != std::string::npos) return text.substr(0, stop);
  }
  return text;
}

}  // namespace

QueryResult ask(Session& session, const Tokenizer& tokenizer, const Query& query,
                Recorder* recorder) {
  const int64_t before = session.size();
  Steps steps(session);
  QueryResult result;
  if (query.scoring == Scoring::tokens) {
    result.said = ask_tokens(query, steps, recorder);
    result.text = tokenizer.decode(result.said);
    result.score = score_tokens(query, result.said);
  } else {
    result.text = generate(session, tokenizer, query, steps, recorder, result.said);
    result.score = score_text(query, result.text);
  }
  result.steps = steps.n();
  result.ns = steps.ns();
  session.truncate(before);
  return result;
}

Predictions predict(Session& session, const Query& query) {
  const int64_t before = session.size();
  Predictions predictions;
  for (size_t i = 0; i + 1 < query.tokens.size(); ++i) {
    session.decode(query.tokens[i]);
    const auto logits = session.logits();
    predictions.emplace_back(logits.begin(), logits.end());
  }
  session.truncate(before);
  return predictions;
}

TextResult compare(Session& session, const Query& query, const Predictions& dense,
                   Recorder* recorder) {
  const int64_t before = session.size();
  Steps steps(session);
  TextResult result;
  for (size_t i = 0; i + 1 < query.tokens.size(); ++i) {
    steps.take(query.tokens[i], i % kTextSteps == 0 ? recorder : nullptr);
    const StepComparison step = compare_step(dense[i], session.logits(), query.tokens[i + 1]);
    result.kl.push_back(step.kl);
    result.nll.push_back(step.nll);
    result.same.push_back(step.agrees);
  }
  result.steps = steps.n();
  result.ns = steps.ns();
  session.truncate(before);
  return result;
}

}  // namespace hata::eval
