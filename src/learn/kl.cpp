#include "learn/kl.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "learn/blas.h"
#include "learn/vector_math.h"

namespace hata::learn {
namespace {

constexpr float kNothing = -1e30f;  // logarithm of a target that is 0

}  // namespace

KlObjective::Far KlObjective::far_of(const Row& row, int64_t query) const {
  const int64_t position = row.positions[static_cast<size_t>(query)];
  const int64_t first = options_.skip_first;
  return {first, std::max<int64_t>(0, position + 1 - options_.skip_last - first)};
}

void KlObjective::scale_queries(const Row& row, const Parameters& p) {
  const double d = p.head_dim, r = p.rbit;
  const auto group = static_cast<size_t>(row.group);
  queries_.scale.resize(static_cast<size_t>(queries_.n));
  for (size_t v = 0; v < queries_.scale.size(); ++v) {
    const auto* x = queries_.vectors + v * static_cast<size_t>(p.head_dim);
    queries_.scale[v] = std::sqrt(sum_of_squares(x, p.head_dim));
  }
  const double unit = mean_length_ / std::sqrt(d) * std::numbers::pi / (2 * r);
  for (size_t first = 0; first < queries_.scale.size(); first += group) {
    float* scale = queries_.scale.data() + first;
    if (by_group_) {
      float sum = 0;
      for (size_t g = 0; g < group; ++g) sum += scale[g];
      std::fill(scale, scale + group, sum / static_cast<float>(group));
    }
    for (size_t g = 0; g < group; ++g) {
      const auto s = static_cast<double>(p.log_scale[by_group_ ? group : g]);
      scale[g] = static_cast<float>(static_cast<double>(scale[g]) * unit * std::exp(s));
    }
  }
  queries_.apply_scale(p.rbit);
}

void KlObjective::scale_keys(const Row& row, int rbit) {
  keys_.scale.assign(static_cast<size_t>(keys_.n), 1.0f);
  std::transform(row.lengths.begin(), row.lengths.end(), keys_.scale.begin(),
                 [](uint8_t length) { return static_cast<float>(length) / 8.0f; });
  keys_.apply_scale(rbit);
}

void KlObjective::estimate(const Row& row, const Parameters& p) {
  const int64_t n_keys = row.n_keys(), r = p.rbit;
  const int64_t n_lists = row.n_queries() * lists_of(row);
  if (by_group_) {
    asked_.assign(static_cast<size_t>(n_lists * r), 0.0f);
    for (int64_t v = 0; v < queries_.n; ++v) {
      float* to = asked_.data() + v / row.group * r;
      const float* from = queries_.scaled.data() + v * r;
      for (int64_t j = 0; j < r; ++j) to[j] += from[j];
    }
  } else {
    asked_ = queries_.scaled;
  }
  logits_.resize(static_cast<size_t>(n_lists * n_keys));
  multiply(n_lists, n_keys, r, {asked_.data(), r}, {keys_.scaled.data(), r, true}, 0.0f,
           logits_.data());
}

void KlObjective::find_true_logits(const Row& row) {
  const int64_t n_keys = row.n_keys(), n_vectors = row.n_queries() * row.group;
  const int64_t d = row.head_dim;
  true_.resize(static_cast<size_t>(n_vectors * n_keys));
  multiply(n_vectors, n_keys, d, {row.queries.data(), d}, {row.keys.data(), d, true}, 0.0f,
           true_.data());
  const auto inverse_root = static_cast<float>(1 / std::sqrt(static_cast<double>(d)));
  for (float& t : true_) t *= inverse_root;
}

// By group last: it uses the true logits up.
void KlObjective::find_targets(const Row& row) {
  const int64_t n_keys = row.n_keys(), n_vectors = row.n_queries() * row.group;
  if (!by_group_) {
    targets_ = true_;
    return;
  }
  targets_.assign(static_cast<size_t>(row.n_queries() * n_keys), 0.0f);
  for (int64_t v = 0; v < n_vectors; ++v) {
    const int64_t query = v / row.group;
    const int64_t n = row.positions[static_cast<size_t>(query)] + 1;
    float* p = true_.data() + v * n_keys;
    float* to = targets_.data() + query * n_keys;
    const auto factor = static_cast<float>(1 / exp_all(p, n, max_of(p, n)));
    for (int64_t i = 0; i < n; ++i) to[i] += p[i] * factor;
  }
  for (float& t : targets_) t = t > 0.0f ? std::log(t) : kNothing;
}

double KlObjective::far_mass(const Row& row, int64_t list) const {
  const int64_t query = list / lists_of(row);
  const auto [first, n] = far_of(row, query);
  const int64_t seen = row.positions[static_cast<size_t>(query)] + 1;
  const float* t = targets_.data() + list * row.n_keys();
  const float top = max_of(t, seen);
  double far = 0, near = 0;
  for (int64_t i = 0; i < seen; ++i) {
    const double e = std::exp(static_cast<double>(t[i] - top));
    (i >= first && i < first + n ? far : near) += e;
  }
  return far / (far + near);
}

// How much each head attends to far keys. It does not depend on the parameters, so that a row that
// comes again is not looked at again.
const std::vector<double>& KlObjective::far_masses(const Row& row) {
  std::vector<double>& masses = far_masses_[row.number];
  const auto n_lists = static_cast<size_t>(row.n_queries() * lists_of(row));
  if (row.number < 0 || masses.empty()) {
    masses.resize(n_lists);
    for (size_t list = 0; list < n_lists; ++list) {
      masses[list] = far_mass(row, static_cast<int64_t>(list));
    }
  }
  return masses;
}

// KL(target, softmax(z)) of one list; its logits become the gradient where one is asked for.
double KlObjective::compare(const Row& row, int64_t list, double weight, Parameters* gradient) {
  const int64_t n_keys = row.n_keys();
  const auto [first, n] = far_of(row, list / lists_of(row));
  float* z = logits_.data() + list * n_keys;
  float* t = targets_.data() + list * n_keys;
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
    gradient->log_scale[static_cast<size_t>(by_group_ ? row.group : list % row.group)] +=
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
  keys_.encode(row.keys.data(), n_keys, p, p.w, sharpness, rms_held_);
  queries_.encode(row.queries.data(), row.n_queries() * row.group, p, p.of_queries(), sharpness,
                  rms_held_);
  scale_keys(row, p.rbit);
  find_true_logits(row);
  work_t_.resize(static_cast<size_t>(n_keys));
  work_z_.resize(static_cast<size_t>(n_keys));
  double loss = 0;
  for (const bool by_group : {false, true}) {
    by_group_ = by_group;
    const double part = by_group ? options_.by_group : options_.by_head;
    if (part > 0) loss += evaluate_lists(row, p, row_weight * part, gradient);
  }
  return loss;
}

double KlObjective::evaluate_lists(const Row& row, const Parameters& p, double row_weight,
                                   Parameters* gradient) {
  scale_queries(row, p);
  estimate(row, p);
  find_targets(row);
  const int64_t n_lists = row.n_queries() * lists_of(row);
  const double weight = row_weight / static_cast<double>(n_lists);
  const bool alike = options_.floor == 1.0 || by_group_;
  const double* far = alike ? nullptr : far_masses(row).data();
  double loss = 0;
  for (int64_t list = 0; list < n_lists; ++list) {
    const double w = alike ? weight : weight * (options_.floor + (1 - options_.floor) * far[list]);
    loss += w * compare(row, list, w, gradient);
  }
  if (gradient != nullptr) backward(row, p, *gradient);
  return loss;
}

void KlObjective::backward(const Row& row, const Parameters& p, Parameters& gradient) {
  const int64_t n_keys = row.n_keys(), r = p.rbit;
  const int64_t n_lists = row.n_queries() * lists_of(row);
  key_gradient_.resize(keys_.soft.size());
  asked_gradient_.resize(asked_.size());
  multiply(n_keys, r, n_lists, {logits_.data(), n_keys, true}, {asked_.data(), r}, 0.0f,
           key_gradient_.data());
  multiply(n_lists, r, n_keys, {logits_.data(), n_keys}, {keys_.scaled.data(), r}, 0.0f,
           asked_gradient_.data());
  const int64_t heads = row.group / lists_of(row);
  query_gradient_.resize(queries_.soft.size());
  for (int64_t v = 0; v < queries_.n; ++v) {
    const float* from = asked_gradient_.data() + v / heads * r;
    std::copy(from, from + r, query_gradient_.data() + v * r);
  }
  keys_.add_gradient(p, key_gradient_, gradient.w);
  queries_.add_gradient(p, query_gradient_, gradient.of_queries());
}

}  // namespace hata::learn
