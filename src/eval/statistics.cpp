#include "eval/statistics.h"

#include <algorithm>
#include <numeric>

#include "core/random.h"

namespace hata::eval {
namespace {

constexpr int kDraws = 2000;
constexpr double kTail = 0.025;
constexpr double kAsGood = 0.01;

struct Sum {
  double sum = 0;
  double n = 0;

  Sum& operator+=(const Sum& other) {
    sum += other.sum;
    n += other.n;
    return *this;
  }
  double mean() const { return sum / n; }
};

// What is drawn: whole documents, or single queries.
std::vector<Sum> units_of(const Stratum& stratum, bool documents) {
  std::vector<Sum> units;
  for (const Cluster& scores : stratum) {
    if (scores.empty()) continue;
    if (documents) {
      units.push_back(
          {std::accumulate(scores.begin(), scores.end(), 0.0), static_cast<double>(scores.size())});
    } else {
      for (const double score : scores) units.push_back({score, 1});
    }
  }
  return units;
}

double draw(const std::vector<Sum>& units, Random& random) {
  Sum sum;
  const size_t n = std::max<size_t>(1, units.size() - 1);
  for (size_t i = 0; i < n; ++i) sum += units[random.below(units.size())];
  return sum.mean();
}

// Widens the estimate's interval to that of drawing these units; [stratum].
void widen(const std::vector<std::vector<Sum>>& strata, Random& random, Estimate& estimate) {
  std::vector<double> means(kDraws);
  for (double& mean : means) {
    for (const auto& units : strata) mean += draw(units, random);
    mean /= static_cast<double>(strata.size());
  }
  std::sort(means.begin(), means.end());
  const auto tail = static_cast<size_t>(kTail * kDraws);
  estimate.low = std::min(estimate.low, means[tail]);
  estimate.high = std::max(estimate.high, means[kDraws - 1 - tail]);
}

bool all_alike(std::span<const Stratum> strata) {
  const double* first = nullptr;
  for (const Stratum& stratum : strata) {
    for (const Cluster& scores : stratum) {
      for (const double& score : scores) {
        if (first == nullptr) first = &score;
        if (score != *first) return false;
      }
    }
  }
  return true;
}

}  // namespace

Estimate bootstrap(std::span<const Stratum> strata, const Bounds& bounds, uint64_t seed) {
  std::vector<std::vector<Sum>> documents, queries;
  Estimate estimate;
  for (const Stratum& stratum : strata) {
    auto units = units_of(stratum, true);
    if (units.empty()) continue;
    Sum all;
    for (const Sum& unit : units) all += unit;
    estimate.mean += all.mean();
    estimate.n += static_cast<int64_t>(all.n);
    documents.push_back(std::move(units));
    queries.push_back(units_of(stratum, false));
  }
  if (documents.empty()) return estimate;
  estimate.mean /= static_cast<double>(documents.size());
  estimate.low = estimate.high = estimate.mean;
  if (all_alike(strata)) {
    const double reach = 3.0 / static_cast<double>(estimate.n);
    estimate.low = std::max(bounds.least, estimate.mean - reach);
    estimate.high = std::min(bounds.most, estimate.mean + reach);
    return estimate;
  }
  Random random(seed);
  widen(documents, random, estimate);
  widen(queries, random, estimate);
  return estimate;
}

Cluster difference(std::span<const double> a, std::span<const double> b) {
  Cluster differences(std::min(a.size(), b.size()));
  for (size_t i = 0; i < differences.size(); ++i) differences[i] = a[i] - b[i];
  return differences;
}

bool as_good(const Estimate& difference) {
  return difference.low >= -kAsGood && difference.high <= kAsGood;
}

}  // namespace hata::eval
