#include "learn/quality.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "hata/encode.h"
#include "hata/score.h"
#include "learn/blas.h"
#include "learn/vector_math.h"

namespace hata::learn {
namespace {

// A row's codes and lengths as the score stage wants them: keys padded to 64.
class RowCodes {
 public:
  RowCodes(const Row& row, const Ranking& ranking)
      : group_(row.group), rbit_(ranking.rbit), padded_((row.n_keys() + 63) / 64 * 64) {
    const int64_t n = row.n_keys(), n_vectors = row.n_queries() * group_;
    const size_t words = static_cast<size_t>(rbit_ / 64);
    memory_.resize(static_cast<size_t>(padded_) * words + 8);
    keys_ = memory_.data();
    while (reinterpret_cast<uintptr_t>(keys_) % 64 != 0) ++keys_;
    const size_t stride = static_cast<size_t>(row.head_dim) * sizeof(float);
    std::vector<float> centred = row.keys;
    if (ranking.key_mean != nullptr) subtract_mean(ranking.key_mean, row.head_dim, centred);
    encode(ranking.w, row.head_dim, rbit_, centred.data(), DType::f32, stride, n, keys_);
    queries_.resize(static_cast<size_t>(n_vectors) * words);
    encode(ranking.w_query != nullptr ? ranking.w_query : ranking.w, row.head_dim, rbit_,
           row.queries.data(), DType::f32, stride, n_vectors, queries_.data());
    if (ranking.inv_unit == 0) return;
    std::vector<uint8_t> each(static_cast<size_t>(padded_), 8);
    key_lengths(row.head_dim, row.keys.data(), DType::f32, stride, n, ranking.inv_unit,
                each.data());
    for (int64_t i = 0; i < padded_; i += 2) {
      lengths_.push_back(static_cast<uint8_t>(each[static_cast<size_t>(i)] |
                                              each[static_cast<size_t>(i + 1)] << 4));
    }
  }
  RowCodes(const RowCodes&) = delete;  // keys_ points into memory_

  std::vector<int16_t> scores(int64_t query, ScoreRule rule) const {
    std::vector<int16_t> scores(static_cast<size_t>(padded_));
    const auto score_keys = rule == ScoreRule::sum ? score : score_squares;
    score_keys(queries_.data() + query * group_ * (rbit_ / 64), group_, rbit_, keys_,
               lengths_.empty() ? nullptr : lengths_.data(), padded_, scores.data());
    return scores;
  }

 private:
  int group_, rbit_;
  int64_t padded_;
  std::vector<uint64_t> memory_, queries_;
  uint64_t* keys_ = nullptr;  // in memory_, on 64 bytes
  std::vector<uint8_t> lengths_;
};

// The attention of each query vector: [query][head][key], 0 where a key is not seen.
std::vector<float> attention(const Row& row) {
  const int64_t n_keys = row.n_keys(), n_vectors = row.n_queries() * row.group;
  std::vector<float> logits(static_cast<size_t>(n_vectors * n_keys));
  multiply(n_vectors, n_keys, row.head_dim, {row.queries.data(), row.head_dim},
           {row.keys.data(), row.head_dim, true}, 0.0f, logits.data());
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(row.head_dim)));
  for (float& logit : logits) logit *= scale;
  for (int64_t v = 0; v < n_vectors; ++v) {
    float* p = logits.data() + v * n_keys;
    const int64_t n = row.positions[static_cast<size_t>(v / row.group)] + 1;
    const auto sum = static_cast<float>(exp_all(p, n, max_of(p, n)));
    for (int64_t i = 0; i < n; ++i) p[i] /= sum;
    std::fill(p + n, p + n_keys, 0.0f);
  }
  return logits;
}

// Summed over the group: [query][key].
std::vector<float> summed(const Row& row, const std::vector<float>& attention) {
  const int64_t n_keys = row.n_keys();
  std::vector<float> p(static_cast<size_t>(row.n_queries() * n_keys));
  for (int64_t v = 0; v < row.n_queries() * row.group; ++v) {
    const float* from = attention.data() + v * n_keys;
    float* to = p.data() + v / row.group * n_keys;
    for (int64_t i = 0; i < n_keys; ++i) to[i] += from[i];
  }
  return p;
}

// The k of the keys first .. last - 1 with the largest values, ties to the first key; in any order.
template <class T>
std::vector<int32_t> best(const T* values, int64_t first, int64_t last, int64_t k) {
  std::vector<int32_t> order(static_cast<size_t>(last - first));
  std::iota(order.begin(), order.end(), static_cast<int32_t>(first));
  if (k < static_cast<int64_t>(order.size())) {
    std::nth_element(order.begin(), order.begin() + k, order.end(), [&](int32_t a, int32_t b) {
      return values[a] != values[b] ? values[a] > values[b] : a < b;
    });
    order.resize(static_cast<size_t>(k));
  }
  return order;
}

// Which keys a query attends to with these scores, besides the first and the last `recent`.
struct Cut {
  int64_t last;  ///< the first of the window
  int64_t far;   ///< how many before it
};
Cut cut_of(int64_t n, int64_t k, const Recent& recent) {
  const int64_t window = std::min(recent.of(k), k - 1);
  return {n - window, k - window - 1};
}

// The output of attention to these keys alone.
void attend_to(const std::vector<int32_t>& chosen, const Row& row, const float* attention,
               std::vector<double>& out) {
  double sum = 0;
  std::fill(out.begin(), out.end(), 0.0);
  for (const int32_t key : chosen) {
    const auto share = static_cast<double>(attention[key]);
    sum += share;
    const float* value = row.values.data() + static_cast<size_t>(key) * out.size();
    for (size_t j = 0; j < out.size(); ++j) out[j] += share * static_cast<double>(value[j]);
  }
  for (double& x : out) x /= std::max(sum, 1e-30);
}

// |is - want|^2 / |want|^2
double error_of(const std::vector<double>& is, const float* want) {
  double lost = 0, whole = 0;
  for (size_t j = 0; j < is.size(); ++j) {
    const auto wanted = static_cast<double>(want[j]);
    lost += (is[j] - wanted) * (is[j] - wanted);
    whole += wanted * wanted;
  }
  return lost / std::max(whole, 1e-30);
}

}  // namespace

void subtract_mean(const float* mean, int head_dim, std::vector<float>& vectors) {
  const auto d = static_cast<size_t>(head_dim);
  for (size_t i = 0; i < vectors.size(); ++i) vectors[i] -= mean[i % d];
}

Quality& Quality::operator+=(const Quality& other) {
  const double mine = static_cast<double>(queries), theirs = static_cast<double>(other.queries);
  const double all = std::max(mine + theirs, 1.0);
  for (const auto part : {&Quality::kept_mass, &Quality::recall, &Quality::all_mass}) {
    std::vector<double>& x = this->*part;
    x.resize((other.*part).size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = (x[i] * mine + (other.*part)[i] * theirs) / all;
  }
  queries += other.queries;
  return *this;
}

HeldOutRow::HeldOutRow(Row row)
    : row_(std::move(row)), attention_(attention(row_)), summed_(summed(row_, attention_)) {}

Quality HeldOutRow::quality(const Ranking& ranking, const std::vector<Budget>& budgets,
                            const Recent& recent) const {
  const std::vector<double> none(budgets.size());
  Quality quality{none, none, none, row_.n_queries()};
  const bool exact = ranking.w == nullptr;
  std::optional<RowCodes> codes;
  if (!exact) codes.emplace(row_, ranking);
  for (int64_t query = 0; query < row_.n_queries(); ++query) {
    const float* p = summed_.data() + query * row_.n_keys();
    std::vector<int16_t> scores;
    if (!exact) scores = codes->scores(query, ScoreRule::sum);
    const int64_t n = row_.positions[static_cast<size_t>(query)] + 1;
    for (size_t b = 0; b < budgets.size(); ++b) {
      const int64_t k = std::min(budgets[b].of(n), n);
      const auto [last, far] = cut_of(n, k, recent);
      const auto truth = best(p, 1, last, far);
      const auto found = exact ? truth : best(scores.data(), 1, last, far);
      std::vector<bool> is_found(static_cast<size_t>(n));
      double kept = 0, mass = 0, hits = 0;
      for (const int32_t i : found) {
        kept += static_cast<double>(p[i]);
        is_found[static_cast<size_t>(i)] = true;
      }
      for (int64_t i = 1; i < last; ++i) mass += static_cast<double>(p[i]);
      // A query's probabilities sum to one for each head of the group.
      const double forced = row_.group - mass;
      for (const int32_t i : truth) hits += is_found[static_cast<size_t>(i)];
      const double weight = 1.0 / static_cast<double>(row_.n_queries());
      quality.kept_mass[b] += weight * (mass > 0 ? kept / mass : 1.0);
      quality.all_mass[b] += weight * (forced + kept) / row_.group;
      quality.recall[b] +=
          weight * (truth.empty() ? 1.0 : hits / static_cast<double>(truth.size()));
    }
  }
  return quality;
}

std::vector<double> HeldOutRow::output_errors(const Ranking& ranking, const Budget& budget,
                                              const std::vector<Recent>& windows) const {
  const int64_t n_keys = row_.n_keys(), n_vectors = row_.n_queries() * row_.group;
  const auto d = static_cast<size_t>(row_.head_dim);
  std::vector<float> dense(static_cast<size_t>(n_vectors) * d);
  multiply(n_vectors, row_.head_dim, n_keys, {attention_.data(), n_keys},
           {row_.values.data(), row_.head_dim}, 0.0f, dense.data());
  const RowCodes codes(row_, ranking);
  std::vector<double> errors(windows.size());
  const double weight = 1.0 / static_cast<double>(2 * n_vectors);  // both rules
  std::vector<double> sparse(d);
  for (int64_t query = 0; query < row_.n_queries(); ++query) {
    const int64_t n = row_.positions[static_cast<size_t>(query)] + 1;
    const int64_t k = std::min(budget.of(n), n);
    for (const ScoreRule rule : {ScoreRule::sum, ScoreRule::squares}) {
      const std::vector<int16_t> scores = codes.scores(query, rule);
      for (size_t window = 0; window < windows.size(); ++window) {
        const auto [last, far] = cut_of(n, k, windows[window]);
        std::vector<int32_t> chosen = best(scores.data(), 1, last, far);
        chosen.push_back(0);
        for (int64_t i = last; i < n; ++i) chosen.push_back(static_cast<int32_t>(i));
        for (int64_t v = query * row_.group; v < (query + 1) * row_.group; ++v) {
          attend_to(chosen, row_, attention_.data() + v * n_keys, sparse);
          errors[window] += weight * error_of(sparse, dense.data() + static_cast<size_t>(v) * d);
        }
      }
    }
  }
  return errors;
}

}  // namespace hata::learn
