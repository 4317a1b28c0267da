// What codes are worth on rows that training has not seen: of the keys far from the query (those
// that are not kept anyway), how much attention the chosen ones hold, and how many of the best are
// among them.
#pragma once

#include <string>
#include <vector>

#include "hata/selector.h"
#include "learn/row.h"

namespace hata::learn {

/// How keys are ranked. w nullptr: by their true probability, summed over the group (the ceiling).
struct Ranking {
  const float* w = nullptr;  ///< [head_dim][rbit]
  int rbit = 128;
  const float* w_query = nullptr;   ///< of the queries, where it is another
  const float* key_mean = nullptr;  ///< [head_dim] subtracted from keys before they are encoded
  float inv_unit = 0;  ///< 8 / mean key length; 0: lengths do not count (the paper's order)
};

/// [n][head_dim] -= [head_dim]
void subtract_mean(const float* mean, int head_dim, std::vector<float>& vectors);

/// Means over queries, one for each budget.
struct Quality {
  std::vector<double> kept_mass = {};  ///< share of the far keys' attention
  std::vector<double> recall = {};    ///< share of the far keys with the largest summed probability
  std::vector<double> all_mass = {};  ///< share of all keys' attention that the chosen ones hold
  int64_t queries = 0;

  Quality& operator+=(const Quality& other);  ///< weighted by queries
};

/// A row that training has not seen, and its attention, which is computed once.
class HeldOutRow {
 public:
  explicit HeldOutRow(Row row);

  const Row& row() const { return row_; }
  bool has_values() const { return !row_.values.empty(); }

  /// Budgets count the first and the recent tokens in, as decoding does.
  Quality quality(const Ranking& ranking, const std::vector<Budget>& budgets,
                  const Recent& recent = {}) const;
  /// How far the attention's output is from dense attention's with each of these windows:
  /// |sparse - dense|^2 / |dense|^2, the mean over queries, their heads, and both score rules: a
  /// layer has one window. Needs the row's values.
  std::vector<double> output_errors(const Ranking& ranking, const Budget& budget,
                                    const std::vector<Recent>& windows) const;

 private:
  Row row_;
  std::vector<float> attention_;  ///< [query][head][key], 0 where a key is not seen
  std::vector<float> summed_;     ///< over the group: [query][key]
};

}  // namespace hata::learn
