// The documents that an evaluation asks about.
#pragma once

#include <memory>
#include <vector>

#include "eval/run.h"

namespace hata::eval {

struct PlannedDocument {
  DocumentKey key;
  const TaskSource* source;
  Sample make() const { return source->make(key.document); }
};

class Plan {
 public:
  /// Shortest lengths first. Throws Error on a context beyond the model's training, and where a
  /// task cannot be opened. The tokenizer must outlive it.
  Plan(const Tokenizer& tokenizer, const Model& model, const RunOptions& options);

  const std::vector<PlannedDocument>& documents() const { return documents_; }

 private:
  void add(std::unique_ptr<TaskSource> source, int64_t n_ctx, int64_t n_samples);

  std::vector<std::unique_ptr<TaskSource>> sources_;
  std::vector<PlannedDocument> documents_;
};

}  // namespace hata::eval
