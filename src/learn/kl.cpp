#include "learn/kl.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "learn/blas.h"
#include "learn/vector_math.h"

namespace hata::learn {

void KlObjective::encode(const float* vectors, int64_t n, const std::vector<float>& w,
                         const Parameters& p, double sharpness, Codes& out) {
  out.vectors = vectors;
  out.n = n;
  out.soft.resize(static_cast<size_t>(n * p.rbit));
  out.slope.resize(static_cast<size_t>(n));
  multiply(n, p.rbit, p.head_dim, {vectors, p.head_dim}, {w.data(), p.rbit}, 0.0f,
           out.soft.data());
  for (int64_t i = 0; i < n; ++i) {
    float* x = out.soft.data() + i * p.rbit;
    float& slope = out.slope[static_cast<size_t>(i)];
    if (!rms_held_) {
      const float rms = std::sqrt(sum_of_squares(x, p.rbit) / static_cast<float>(p.rbit));
      slope = rms > 0.0f ? static_cast<float>(sharpness) / rms : 0.0f;
    }
    tanh_all(x, p.rbit, slope);
  }
}

void KlObjective::scale_queries(const Row& row, const Parameters& p) {
  const double d = p.head_dim, r = p.rbit;
  scale_.resize(static_cast<size_t>(queries_.n));
  scaled_.resize(queries_.soft.size());
  for (int64_t v = 0; v < queries_.n; ++v) {
    const double length = std::sqrt(
        static_cast<double>(sum_of_squares(queries_.vectors + v * p.head_dim, p.head_dim)));
    const auto head = static_cast<size_t>(v % row.group);
    const double scale = std::exp(static_cast<double>(p.log_scale[head])) * length * mean_length_ /
                         std::sqrt(d) * std::numbers::pi / (2 * r);
    scale_[static_cast<size_t>(v)] = static_cast<float>(scale);
    for (int64_t j = 0; j < p.rbit; ++j) {
      scaled_[static_cast<size_t>(v * p.rbit + j)] =
          static_cast<float>(scale) * queries_.soft[static_cast<size_t>(v * p.rbit + j)];
    }
  }
}

// KL(p, softmax(z)) of one query vector; its logits become the gradient where one is asked for.
double KlObjective::compare(const Row& row, int64_t vector, double weight, Parameters* gradient) {
  const int64_t n_keys = row.n_keys();
  const int64_t position = row.positions[static_cast<size_t>(vector / row.group)];
  const int64_t first = options_.skip_first;
  const int64_t n = position + 1 - options_.skip_last - first;
  float* z = logits_.data() + vector * n_keys;
  float* t = targets_.data() + vector * n_keys;
  if (n <= 0) {
    std::fill(z, z + n_keys, 0.0f);
    return 0;
  }
  std::fill(z, z + first, 0.0f);
  std::fill(z + first + n, z + n_keys, 0.0f);
  z += first;
  t += first;
  const float t_max = max_of(t, n);
  const float z_max = max_of(z, n);
  // KL = sum p (t - z) - log(sum e^t) + log(sum e^z); the first sum needs t and z before exp.
  std::copy(t, t + n, work_t_.begin());
  std::copy(z, z + n, work_z_.begin());
  const double t_sum = exp_all(t, n, t_max);
  const double z_sum = exp_all(z, n, z_max);
  const double mean_t = dot(t, work_t_.data(), n) / t_sum;
  const double mean_z = dot(t, work_z_.data(), n) / t_sum;
  const double kl = mean_t - mean_z - (std::log(t_sum) + static_cast<double>(t_max)) +
                    (std::log(z_sum) + static_cast<double>(z_max));
  if (gradient != nullptr) {
    difference(t, t_sum, z, z_sum, n, static_cast<float>(weight));
    gradient->log_scale[static_cast<size_t>(vector % row.group)] +=
        static_cast<float>(dot(z, work_z_.data(), n));
  }
  return kl;
}

double KlObjective::evaluate(std::span<const Row> rows, const Parameters& p, double progress,
                             Parameters* gradient) {
  const double sharpness =
      options_.sharpness_first + progress * (options_.sharpness_last - options_.sharpness_first);
  if (gradient != nullptr) *gradient = p.zeros();
  double loss = 0;
  for (const Row& row : rows) {
    loss += evaluate_row(row, p, sharpness, 1.0 / static_cast<double>(rows.size()), gradient);
  }
  return loss;
}

double KlObjective::evaluate_row(const Row& row, const Parameters& p, double sharpness,
                                 double row_weight, Parameters* gradient) {
  const int64_t n_keys = row.n_keys();
  const int64_t n_vectors = row.n_queries() * row.group;
  encode(row.keys.data(), n_keys, p.w, p, sharpness, keys_);
  encode(row.queries.data(), n_vectors, p.of_queries(), p, sharpness, queries_);
  scale_queries(row, p);

  const auto n_logits = static_cast<size_t>(n_vectors * n_keys);
  targets_.resize(n_logits);
  logits_.resize(n_logits);
  work_t_.resize(static_cast<size_t>(n_keys));
  work_z_.resize(static_cast<size_t>(n_keys));
  multiply(n_vectors, n_keys, p.head_dim, {row.queries.data(), p.head_dim},
           {row.keys.data(), p.head_dim, true}, 0.0f, targets_.data());
  multiply(n_vectors, n_keys, p.rbit, {scaled_.data(), p.rbit}, {keys_.soft.data(), p.rbit, true},
           0.0f, logits_.data());
  const auto inverse_root = static_cast<float>(1 / std::sqrt(static_cast<double>(p.head_dim)));
  for (float& t : targets_) t *= inverse_root;

  const double weight = row_weight / static_cast<double>(n_vectors);
  double loss = 0;
  for (int64_t v = 0; v < n_vectors; ++v) loss += weight * compare(row, v, weight, gradient);
  if (gradient != nullptr) backward(row, p, *gradient);
  return loss;
}

void KlObjective::backward(const Row& row, const Parameters& p, Parameters& gradient) {
  const int64_t n_keys = row.n_keys();
  key_gradient_.resize(keys_.soft.size());
  query_gradient_.resize(queries_.soft.size());
  multiply(n_keys, p.rbit, queries_.n, {logits_.data(), n_keys, true}, {scaled_.data(), p.rbit},
           0.0f, key_gradient_.data());
  multiply(queries_.n, p.rbit, n_keys, {logits_.data(), n_keys}, {keys_.soft.data(), p.rbit}, 0.0f,
           query_gradient_.data());
  for (int64_t v = 0; v < queries_.n; ++v) {
    for (int64_t j = 0; j < p.rbit; ++j) {
      query_gradient_[static_cast<size_t>(v * p.rbit + j)] *= scale_[static_cast<size_t>(v)];
    }
  }
  add_weight_gradient(keys_, p, key_gradient_, gradient.w);
  add_weight_gradient(queries_, p, query_gradient_, gradient.of_queries());
}

void KlObjective::add_weight_gradient(const Codes& codes, const Parameters& p,
                                      std::vector<float>& soft_gradient,
                                      std::vector<float>& gradient) {
  for (int64_t i = 0; i < codes.n; ++i) {
    through_tanh(soft_gradient.data() + i * p.rbit, codes.soft.data() + i * p.rbit, p.rbit,
                 codes.slope[static_cast<size_t>(i)]);
  }
  multiply(p.head_dim, p.rbit, codes.n, {codes.vectors, p.head_dim, true},
           {soft_gradient.data(), p.rbit}, 1.0f, gradient.data());
}

}  // namespace hata::learn
