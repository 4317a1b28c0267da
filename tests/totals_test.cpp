// AttentionTotals against a direct computation, and the methods that choose by them.

#include "methods/totals.h"

#include <map>

#include "problem.h"

namespace hata {
namespace {

using test::Problem;

constexpr HeadShape kShape{8, 2, 64};
constexpr int64_t kCells = 400;
constexpr int kRows = 40;

class TotalsTest : public test::StepTest {
 protected:
  // A prompt of 400 keys, of which the last 40 are the rows of one batch, and what it looked at.
  struct Prompt {
    explicit Prompt(const std::string& spec, unsigned seed = 3)
        : problem(kShape, kCells + 100, kRows, seed),
          selector(make_selector(spec, {})),
          cache(*selector, 0, kShape, kCells + 100),
          decoder(selector) {
      for (int row = 0; row < kRows; ++row) {
        for (int64_t cell = kCells - kRows + row + 1; cell < kCells + 100; ++cell) {
          problem.mask_out(row, cell);
        }
      }
      cache.index.written(0, kCells);
      cache.totals = std::make_unique<AttentionTotals>(kShape, kCells + 100);
    }

    Step rows(int first, int n) const {
      Step s = problem.step();
      s.rows = s.rows.subspan(static_cast<size_t>(first), static_cast<size_t>(n));
      return s;
    }
    void observe(int first, int n, int threads = 2) {
      Team team(threads);
      const Step s = rows(first, n);
      team.run([&](const Worker& worker) { cache.totals->observe(s, cache.index, worker); });
    }
    // A decode step: the query of the prompt's last row, which sees the first n cells.
    void decode(int64_t n, const char* budget) {
      Step s = rows(kRows - 1, 1);
      std::vector<uint16_t> mask(static_cast<size_t>(kCells + 100), test::kMinusInfinity);
      std::fill_n(mask.begin(), n, uint16_t{0});
      Row row = s.rows[0];
      row.mask = mask.data();
      s.rows = {&row, 1};
      Team team(2);
      team.run([&](const Worker& worker) { decoder.step(s, &cache, rule(budget), worker); });
    }
    std::vector<int32_t> chosen(int head) const {
      const auto cells = decoder.selection().cells(0, head);
      return {cells.begin(), cells.end()};
    }

    Problem problem;
    std::shared_ptr<const Selector> selector;
    LayerCache cache;
    Decoder decoder;
  };

  // Probabilities of the rows, by cell, summed over a group.
  static std::vector<double> direct(const Prompt& p, int head, int first, int n) {
    const Step s = p.problem.step();
    std::vector<double> sums(static_cast<size_t>(kCells), 0.0);
    for (int row = first; row < first + n; ++row) {
      for (int g = 0; g < 4; ++g) {
        const float* q = s.rows[static_cast<size_t>(row)].q + (head * 4 + g) * 64;
        std::vector<double> weights;
        double total = 0.0;
        for (int64_t cell = 0; cell <= kCells - kRows + row; ++cell) {
          double logit = 0.0;
          for (int i = 0; i < 64; ++i) {
            logit += static_cast<double>(q[i]) *
                     static_cast<double>(reference::element(s.keys.row(cell, head), DType::f16, i));
          }
          weights.push_back(std::exp(logit / 8.0));
          total += weights.back();
        }
        for (size_t c = 0; c < weights.size(); ++c) sums[c] += weights[c] / total;
      }
    }
    return sums;
  }

  static std::vector<int32_t> largest(const std::vector<double>& x, size_t n, size_t end) {
    std::vector<int32_t> order(end);
    for (size_t i = 0; i < end; ++i) order[i] = static_cast<int32_t>(i);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return x[static_cast<size_t>(a)] > x[static_cast<size_t>(b)];
    });
    order.resize(n);
    return order;
  }
};

TEST_F(TotalsTest, SumsAreThoseOfADirectComputation) {
  Prompt p("h2o");
  p.observe(0, 7);
  p.observe(7, 33);
  for (int head = 0; head < 2; ++head) {
    const auto all = direct(p, head, 0, kRows);
    const auto last = direct(p, head, kRows - 32, 32);
    for (int64_t cell = 0; cell < kCells; ++cell) {
      EXPECT_NEAR(p.cache.totals->all(p.cache.index, head, cell), all[cell], 1e-5) << cell;
      EXPECT_NEAR(p.cache.totals->last(p.cache.index, head, cell), last[cell], 1e-5) << cell;
    }
    EXPECT_EQ(p.cache.totals->all(p.cache.index, head, kCells), 0.0f);
  }
}

TEST_F(TotalsTest, SumsDoNotDependOnThreads) {
  Prompt one("h2o"), three("h2o");
  one.observe(0, kRows, 1);
  three.observe(0, kRows, 3);
  for (int64_t cell = 0; cell < kCells; ++cell) {
    ASSERT_EQ(one.cache.totals->all(one.cache.index, 1, cell),
              three.cache.totals->all(three.cache.index, 1, cell));
  }
}

TEST_F(TotalsTest, AWrittenCellIsForgotten) {
  Prompt p("h2o");
  p.observe(0, kRows);
  EXPECT_GT(p.cache.totals->all(p.cache.index, 0, 17), 0.0f);
  p.cache.index.changed(0, kCells);  // a context shift: the same keys
  EXPECT_GT(p.cache.totals->all(p.cache.index, 0, 17), 0.0f);
  p.cache.index.written(std::vector<int64_t>{17});
  EXPECT_EQ(p.cache.totals->all(p.cache.index, 0, 17), 0.0f);
  EXPECT_GT(p.cache.totals->all(p.cache.index, 0, 18), 0.0f);
}

TEST_F(TotalsTest, WithoutAnObservedPromptRowsStayDense) {
  for (const char* spec : {"h2o", "snapkv"}) {
    Prompt p(spec);
    p.decode(kCells, "50");
    EXPECT_EQ(p.decoder.counters().sparse_rows, 0) << spec;
    EXPECT_EQ(p.decoder.counters().unobserved_rows, 1) << spec;
    p.observe(0, kRows);
    p.decode(kCells, "50");
    EXPECT_EQ(p.decoder.counters().sparse_rows, 1) << spec;
    p.cache.index.written(std::vector<int64_t>{0});  // another prompt begins there
    p.cache.index.written(1, kCells);
    p.decode(kCells, "50");
    EXPECT_EQ(p.decoder.counters().sparse_rows, 1) << spec;
  }
}

// Half the budget for the last keys, half for those most looked at.
TEST_F(TotalsTest, H2oKeepsHeavyHittersAndRecentKeys) {
  Prompt p("h2o");
  p.observe(0, kRows);
  p.decode(kCells, "50");
  for (int head = 0; head < 2; ++head) {
    auto want = largest(direct(p, head, 0, kRows), 25, kCells - 25);
    for (int32_t c = kCells - 25; c < kCells; ++c) want.push_back(c);
    std::sort(want.begin(), want.end());
    EXPECT_EQ(p.chosen(head), want);
  }
}

// A key that was evicted stays so, and decoding adds to the totals of those that were kept.
TEST_F(TotalsTest, H2oEvictsForGood) {
  Prompt p("h2o");
  p.observe(0, kRows);
  p.decode(kCells, "50");
  const auto first = p.chosen(0);
  const float before = p.cache.totals->all(p.cache.index, 0, first[0]);
  std::vector<int32_t> kept = first;
  for (int64_t token = 0; token < 60; ++token) {
    p.problem.new_key(kCells + token);
    p.cache.index.written(std::vector<int64_t>{kCells + token});
    p.decode(kCells + token + 1, "50");
    for (const int32_t cell : p.chosen(0)) {
      const bool was_kept = std::binary_search(kept.begin(), kept.end(), cell);
      EXPECT_TRUE(was_kept || cell == kCells + token) << "token " << token << " cell " << cell;
    }
    kept = p.chosen(0);
  }
  EXPECT_GT(p.cache.totals->all(p.cache.index, 0, first[0]), before);
}

TEST_F(TotalsTest, GoingBackForgetsWhatDecodingAdded) {
  Prompt p("h2o");
  p.observe(0, kRows);
  const auto totals = [&](int64_t cell) { return p.cache.totals->all(p.cache.index, 0, cell); };
  std::vector<float> prompt;
  for (int64_t cell = 0; cell < kCells; ++cell) prompt.push_back(totals(cell));
  const auto ask = [&] {
    for (int64_t token = 0; token < 5; ++token) {
      p.problem.new_key(kCells + token);
      p.cache.index.written(std::vector<int64_t>{kCells + token});
      p.decode(kCells + token + 1, "50");
    }
  };
  p.cache.index.written(std::vector<int64_t>{kCells});
  p.decode(kCells + 1, "50");
  const auto first = p.chosen(1);
  ask();
  ask();
  p.cache.index.written(std::vector<int64_t>{kCells});
  p.cache.totals->follow(p.cache.index);
  for (int64_t cell = 0; cell < kCells; ++cell) EXPECT_EQ(totals(cell), prompt[cell]);
  p.decode(kCells + 1, "50");
  EXPECT_EQ(p.chosen(1), first);
}

TEST_F(TotalsTest, SnapkvKeepsWhatTheWindowVotedFor) {
  Prompt p("snapkv:recent=8");
  p.observe(0, kRows);
  p.decode(kCells, "60");
  for (int head = 0; head < 2; ++head) {
    const auto votes = direct(p, head, kRows - 32, 32);
    std::vector<double> pooled;
    for (int64_t cell = 0; cell < kCells; ++cell) {
      double best = 0.0;
      for (int64_t c = std::max<int64_t>(0, cell - 3); c <= std::min(kCells - 1, cell + 3); ++c) {
        best = std::max(best, votes[static_cast<size_t>(c)]);
      }
      pooled.push_back(best);
    }
    auto want = largest(pooled, 52, kCells - 8);
    for (int32_t c = kCells - 8; c < kCells; ++c) want.push_back(c);
    std::sort(want.begin(), want.end());
    // Neighbours share their vote: where the list ends within such a run, rounding decides nothing,
    // the lower cell does.
    EXPECT_EQ(p.chosen(head), want);
  }
}

TEST_F(TotalsTest, SnapkvKeepsWhatCameAfterThePrompt) {
  Prompt p("snapkv:recent=4");
  p.observe(0, kRows);
  for (int64_t token = 0; token < 20; ++token) {
    p.cache.index.written(std::vector<int64_t>{kCells + token});
    p.decode(kCells + token + 1, "60");
  }
  const auto cells = p.chosen(0);
  for (int32_t c = kCells; c < kCells + 20; ++c) {
    EXPECT_TRUE(std::binary_search(cells.begin(), cells.end(), c)) << c;
  }
}

}  // namespace
}  // namespace hata
