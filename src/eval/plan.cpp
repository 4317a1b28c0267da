#include "eval/plan.h"

#include <algorithm>

#include "hata/types.h"

namespace hata::eval {
namespace {

constexpr int64_t kDefaultSamples = 8;

void check_context(int64_t n_ctx, const Model& model) {
  const int64_t trained = llama_model_n_ctx_train(model.get());
  if (n_ctx <= trained) return;
  throw Error("-c " + std::to_string(n_ctx) + ": " + model.path() + " was trained up to " +
              std::to_string(trained) + " tokens; give that or less");
}

}  // namespace

Plan::Plan(const Tokenizer& tokenizer, const Model& model, const RunOptions& options) {
  std::vector<int64_t> contexts = options.contexts;
  std::sort(contexts.begin(), contexts.end());
  for (const int64_t n_ctx : contexts) {
    check_context(n_ctx, model);
    for (const std::string& task : options.tasks) {
      const bool of_file = task.rfind("jsonl:", 0) == 0;  // lengths are the file's: once
      if (of_file && n_ctx != contexts.front()) continue;
      add(open_task(tokenizer, task,
                    {.n_tokens = n_ctx, .n_queries = options.per_document, .seed = options.seed}),
          of_file ? 0 : n_ctx, options.samples);
    }
  }
}

void Plan::add(std::unique_ptr<TaskSource> source, int64_t n_ctx, int64_t n_samples) {
  const auto held = source->n_samples();
  int64_t n = n_samples > 0 ? n_samples : held.value_or(kDefaultSamples);
  if (held.has_value()) n = std::min(n, *held);
  for (int64_t document = 0; document < n; ++document) {
    documents_.push_back({{source->task(), n_ctx, document}, source.get()});
  }
  sources_.push_back(std::move(source));
}

}  // namespace hata::eval
