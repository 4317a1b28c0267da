// The default objective: codes whose estimated attention is near the true one, where it is far
// from the query (the forced window holds the rest).
//
//   p = softmax over F of q.k / sqrt(d)           F: the keys a query sees, without the first
//   z = s_g |q| m / sqrt(d) pi/(2r) h(q W).h(k W)    `skip_first` and the last `skip_last`
//   h(x) = tanh(b x / rms(x))                     b: from `sharpness_first` to `sharpness_last`
//   loss = mean over queries of KL(p, softmax(z))
//
// m: the mean key length; s_g: learned per query head. Gradients do not go through rms.
#pragma once

#include "learn/objective.h"

namespace hata::learn {

struct KlOptions {
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
  // Vectors, what they project to, and h of it.
  struct Codes {
    const float* vectors = nullptr;
    int64_t n = 0;
    std::vector<float> soft;   // h
    std::vector<float> slope;  // [n]: b / rms
  };

  double evaluate_row(const Row& row, const Parameters& p, double sharpness, double weight,
                      Parameters* gradient);
  void encode(const float* vectors, int64_t n, const std::vector<float>& w, const Parameters& p,
              double sharpness, Codes& out);
  void scale_queries(const Row& row, const Parameters& p);
  double compare(const Row& row, int64_t vector, double weight, Parameters* gradient);
  void backward(const Row& row, const Parameters& p, Parameters& gradient);
  void add_weight_gradient(const Codes& codes, const Parameters& p,
                           std::vector<float>& soft_gradient, std::vector<float>& gradient);

  KlOptions options_;
  double mean_length_;
  bool rms_held_ = false;
  Codes keys_, queries_;
  std::vector<float> scale_;            // [query vector]: of z, without the soft codes
  std::vector<float> scaled_;           // [query vector][rbit]: scale * h
  std::vector<float> targets_;          // [query vector][key]
  std::vector<float> logits_;           // [query vector][key]; later the gradient
  std::vector<float> work_t_, work_z_;  // [key]
  std::vector<float> key_gradient_;     // [key][rbit]
  std::vector<float> query_gradient_;   // [query vector][rbit]
};

}  // namespace hata::learn
