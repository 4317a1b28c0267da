#include "learn/paper.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "learn/blas.h"
#include "learn/vector_math.h"

namespace hata::learn {
namespace {

// 2 sigmoid(sigma x) - 1 = tanh(sigma x / 2)
float slope_of(const PaperOptions& options) { return static_cast<float>(options.sigma / 2); }

int64_t seen_by(const Row& row, int64_t vector) {
  return row.positions[static_cast<size_t>(vector / row.group)] + 1;
}

}  // namespace

void PaperObjective::label(const float* logits, int64_t n, float* labels) {
  order_.resize(static_cast<size_t>(n));
  std::iota(order_.begin(), order_.end(), 0);
  const auto n_top = static_cast<int64_t>(static_cast<double>(n) * options_.top_share);
  std::partial_sort(
      order_.begin(), order_.begin() + n_top, order_.end(),
      [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  std::fill(labels, labels + n, static_cast<float>(options_.other));
  const double step =
      n_top > 1 ? (options_.top_last - options_.top_first) / static_cast<double>(n_top - 1) : 0.0;
  for (int64_t rank = 0; rank < n_top; ++rank) {
    labels[order_[static_cast<size_t>(rank)]] =
        static_cast<float>(options_.top_first + step * static_cast<double>(rank));
  }
}

void PaperObjective::label_row(const Row& row, Labels& labels) {
  const int64_t n_keys = row.n_keys();
  const int64_t n_vectors = row.n_queries() * row.group;
  labels.pairs.resize(static_cast<size_t>(n_vectors * n_keys));
  labels.keys.assign(static_cast<size_t>(n_keys), 0.0f);
  labels.times_seen.assign(static_cast<size_t>(n_keys), 0.0f);
  labels.queries.assign(static_cast<size_t>(n_vectors), 0.0f);
  multiply(n_vectors, n_keys, row.head_dim, {row.queries.data(), row.head_dim},
           {row.keys.data(), row.head_dim, true}, 0.0f, labels.pairs.data());
  std::vector<float> logits;
  for (int64_t v = 0; v < n_vectors; ++v) {
    float* pairs = labels.pairs.data() + v * n_keys;
    const int64_t n = seen_by(row, v);
    logits.assign(pairs, pairs + n);
    label(logits.data(), n, pairs);
    std::fill(pairs + n, pairs + n_keys, 0.0f);
    for (int64_t i = 0; i < n; ++i) {
      labels.keys[static_cast<size_t>(i)] += pairs[i];
      labels.queries[static_cast<size_t>(v)] += pairs[i];
    }
    if (v % row.group == 0) {
      for (int64_t i = 0; i < n; ++i) labels.times_seen[static_cast<size_t>(i)] += 1.0f;
    }
  }
}

void PaperObjective::project(const std::vector<float>& vectors, const Parameters& p,
                             std::vector<float>& soft) {
  const auto n = static_cast<int64_t>(vectors.size()) / p.head_dim;
  soft.resize(static_cast<size_t>(n * p.rbit));
  multiply(n, p.rbit, p.head_dim, {vectors.data(), p.head_dim}, {p.w.data(), p.rbit}, 0.0f,
           soft.data());
  tanh_all(soft.data(), n * p.rbit, slope_of(options_));
}

void PaperObjective::prepare(const Row& row, const Labels& labels, const Parameters& p,
                             Soft& soft) {
  project(row.keys, p, soft.keys);
  project(row.queries, p, soft.queries);
  const int64_t n_keys = row.n_keys(), r = p.rbit;
  const int64_t n_vectors = row.n_queries() * row.group;
  soft.key_gradient.resize(soft.keys.size());
  soft.query_gradient.resize(soft.queries.size());
  multiply(n_keys, r, n_vectors, {labels.pairs.data(), n_keys, true}, {soft.queries.data(), r},
           0.0f, soft.key_gradient.data());
  multiply(n_vectors, r, n_keys, {labels.pairs.data(), n_keys}, {soft.keys.data(), r}, 0.0f,
           soft.query_gradient.data());
}

// sum s |hq - hk|^2 =
//   sum over q of ((sum s) |hq|^2 - 2 hq.(sum s hk)) + sum over k of (sum s) |hk|^2
void PaperObjective::add_totals(const Row& row, const Labels& labels, const Parameters& p,
                                const Soft& soft, Totals& totals) {
  const int64_t n_keys = row.n_keys(), r = p.rbit;
  for (int64_t v = 0; v < row.n_queries() * row.group; ++v) {
    const float* hq = soft.queries.data() + v * r;
    totals.similarity +=
        static_cast<double>(labels.queries[static_cast<size_t>(v)]) * dot(hq, hq, r) -
        2 * dot(hq, soft.query_gradient.data() + v * r, r);
    double* sums = totals.sums.data() + v % row.group * r;
    const int64_t n = seen_by(row, v);
    for (int64_t j = 0; j < r; ++j) sums[j] += static_cast<double>(n) * static_cast<double>(hq[j]);
    if (v % row.group == 0) totals.pairs += n;
  }
  std::vector<float> seen(static_cast<size_t>(r));
  multiply(1, r, n_keys, {labels.times_seen.data(), n_keys}, {soft.keys.data(), r}, 0.0f,
           seen.data());
  for (size_t i = 0; i < totals.sums.size(); ++i) {
    totals.sums[i] += static_cast<double>(seen[i % static_cast<size_t>(r)]);
  }
  for (int64_t i = 0; i < n_keys; ++i) {
    const float* hk = soft.keys.data() + i * r;
    totals.similarity += static_cast<double>(labels.keys[static_cast<size_t>(i)]) * dot(hk, hk, r);
  }
}

void PaperObjective::backward(const Row& row, const Labels& labels, const Parameters& p,
                              const Totals& totals, Soft& soft, Parameters& gradient) {
  const int64_t n_keys = row.n_keys(), r = p.rbit;
  const int64_t n_vectors = row.n_queries() * row.group;
  const auto pairs = static_cast<double>(totals.pairs);
  const auto pull = static_cast<float>(2 * options_.epsilon / pairs);
  const double unit = pairs * static_cast<double>(r);
  std::vector<float> balance(totals.sums.size()), all_heads(static_cast<size_t>(r));
  for (size_t i = 0; i < balance.size(); ++i) {
    balance[i] = static_cast<float>(2 * options_.lambda * totals.sums[i] / (unit * unit));
    all_heads[i % static_cast<size_t>(r)] += balance[i];
  }
  const auto finish = [&](std::vector<float>& g, const std::vector<float>& h, int64_t at, float sum,
                          float times, const float* bias) {
    for (int64_t j = 0; j < r; ++j) {
      float& x = g[static_cast<size_t>(at * r + j)];
      x = pull * (sum * h[static_cast<size_t>(at * r + j)] - x) + times * bias[j];
    }
  };
  for (int64_t v = 0; v < n_vectors; ++v) {
    finish(soft.query_gradient, soft.queries, v, labels.queries[static_cast<size_t>(v)],
           static_cast<float>(seen_by(row, v)), balance.data() + v % row.group * r);
  }
  for (int64_t i = 0; i < n_keys; ++i) {
    finish(soft.key_gradient, soft.keys, i, labels.keys[static_cast<size_t>(i)],
           labels.times_seen[static_cast<size_t>(i)], all_heads.data());
  }
  const auto add = [&](std::vector<float>& g, const std::vector<float>& h,
                       const std::vector<float>& vectors, int64_t n) {
    through_tanh(g.data(), h.data(), n * r, slope_of(options_));
    multiply(p.head_dim, r, n, {vectors.data(), p.head_dim, true}, {g.data(), r}, 1.0f,
             gradient.w.data());
  };
  add(soft.key_gradient, soft.keys, row.keys, n_keys);
  add(soft.query_gradient, soft.queries, row.queries, n_vectors);
}

// eta |W'W - I|
double PaperObjective::decorrelation(const Parameters& p, Parameters* gradient) {
  const int64_t r = p.rbit;
  std::vector<float> gram(static_cast<size_t>(r * r));
  multiply(r, r, p.head_dim, {p.w.data(), r, true}, {p.w.data(), r}, 0.0f, gram.data());
  for (int64_t j = 0; j < r; ++j) gram[static_cast<size_t>(j * r + j)] -= 1.0f;
  const double norm = std::sqrt(dot(gram.data(), gram.data(), r * r));
  if (gradient != nullptr && norm > 0) {
    const auto factor = static_cast<float>(2 * options_.eta / norm);
    for (float& g : gram) g *= factor;
    multiply(p.head_dim, r, r, {p.w.data(), r}, {gram.data(), r}, 1.0f, gradient->w.data());
  }
  return options_.eta * norm;
}

double PaperObjective::evaluate(std::span<const Row> rows, const Parameters& p, double,
                                Parameters* gradient) {
  Totals totals;
  totals.sums.resize(p.log_scale.size() * static_cast<size_t>(p.rbit));
  labels_.resize(rows.size());
  soft_.resize(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    label_row(rows[i], labels_[i]);
    prepare(rows[i], labels_[i], p, soft_[i]);
    add_totals(rows[i], labels_[i], p, soft_[i], totals);
  }
  if (gradient != nullptr) {
    *gradient = p.zeros();
    for (size_t i = 0; i < rows.size(); ++i) {
      backward(rows[i], labels_[i], p, totals, soft_[i], *gradient);
    }
  }
  const double pairs = static_cast<double>(totals.pairs);
  double balance = 0;
  for (const double sum : totals.sums) {
    balance += sum / (pairs * p.rbit) * (sum / (pairs * p.rbit));
  }
  return options_.epsilon * totals.similarity / pairs + options_.lambda * balance +
         decorrelation(p, gradient);
}

}  // namespace hata::learn
