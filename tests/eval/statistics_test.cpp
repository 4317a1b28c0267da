#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace hata::eval {
namespace {

constexpr Bounds kShare{0, 1}, kDifference{-1, 1};

// Questions whose chance to be right varies from document to document.
std::vector<Stratum> planted(Random& random, int n_tasks, int n_documents, int n_queries,
                             double spread) {
  std::vector<Stratum> strata(static_cast<size_t>(n_tasks));
  for (int task = 0; task < n_tasks; ++task) {
    const double chance = 0.3 + 0.4 * task / std::max(1, n_tasks - 1);
    for (int d = 0; d < n_documents; ++d) {
      const double here = std::clamp(chance + spread * random.quick_normal(), 0.02, 0.98);
      Cluster scores;
      for (int q = 0; q < n_queries; ++q) {
        scores.push_back(static_cast<double>(random.below(1u << 20)) < here * (1u << 20));
      }
      strata[static_cast<size_t>(task)].push_back(scores);
    }
  }
  return strata;
}

double coverage(int n_tasks, int n_documents, int n_queries, double spread) {
  constexpr int kTrials = 400;
  Random random(7);
  int covered = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto strata = planted(random, n_tasks, n_documents, n_queries, spread);
    const Estimate e = bootstrap(strata, kShare, static_cast<uint64_t>(trial));
    covered += e.low <= 0.5 && 0.5 <= e.high;  // the planted mean
  }
  return static_cast<double>(covered) / kTrials;
}

TEST(Bootstrap, CoversThePlantedMean) {
  for (const double spread : {0.0, 0.15}) {
    const double full = coverage(8, 8, 20, spread);
    EXPECT_GE(full, 0.92) << spread;
    EXPECT_LE(full, 0.98) << spread;
    EXPECT_GE(coverage(8, 3, 20, spread), 0.88) << "few documents: " << spread;
  }
}

TEST(Bootstrap, QuestionsTakenAsIndependentWouldNotCover) {
  Random random(7);
  int covered = 0;
  for (int trial = 0; trial < 400; ++trial) {
    std::vector<Stratum> strata = planted(random, 8, 8, 20, 0.15);
    for (Stratum& stratum : strata) {
      Stratum apart;
      for (const Cluster& scores : stratum) {
        for (const double score : scores) apart.push_back({score});
      }
      stratum = apart;
    }
    const Estimate e = bootstrap(strata, kShare, 1);
    covered += e.low <= 0.5 && 0.5 <= e.high;
  }
  EXPECT_LT(covered, 0.9 * 400) << "clustering matters on these data";
}

TEST(Bootstrap, TasksCountAlike) {
  const Stratum few = {{1, 1}, {1, 1}};
  const Stratum many = {{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
  const Estimate e = bootstrap(std::vector<Stratum>{few, many}, kShare, 1);
  EXPECT_EQ(e.mean, 0.5);
  EXPECT_EQ(e.n, 16);
  EXPECT_EQ(e.low, 0.5) << "no spread within a task";
  EXPECT_EQ(e.high, 0.5);
}

TEST(Bootstrap, TheSameForTheSameSeed) {
  Random random(3);
  const auto strata = planted(random, 3, 5, 10, 0.1);
  const Estimate a = bootstrap(strata, kShare, 11), b = bootstrap(strata, kShare, 11);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  EXPECT_LT(a.low, a.mean);
  EXPECT_GT(a.high, a.mean);
}

TEST(Bootstrap, WhereAllAreAlikeTheRuleOfThree) {
  const std::vector<Stratum> right(1, Stratum(10, Cluster(20, 1.0)));
  const Estimate accuracy = bootstrap(right, kShare, 1);
  EXPECT_EQ(accuracy.mean, 1);
  EXPECT_DOUBLE_EQ(accuracy.low, 1 - 3.0 / 200);
  EXPECT_EQ(accuracy.high, 1);
  const std::vector<Stratum> same(1, Stratum(10, Cluster(20, 0.0)));
  EXPECT_FALSE(as_good(bootstrap(same, kDifference, 1))) << "200 questions are too few";
  const std::vector<Stratum> more(1, Stratum(20, Cluster(20, 0.0)));
  EXPECT_TRUE(as_good(bootstrap(more, kDifference, 1)));
}

TEST(Bootstrap, OneDocumentsQuestionsAreDrawnApart) {
  const std::vector<Stratum> one = {{Cluster{1, 0, 1, 0, 1, 0, 1, 0, 1, 0}}};
  const Estimate e = bootstrap(one, kShare, 1);
  EXPECT_EQ(e.mean, 0.5);
  EXPECT_LT(e.low, 0.35);
  EXPECT_GT(e.high, 0.65);
}

TEST(Bootstrap, NothingIsNothing) {
  EXPECT_EQ(bootstrap({}, kShare, 1).n, 0);
  EXPECT_EQ(bootstrap(std::vector<Stratum>(2), kShare, 1).n, 0);
}

TEST(AsGood, OnlyInsideOnePoint) {
  EXPECT_TRUE(as_good({.mean = 0, .low = -0.01, .high = 0.01, .n = 1000}));
  EXPECT_FALSE(as_good({.mean = 0, .low = -0.011, .high = 0.005, .n = 1000}));
  EXPECT_FALSE(as_good({.mean = 0.03, .low = 0.02, .high = 0.04, .n = 1000})) << "better is not as";
}

TEST(Difference, IsPaired) {
  // Two settings that are each wrong half of the time, on the same questions.
  Random random(5);
  std::vector<Stratum> accuracy(1), differences(1);
  for (int d = 0; d < 40; ++d) {
    Cluster a, b;
    for (int q = 0; q < 20; ++q) {
      a.push_back(random.below(2) == 1);
      b.push_back(random.below(100) == 0 ? 1 - a.back() : a.back());
    }
    accuracy[0].push_back(a);
    differences[0].push_back(difference(b, a));
  }
  const Estimate mean = bootstrap(accuracy, kShare, 1);
  const Estimate d = bootstrap(differences, kDifference, 1);
  EXPECT_GT(mean.high - mean.low, 0.05);
  EXPECT_LT(d.high - d.low, 0.02);
  EXPECT_EQ(difference(Cluster{1, 0.5}, Cluster{0.5, 1}), (Cluster{0.5, -0.5}));
}

}  // namespace
}  // namespace hata::eval
