#include "eval/ruler.h"

#include <algorithm>

#include "eval/encode.h"
#include "eval/ruler_draft.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

const std::vector<RulerTask>& ruler_tasks() {
  static const std::vector<RulerTask> tasks = [] {
    auto all = ruler_needle_tasks();
    for (const RulerTask& task : ruler_other_tasks()) all.push_back(task);
    return all;
  }();
  return tasks;
}

const RulerTask& find_task(const std::string& name) {
  std::string known;
  for (const RulerTask& task : ruler_tasks()) {
    if (name == task.name) return task;
    known += (known.empty() ? "" : ", ") + std::string(task.name);
  }
  throw Error("RULER's task '" + name + "' is unknown; there are " + known);
}

Sample with_tokens(const Tokenizer& tokenizer, const RulerTask& task, const Draft& draft) {
  Sample sample{.task = task.name,
                .text = draft.text,
                .tokens = encode_document(tokenizer, draft.text),
                .queries = {}};
  for (const DraftQuery& query : draft.queries) {
    sample.queries.push_back(
        {.task = task.name,
         .scoring = Scoring::all,
         .tokens = encode_continuation(tokenizer, query.question + query.answer_prefix),
         .question = query.question,
         .answer_prefix = query.answer_prefix,
         .answers = query.answers,
         .max_new_tokens = task.max_new_tokens});
  }
  return sample;
}

// Drafts of one sample by their number of units, and how many tokens each takes.
class Sizes {
 public:
  Sizes(const Tokenizer& tokenizer, const RulerTask& task, DraftOrder order, uint64_t seed)
      : tokenizer_(tokenizer), task_(task), order_(order), seed_(seed) {}

  Draft draft(int64_t n_units) const {
    DraftOrder order = order_;
    order.n_units = n_units;
    return task_.draft(Random(seed_), order);
  }

  int64_t tokens(int64_t n_units) const {
    return with_tokens(tokenizer_, task_, draft(n_units)).n_ctx();
  }

  // The most units that fit: between a number that does and one that does not, guess by proportion
  // (sizes are close to a line), in the end halve.
  int64_t largest() {
    Point fits = least();
    for (; fits.tokens > order_.n_tokens; fits = least()) {
      if (order_.n_queries == 1) reject(fits.tokens);
      --order_.n_queries;
    }
    Point exceeds = first_too_large(fits);
    for (int tries = 0; exceeds.units - fits.units > 1; ++tries) {
      const int64_t gap = exceeds.units - fits.units;
      const int64_t guess =
          tries < 8 ? (order_.n_tokens - fits.tokens) * gap / (exceeds.tokens - fits.tokens)
                    : gap / 2;
      const int64_t units = fits.units + std::clamp<int64_t>(guess, 1, gap - 1);
      const Point point{units, tokens(units)};
      (point.tokens <= order_.n_tokens ? fits : exceeds) = point;
    }
    return fits.units;
  }

 private:
  struct Point {
    int64_t units, tokens;
  };

  Point least() const {
    const int64_t units = task_.min_units(order_.n_queries);
    return {units, tokens(units)};
  }

  Point first_too_large(Point& fits) const {
    for (int64_t units = 2 * fits.units + 16;; units *= 2) {
      const Point point{units, tokens(units)};
      if (point.tokens > order_.n_tokens) return point;
      fits = point;
    }
  }

  [[noreturn]] void reject(int64_t least) const {
    throw Error("task " + std::string(task_.name) + ": the shortest document takes " +
                std::to_string(least) + " tokens with this model, more than " +
                std::to_string(order_.n_tokens) + "; make it longer");
  }

  const Tokenizer& tokenizer_;
  const RulerTask& task_;
  DraftOrder order_;
  uint64_t seed_;
};

}  // namespace

std::vector<TaskHelp> ruler_task_help() {
  std::vector<TaskHelp> help;
  for (const RulerTask& task : ruler_tasks()) help.push_back({task.name, task.help});
  return help;
}

Sample make_ruler_sample(const Tokenizer& tokenizer, const std::string& name, int64_t n_tokens,
                         int n_queries, uint64_t seed) {
  const RulerTask& task = find_task(name);
  Sizes sizes(tokenizer, task, {.n_units = 0, .n_queries = n_queries, .n_tokens = n_tokens}, seed);
  const int64_t n_units = sizes.largest();
  const Draft draft = sizes.draft(n_units);
  Sample sample = with_tokens(tokenizer, task, draft);
  sample.seed = seed;
  for (size_t q = 0; q < sample.queries.size(); ++q) {
    sample.queries[q].evidence =
        token_ranges(tokenizer, sample.tokens, sample.text, draft.queries[q].evidence);
  }
  return sample;
}

}  // namespace hata::eval
