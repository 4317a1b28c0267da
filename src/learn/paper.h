// The objective of the paper (section 3.1), with the constants of its public code:
//
//   h(x) = 2 sigmoid(sigma x W) - 1
//   loss = epsilon sum s |h(q) - h(k)|^2 / N + lambda sum over query heads |B|^2 + eta |W'W - I|
//   B = sum over pairs (h(q) + h(k)) / (N r)
//   N: the pairs of one query head
//   s: the tenth of a query's keys with the largest q.k get 20 .. 1 in order, all others -1
//
// Pairs are those of every query with all keys it sees; training gives one query a row, as the
// paper does.
#pragma once

#include "learn/objective.h"

namespace hata::learn {

struct PaperOptions {
  double epsilon = 0.01;
  double lambda = 1.0;
  double eta = 2.0;
  double sigma = 0.1;
  double top_share = 0.1;
  double top_first = 20.0;
  double top_last = 1.0;
  double other = -1.0;
};

class PaperObjective final : public Objective {
 public:
  explicit PaperObjective(const PaperOptions& options) : options_(options) {}

  double evaluate(std::span<const Row> rows, const Parameters& parameters, double progress,
                  Parameters* gradient) override;

  /// The labels of one query: [n] from its q.k.
  void label(const float* logits, int64_t n, float* labels);

 private:
  // Sums over the pairs of one step.
  struct Totals {
    int64_t pairs = 0;         // of one query head
    std::vector<double> sums;  // [query head][rbit]: of h(q) + h(k)
    double similarity = 0;     // of s |h(q) - h(k)|^2
  };

  // Of the pairs of one row; they do not depend on the parameters.
  struct Labels {
    std::vector<float> pairs;       // [query vector][key]; 0: not seen
    std::vector<float> keys;        // [key]: sums
    std::vector<float> queries;     // [query vector]: sums
    std::vector<float> times_seen;  // [key]: queries (of one head) that see it
  };

  // Of one row, with the parameters at hand.
  struct Soft {
    std::vector<float> keys, queries;                 // h
    std::vector<float> key_gradient, query_gradient;  // at first sums of s h(q) and s h(k)
  };

  void label_row(const Row& row, Labels& labels);
  void prepare(const Row& row, const Labels& labels, const Parameters& p, Soft& soft);
  void project(const std::vector<float>& vectors, const Parameters& p, std::vector<float>& soft);
  void add_totals(const Row& row, const Labels& labels, const Parameters& p, const Soft& soft,
                  Totals& totals);
  void backward(const Row& row, const Labels& labels, const Parameters& p, const Totals& totals,
                Soft& soft, Parameters& gradient);
  double decorrelation(const Parameters& p, Parameters* gradient);

  PaperOptions options_;
  std::vector<Labels> labels_;  // [row of the step]
  std::vector<Soft> soft_;      // [row of the step]
  std::vector<int32_t> order_;
};

}  // namespace hata::learn
