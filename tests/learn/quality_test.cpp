// What codes are worth, on rows where it is known.
#include "learn/quality.h"

#include <gtest/gtest.h>

#include <random>

#include "hata/encode.h"

namespace hata::learn {
namespace {

constexpr int kDim = 64, kGroup = 2, kKeys = 600;

// Keys of random directions; queries that look at one key (sharp) or, nearly, at all alike.
struct Planted {
  Row row{kDim, kGroup, {}, {}, {}};
  Projection projection = random_projection(3, 0, 1, kDim, 128);
  std::mt19937_64 random{7};

  explicit Planted(bool sharp) {
    std::normal_distribution<float> normal;
    for (int i = 0; i < kKeys * kDim; ++i) {
      row.keys.push_back(normal(random));
      row.values.push_back(normal(random));
    }
    for (int i = 0; i < 8; ++i) {
      row.positions.push_back(kKeys - 1 - i);
      const int key = 40 + 60 * i;  // far from the query
      for (int j = 0; j < kGroup * kDim; ++j) {
        row.queries.push_back(row.keys[static_cast<size_t>(key * kDim + j % kDim)] *
                              (sharp ? 1.5f : 0.05f));
      }
    }
  }
  std::vector<double> errors(int64_t budget, const std::vector<Recent>& windows) const {
    const Ranking ranking{.w = projection.head(0), .inv_unit = 1.0f};
    return HeldOutRow(row).output_errors(ranking, {.tokens = budget}, windows);
  }
};

TEST(OutputErrors, NothingIsLostWithAllKeys) {
  for (const bool sharp : {false, true}) {
    const auto errors = Planted(sharp).errors(kKeys, {{}, {.share = 0.5}});
    ASSERT_EQ(errors.size(), 2u);
    for (const double error : errors) EXPECT_LT(error, 1e-9);
  }
}

// With the first key and a window of all others there is nothing to choose: the error is what the
// definition says.
TEST(OutputErrors, AreThoseOfTheDefinition) {
  const Planted planted(false);
  const Row& row = planted.row;
  constexpr int64_t kBudget = 50;
  double want = 0;
  for (size_t query = 0; query < row.positions.size(); ++query) {
    const int n = row.positions[query] + 1;
    const float* q = row.queries.data() + query * kGroup * kDim;  // both heads have the same
    std::vector<double> dense(kDim), sparse(kDim);
    double all = 0, chosen = 0;
    for (int i = 0; i < n; ++i) {
      double logit = 0;
      for (int j = 0; j < kDim; ++j) {
        logit += static_cast<double>(q[j]) *
                 static_cast<double>(row.keys[static_cast<size_t>(i * kDim + j)]) / 8;
      }
      const double p = std::exp(logit);
      const bool kept = i == 0 || i >= n - (kBudget - 1);
      all += p;
      chosen += kept ? p : 0;
      for (int j = 0; j < kDim; ++j) {
        const auto v = static_cast<double>(row.values[static_cast<size_t>(i * kDim + j)]);
        dense[static_cast<size_t>(j)] += p * v;
        sparse[static_cast<size_t>(j)] += kept ? p * v : 0;
      }
    }
    double lost = 0, whole = 0;
    for (size_t j = 0; j < kDim; ++j) {
      const double off = sparse[j] / chosen - dense[j] / all;
      lost += off * off;
      whole += dense[j] / all * dense[j] / all;
    }
    want += lost / whole / static_cast<double>(row.positions.size());
  }
  EXPECT_NEAR(planted.errors(kBudget, {{.share = 1.0}})[0], want, 1e-5 * want);
}

// A query that looks for one far key needs room for it; what one head finds, the other shares.
TEST(OutputErrors, SharpAttentionWantsASmallWindow) {
  const auto errors = Planted(true).errors(40, {{}, {.share = 0.5}, {.share = 0.975}});
  EXPECT_LE(errors[0], 0.05);
  EXPECT_GT(errors[2], 10 * errors[0]) << "no key but recent ones";
}

}  // namespace
}  // namespace hata::learn
