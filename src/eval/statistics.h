// How sure a mean is: bootstrap intervals over documents, since questions about one document are
// not independent of each other.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hata::eval {

/// The scores of the queries about one document.
using Cluster = std::vector<double>;
/// The documents of one task.
using Stratum = std::vector<Cluster>;

/// What a score can be.
struct Bounds {
  double least = 0, most = 1;
};

/// A mean with its 95 % interval.
struct Estimate {
  double mean = 0, low = 0, high = 0;
  int64_t n = 0;  ///< queries
};

/// The mean of the strata's means (each task counts alike; empty ones do not), and its interval:
/// percentiles of a bootstrap that draws, of each stratum's m documents, m - 1 with replacement
/// (Rao and Wu, 1988: the draw whose variance is right for few documents), widened where drawing
/// single queries gives more (two documents may be alike by chance). Where all n queries score
/// alike, which tells nothing of their spread, the interval reaches 3 / n beyond (the rule of
/// three), within the bounds.
Estimate bootstrap(std::span<const Stratum> strata, const Bounds& bounds, uint64_t seed);

/// a - b, query by query.
Cluster difference(std::span<const double> a, std::span<const double> b);

/// "As good as": the interval of the difference lies inside +-1 point.
bool as_good(const Estimate& difference);

}  // namespace hata::eval
