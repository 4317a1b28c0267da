#include "eval/text.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/files.h"
#include "eval/encode.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

class TextSource final : public TaskSource {
 public:
  TextSource(const Tokenizer& tokenizer, const std::string& path, const TaskOptions& options)
      : tokenizer_(tokenizer),
        start_(tokenizer.start()),
        tokens_(tokenizer.encode(read_file(path))),
        task_(std::filesystem::path(path).stem().string()),
        n_prefix_(options.n_tokens - std::ssize(start_)),
        n_compared_(options.n_compared) {
    if (n_compared_ < 2) throw Error("two tokens or more of a text can be compared");
    if (n_prefix_ < 1 || std::ssize(tokens_) < n_prefix_ + n_compared_) {
      throw Error(path + " has " + std::to_string(tokens_.size()) +
                  " tokens with this model; one sample takes " +
                  std::to_string(n_prefix_ + n_compared_) + " (" + std::to_string(n_compared_) +
                  " of them compared); a smaller -c takes fewer");
    }
  }

  const std::string& task() const override { return task_; }
  std::optional<int64_t> n_samples() const override {
    return std::ssize(tokens_) / (n_prefix_ + n_compared_);
  }

  Sample make(int64_t number) const override {
    if (number < 0 || number >= *n_samples()) {
      throw Error("the text has " + std::to_string(*n_samples()) + " samples; sample " +
                  std::to_string(number) + " is not one of them");
    }
    const auto prefix = tokens_.begin() + number * (n_prefix_ + n_compared_);
    const auto compared = prefix + n_prefix_;
    Sample sample{.task = task_, .tokens = start_, .queries = {}};
    sample.tokens.insert(sample.tokens.end(), prefix, compared);
    sample.text = tokenizer_.decode({prefix, compared});
    sample.queries.push_back(
        {.task = task_, .scoring = Scoring::compare, .tokens = {compared, compared + n_compared_}});
    return sample;
  }

 private:
  const Tokenizer& tokenizer_;
  std::vector<Token> start_, tokens_;
  std::string task_;
  int64_t n_prefix_, n_compared_;
};

// log(sum(exp(x))), without overflow.
double log_sum_exp(std::span<const float> x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float value : x) sum += std::exp(value - top);
  return top + std::log(sum);
}

size_t likeliest(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

std::unique_ptr<TaskSource> open_text(const Tokenizer& tokenizer, const std::string& path,
                                      const TaskOptions& options) {
  return std::make_unique<TextSource>(tokenizer, path, options);
}

StepComparison compare_step(std::span<const float> dense, std::span<const float> method,
                            Token next) {
  const double dense_norm = log_sum_exp(dense), norm = log_sum_exp(method);
  double kl = 0;
  for (size_t i = 0; i < dense.size(); ++i) {
    const double log_p = dense[i] - dense_norm, p = std::exp(log_p);
    if (p > 0) kl += p * (log_p - (method[i] - norm));
  }
  return {.kl = std::max(kl, 0.0),  // rounding alone makes it negative
          .nll = norm - method[static_cast<size_t>(next)],
          .agrees = likeliest(dense) == likeliest(method)};
}

}  // namespace hata::eval
