// Objectives that bring the attention which codes estimate near the true one, over the keys F that
// a query sees without the first `skip_first` and the last `skip_last` (the window holds those).
//
// By head, each query head for itself:
//
//   p = softmax over F of q.k / sqrt(d)
//   z = s_g |q| m l / sqrt(d) pi/(2r) h(q W).h(k W)
//   loss = mean over queries of w KL(p, softmax(z)),  w = floor + (1 - floor) (attention to F)
//
// By group, what decoding ranks keys by against what it should rank them by:
//
//   P = sum over the group of softmax(q.k / sqrt(d)), over all keys seen; then cut to F
//   Z = s |q| m l / sqrt(d) pi/(2r) sum over the group of h(q W).h(k W)
//   loss = mean over positions of KL(P / sum P, softmax(Z))
//
// h(x) = tanh(b x / rms(x)), b from `sharpness_first` to `sharpness_last`. m: the mean key length;
// l: the key's length as the score rule has it (4 bits, 1 = the mean) where the row has lengths, so
// that codes are learned for the order in which they are used. s: learned. |q|: by group the mean
// of its heads'.
//
// By head alone with floor 1, a head that looks at recent keys votes as loudly on far ones as the
// head that needs them; by group alone, heads that need different keys are told to agree. Together
// they are better than either (docs/training.md).
#pragma once

#include <map>

#include "learn/objective.h"
#include "learn/soft_codes.h"

namespace hata::learn {

struct KlOptions {
  double by_head = 1.0;  ///< parts of the loss
  double by_group = 1.0;
  double floor = 0.02;
  int skip_first = 4;
  int skip_last = 16;
  double sharpness_first = 0.5;
  double sharpness_last = 4.0;
};

class KlObjective final : public Objective {
 public:
  /// mean_length: m, of the keys of this head.
  KlObjective(const KlOptions& options, double mean_length)
      : options_(options), mean_length_(mean_length) {}

  double evaluate(std::span<const Row> rows, const Parameters& parameters, double progress,
                  Parameters* gradient) override;

  /// From now on rms stays as the last call found it: what finite differences are checked against.
  void hold_rms() { rms_held_ = true; }

 private:
  // The keys of F, of one position.
  struct Far {
    int64_t first = 0, n = 0;
  };

  double evaluate_lists(const Row& row, const Parameters& p, double weight, Parameters* gradient);
  double evaluate_row(const Row& row, const Parameters& p, double sharpness, double weight,
                      Parameters* gradient);
  Far far_of(const Row& row, int64_t query) const;
  void scale_queries(const Row& row, const Parameters& p);
  void scale_keys(const Row& row, int rbit);
  void estimate(const Row& row, const Parameters& p);
  void find_true_logits(const Row& row);
  void find_targets(const Row& row);
  double far_mass(const Row& row, int64_t list) const;
  const std::vector<double>& far_masses(const Row& row);
  double compare(const Row& row, int64_t list, double weight, Parameters* gradient);
  void backward(const Row& row, const Parameters& p, Parameters& gradient);

  // Lists of logits a position has: one, or one a head.
  int64_t lists_of(const Row& row) const { return by_group_ ? 1 : row.group; }

  KlOptions options_;
  double mean_length_;
  bool rms_held_ = false;
  bool by_group_ = false;  // what is looked at
  SoftCodes keys_, queries_;
  std::vector<float> asked_;    // [list][rbit]: scaled codes of the queries of a list, summed
  std::vector<float> targets_;  // [list][key]: log of the target, up to a constant
  std::vector<float> logits_;   // [list][key]: estimated; later the gradient
  std::vector<float> true_;     // [query vector][key]
  std::vector<float> work_t_, work_z_;                 // [key]
  std::map<int64_t, std::vector<double>> far_masses_;  // by the row's number: [query vector]
  std::vector<float> key_gradient_;                    // [key][rbit]
  std::vector<float> asked_gradient_;                  // [list][rbit]
  std::vector<float> query_gradient_;                  // [query vector][rbit]
};

}  // namespace hata::learn
