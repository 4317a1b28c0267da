// What defines each method: its published property, the same result for any number of threads and
// on every instruction set, and stores that follow every write.

#include <map>
#include <numeric>
#include <set>

#include "core/eigen.h"
#include "index/channel_store.h"
#include "index/page_store.h"
#include "problem.h"

namespace hata {
namespace {

using test::Problem;

constexpr HeadShape kShape{8, 2, 64};
constexpr int64_t kCells = 1000;  // no multiple of 64
constexpr int kRows = 2;

// Every method that chooses, and some of their settings.
const char* const kSpecs[] = {
    "hata",
    "hata:recent=0:sink=0",
    "hata:rerank=2",
    "hata:rerank=4:rerank-keys=cache",
    "hata:score=squares",
    "random:score=squares:rerank=2",
    "hata-paper",
    "random:seed=3",
    "quest",
    "quest:page=32:last=off",
    "loki",
    "loki:channels=8:sink=1:recent=-1",
    "sparq",
    "sparq:channels=8:mean=off",
    "streaming",
    "magicpig:k=4:l=40",
    "exact-prob",
    "exact-logit:recent=16",
    "exact-logit",
};

double q_dot_k(const Step& step, int row, int q_head, int32_t cell) {
  const Row& r = step.rows[static_cast<size_t>(row)];
  double sum = 0.0;
  for (int i = 0; i < step.shape.head_dim; ++i) {
    sum += static_cast<double>(r.query(q_head)[i]) *
           static_cast<double>(
               reference::element(step.keys.row(cell, q_head / step.shape.group()), DType::f16, i));
  }
  return sum;
}

// The k best cells of those that are valid, ascending.
std::vector<int32_t> best(const std::map<int32_t, double>& scores, size_t k) {
  std::vector<std::pair<double, int32_t>> order;
  for (const auto& [cell, score] : scores) order.emplace_back(-score, cell);
  std::sort(order.begin(), order.end());
  std::vector<int32_t> cells;
  for (size_t i = 0; i < std::min(k, order.size()); ++i) cells.push_back(order[i].second);
  std::sort(cells.begin(), cells.end());
  return cells;
}

class MethodsTest : public test::StepTest {
 protected:
  // A problem with holes, a method on it, and one step.
  struct Run {
    Run(const std::string& spec, const HeadShape& shape, int64_t n_cells, unsigned seed)
        : problem(shape, n_cells, kRows, seed),
          selector(make_selector(spec, {})),
          cache(*selector, 3, shape, n_cells),
          decoder(selector) {
      problem.punch_holes(1, 5);
      cache.index.written(0, n_cells);
    }
    Problem problem;
    std::shared_ptr<const Selector> selector;
    LayerCache cache;
    Decoder decoder;

    std::vector<int32_t> cells(int row, int head) const {
      const auto span = decoder.selection().cells(row, head);
      return {span.begin(), span.end()};
    }
    std::vector<int32_t> valid(int row) const {
      std::vector<int32_t> cells;
      const auto words = problem.valid(row);
      for (int32_t c = 0; c < static_cast<int32_t>(words.size() * 64); ++c) {
        if (words[static_cast<size_t>(c / 64)] >> (c % 64) & 1) cells.push_back(c);
      }
      return cells;
    }
  };

  static void step(Run& run, const char* budget, int threads = 2) {
    MethodsTest::run(run.decoder, run.problem, &run.cache, rule(budget), threads);
  }

  // Largest difference of two results, relative to the values' size of about 1.
  static double difference(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
      const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
      sum += d * d;
    }
    return std::sqrt(sum / static_cast<double>(a.size()));
  }

  static std::vector<float> dense_result(unsigned seed, const HeadShape& shape = kShape,
                                         int64_t n_cells = kCells) {
    Run dense("dense", shape, n_cells, seed);
    MethodsTest::run(dense.decoder, dense.problem, nullptr, {}, 1);
    return dense.problem.out();
  }
};

TEST_F(MethodsTest, ChooseValidCellsInOrderWithinTheBudget) {
  for (const char* spec : kSpecs) {
    for (const char* budget : {"1", "10", "77", "512"}) {
      Run r(spec, kShape, kCells, 7);
      step(r, budget);
      for (int row = 0; row < kRows; ++row) {
        const auto valid = r.valid(row);
        for (int head = 0; head < kShape.n_kv_heads; ++head) {
          const auto cells = r.cells(row, head);
          EXPECT_LE(cells.size(), static_cast<size_t>(std::atoi(budget))) << spec;
          EXPECT_GE(cells.size(), 1u) << spec << " budget " << budget;
          EXPECT_TRUE(std::is_sorted(cells.begin(), cells.end())) << spec;
          EXPECT_EQ(std::adjacent_find(cells.begin(), cells.end()), cells.end()) << spec;
          EXPECT_TRUE(std::includes(valid.begin(), valid.end(), cells.begin(), cells.end()))
              << spec;
        }
      }
      for (const float x : r.problem.out()) ASSERT_TRUE(std::isfinite(x)) << spec;
    }
  }
}

TEST_F(MethodsTest, ResultsDoNotDependOnThreads) {
  for (const char* spec : kSpecs) {
    std::vector<float> first;
    for (const int threads : {1, 2, 3, 4}) {
      Run r(spec, kShape, 5000, 7);
      step(r, "77", threads);
      if (first.empty()) first = r.problem.out();
      ASSERT_EQ(r.problem.out(), first) << spec << " with " << threads << " threads";
    }
  }
}

TEST_F(MethodsTest, EveryInstructionSetChoosesTheSame) {
  for (const char* spec : kSpecs) {
    std::vector<int32_t> first;
    const SimdLevel level = simd_level();
    for (const SimdLevel other : available_simd()) {
      force_simd(other);
      Run r(spec, {6, 3, 80}, kCells, 8);
      step(r, "77");
      std::vector<int32_t> all;
      for (int row = 0; row < kRows; ++row) {
        for (int head = 0; head < 3; ++head) {
          for (const int32_t cell : r.cells(row, head)) all.push_back(cell);
        }
      }
      if (first.empty()) first = all;
      EXPECT_EQ(all, first) << spec << " on " << simd_name(other);
    }
    force_simd(level);
  }
}

TEST_F(MethodsTest, FullBudgetIsDense) {
  const auto dense = dense_result(5);
  for (const char* spec : kSpecs) {
    Run r(spec, kShape, kCells, 5);
    step(r, "100%");
    EXPECT_EQ(r.problem.out(), dense) << spec;
  }
}

// New keys in random cells, cleared cells, copied cells: after each, a step chooses what a fresh
// cache would.
TEST_F(MethodsTest, StoresFollowEveryWrite) {
  for (const char* spec : kSpecs) {
    Run r(spec, kShape, 512, 11);
    step(r, "60");
    std::mt19937 rng(4);
    for (int round = 0; round < 8; ++round) {
      std::vector<int64_t> cells;
      for (unsigned i = 0; i < 1 + rng() % 40; ++i) {
        cells.push_back(static_cast<int64_t>(rng() % 512));
        if (round % 4 == 3) {
          r.problem.clear(cells.back());
        } else if (round % 4 == 2) {
          r.problem.copy(cells.back(), static_cast<int64_t>(rng() % 512));
        } else {
          r.problem.new_key(cells.back());
        }
      }
      r.cache.index.written(cells);
      step(r, "60", 1 + round % 3);
      if (r.cache.store == nullptr) continue;
      for (int64_t cell = 0; cell < 512; ++cell) {
        ASSERT_TRUE(r.cache.store->matches(r.problem.step().keys, cell)) << spec << " " << cell;
      }
      for (int head = 0; head < kShape.n_kv_heads; ++head) {
        if (r.decoder.selection().has_bias() || r.decoder.selection().has_blend()) continue;
        const auto chosen = r.cells(0, head);
        r.problem.expect_output(0, head, &chosen);
      }
    }
  }
}

TEST_F(MethodsTest, ExactProbTakesTheLargestProbabilities) {
  Run r("exact-prob", kShape, 5000, 9);
  step(r, "40");
  const Step s = r.problem.step();
  for (int row = 0; row < kRows; ++row) {
    for (int head = 0; head < 2; ++head) {
      std::map<int32_t, double> sums;
      for (int g = 0; g < 4; ++g) {
        std::map<int32_t, double> weights;
        double total = 0.0;
        for (const int32_t cell : r.valid(row)) {
          const double logit = q_dot_k(s, row, head * 4 + g, cell) * 0.125;
          total += weights[cell] = std::exp(logit);
        }
        for (const auto& [cell, weight] : weights) sums[cell] += weight / total;
      }
      EXPECT_EQ(r.cells(row, head), best(sums, 40));
    }
  }
}

TEST_F(MethodsTest, WithoutWeightsThePaperIsRandomCodes) {
  Run paper("hata-paper", kShape, kCells, 3);
  Run random("random", kShape, kCells, 3);
  Run other("random:seed=2", kShape, kCells, 3);
  for (Run* r : {&paper, &random, &other}) step(*r, "50");
  EXPECT_EQ(paper.problem.out(), random.problem.out());
  EXPECT_NE(other.problem.out(), random.problem.out());
}

TEST_F(MethodsTest, RerankChoosesTheSameOnEveryInstructionSetForEveryShape) {
  const SimdLevel level = simd_level();
  for (const HeadShape& shape : {HeadShape{8, 2, 128}, {5, 1, 256}, {3, 3, 64}, {9, 1, 192}}) {
    std::vector<float> first;
    for (const SimdLevel other : available_simd()) {
      force_simd(other);
      Run r("hata:rerank=4", shape, kCells, 6);
      step(r, "50");
      std::vector<float> cells;
      for (int head = 0; head < shape.n_kv_heads; ++head) {
        for (const int32_t cell : r.cells(1, head)) cells.push_back(static_cast<float>(cell));
      }
      if (first.empty()) first = cells;
      EXPECT_EQ(cells, first) << shape.head_dim << " on " << simd_name(other);
    }
    force_simd(level);
  }
}

// All keys as candidates: the ranking is that of exact probabilities, whatever the window.
TEST_F(MethodsTest, RerankOfAllCandidatesIsExact) {
  for (const std::string window : {":sink=0:recent=0", ":sink=2:recent=20"}) {
    Run rerank("hata:rerank=16:rerank-keys=cache" + window, kShape, kCells, 4);
    Run exact("exact-prob" + window, kShape, kCells, 4);
    Run codes("hata" + window, kShape, kCells, 4);
    for (Run* r : {&rerank, &exact, &codes}) step(*r, "77");
    for (int row = 0; row < kRows; ++row) {
      for (int head = 0; head < 2; ++head) {
        EXPECT_EQ(rerank.cells(row, head), exact.cells(row, head));
        EXPECT_NE(codes.cells(row, head), exact.cells(row, head));
      }
    }
    const int64_t keys = std::ssize(rerank.valid(0)) + std::ssize(rerank.valid(1));
    EXPECT_EQ(rerank.decoder.counters().choose_bytes - codes.decoder.counters().choose_bytes,
              keys * 2 * 64 * 2);
  }
}

// The candidates are those of twice the budget by codes; of them, those of the largest sums of
// probabilities by 4-bit keys.
TEST_F(MethodsTest, RerankTakesTheLargestProbabilitiesOfQ4Keys) {
  Run rerank("hata:rerank=2:sink=0:recent=0", kShape, kCells, 14);
  Run twice("hata:sink=0:recent=0", kShape, kCells, 14);
  step(rerank, "60");
  step(twice, "120");
  const Step s = rerank.problem.step();
  for (int row = 0; row < kRows; ++row) {
    for (int head = 0; head < 2; ++head) {
      std::map<int32_t, double> sums;
      for (int g = 0; g < 4; ++g) {
        std::map<int32_t, double> weights;
        double total = 0.0;
        for (const int32_t cell : twice.cells(row, head)) {
          std::vector<uint8_t> key(40);
          reference::q4_encode(64, s.keys.row(cell, head), DType::f16, 0, 1, key.data());
          const float* q = s.rows[static_cast<size_t>(row)].query(head * 4 + g);
          const float logit = reference::q4_logit(q, 64, 0.125f, key.data());
          total += weights[cell] = std::exp(static_cast<double>(logit));
        }
        for (const auto& [cell, weight] : weights) sums[cell] += weight / total;
      }
      EXPECT_EQ(rerank.cells(row, head), best(sums, 60));
    }
  }
  // Twice the budget for two heads and two rows, 40 bytes a key.
  EXPECT_EQ(rerank.decoder.counters().choose_bytes - twice.decoder.counters().choose_bytes,
            4 * 120 * 40);
}

TEST_F(MethodsTest, QuestsBoundIsNeverBelowAKeysLogit) {
  Run r("quest:last=off", kShape, kCells, 21);
  step(r, "64");
  const auto& store = static_cast<const PageStore&>(*r.cache.store);
  const Step s = r.problem.step();
  for (int head = 0; head < 2; ++head) {
    std::map<int32_t, double> bounds;
    for (int32_t page = 0; page < (kCells + 15) / 16; ++page) {
      const uint16_t* most = store.pages(head, page);
      double group_bound = 0.0;
      for (int g = 0; g < 4; ++g) {
        const float* q = s.rows[0].q + (head * 4 + g) * 64;
        double bound = 0.0;
        for (int i = 0; i < 64; ++i) {
          const double a = static_cast<double>(q[i] * f16_to_f32(most[i]));
          const double b = static_cast<double>(q[i] * f16_to_f32(most[64 + i]));
          bound += std::max(a, b);
        }
        for (int32_t c = page * 16; c < std::min<int32_t>(kCells, page * 16 + 16); ++c) {
          ASSERT_GE(bound + 1e-4, q_dot_k(s, 0, head * 4 + g, c));
        }
        group_bound += bound;
      }
      bounds[page] = group_bound;
    }
    // Whole pages of the largest bounds. Row 0 has no holes; the last page has 8 keys.
    std::vector<int32_t> want;
    for (const int32_t page : best(bounds, 4)) {
      for (int32_t c = page * 16; c < std::min<int32_t>(kCells, page * 16 + 16); ++c) {
        want.push_back(c);
      }
    }
    EXPECT_EQ(r.cells(0, head), want);
  }
}

TEST_F(MethodsTest, QuestKeepsThePageOfTheNewestKey) {
  Run r("quest", kShape, kCells, 22);
  r.cache.index.written(std::vector<int64_t>{333});
  step(r, "48");
  for (int32_t c = 320; c < 336; ++c) {
    const auto cells = r.cells(0, 0);
    EXPECT_TRUE(std::binary_search(cells.begin(), cells.end(), c)) << c;
  }
}

TEST_F(MethodsTest, EigenvectorsDiagonalise) {
  constexpr int n = 20;
  std::mt19937 rng(1);
  std::normal_distribution<double> normal;
  std::vector<double> a(n * n), m(n * n, 0.0);
  for (double& x : a) x = normal(rng);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      for (int k = 0; k < n; ++k) m[i * n + j] += a[i * n + k] * a[j * n + k];
    }
  }
  const auto v = eigenvectors(m, n);
  double before = 1e300;
  for (int c = 0; c < n; ++c) {
    for (int c2 = 0; c2 < n; ++c2) {
      double product = 0.0, form = 0.0;
      for (int i = 0; i < n; ++i) {
        product += v[i * n + c] * v[i * n + c2];
        for (int j = 0; j < n; ++j) form += v[i * n + c] * m[i * n + j] * v[j * n + c2];
      }
      EXPECT_NEAR(product, c == c2 ? 1.0 : 0.0, 1e-9);
      if (c != c2) {
        EXPECT_NEAR(form, 0.0, 1e-8);
      } else {
        EXPECT_LE(form, before);
        before = form;
      }
    }
  }
}

// All channels: the same order as that of exact logits, but for keys at the edge, whose reduced
// keys are rounded to f16.
TEST_F(MethodsTest, LokiWithAllChannelsIsExact) {
  Run loki("loki:channels=64", kShape, kCells, 31);
  Run exact("exact-logit", kShape, kCells, 31);
  step(loki, "100");
  step(exact, "100");
  for (int row = 0; row < kRows; ++row) {
    for (int head = 0; head < 2; ++head) {
      const auto a = loki.cells(row, head);
      const auto b = exact.cells(row, head);
      std::vector<int32_t> differ;
      std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(),
                                    std::back_inserter(differ));
      EXPECT_LE(differ.size(), 2u);
    }
  }
}

// Keys that lie in eight dimensions: eight channels are all it takes.
TEST_F(MethodsTest, LokiFindsTheDirectionsOfTheKeys) {
  Run loki("loki:channels=8", kShape, kCells, 32);
  Run exact("exact-logit", kShape, kCells, 32);
  Run random("random", kShape, kCells, 32);
  int same = 0, by_codes = 0;
  for (Run* r : {&loki, &exact, &random}) {
    r->problem.flatten_keys(8);
    step(*r, "100");
  }
  const auto b = exact.cells(0, 0);
  for (const int32_t cell : loki.cells(0, 0)) same += std::binary_search(b.begin(), b.end(), cell);
  for (const int32_t c : random.cells(0, 0)) by_codes += std::binary_search(b.begin(), b.end(), c);
  EXPECT_GE(same, 97);
  EXPECT_LT(by_codes, 97) << "or the test shows nothing";
}

TEST_F(MethodsTest, SparqWithAllChannelsIsExact) {
  Run sparq("sparq:channels=64:mean=off:recent=0", kShape, 5000, 41);
  Run exact("exact-prob", kShape, 5000, 41);
  step(sparq, "100");
  step(exact, "100");
  for (int row = 0; row < kRows; ++row) {
    for (int head = 0; head < 2; ++head) EXPECT_EQ(sparq.cells(row, head), exact.cells(row, head));
  }
}

// Computed anew: the channels, the estimated softmax, its part in the chosen keys, the mean value.
TEST_F(MethodsTest, SparqBlendsInTheMeanValue) {
  constexpr int kChannels = 16;
  for (const int64_t n_cells : {int64_t{700}, int64_t{9000}}) {  // the latter has a super-block
    Run with("sparq:channels=16:recent=0", kShape, n_cells, 42);
    Run without("sparq:channels=16:mean=off:recent=0", kShape, n_cells, 42);
    step(with, "50");
    step(without, "50");
    const Step s = with.problem.step();
    for (int row = 0; row < kRows; ++row) {
      const auto valid = with.valid(row);
      for (int head = 0; head < 2; ++head) {
        EXPECT_EQ(with.cells(row, head), without.cells(row, head));
        std::map<int32_t, double> sizes;
        for (int32_t i = 0; i < 64; ++i) {
          for (int g = 0; g < 4; ++g) {
            sizes[i] += std::abs(static_cast<double>(s.rows[row].q[(head * 4 + g) * 64 + i]));
          }
        }
        const auto channels = best(sizes, kChannels);
        for (int g = 0; g < 4; ++g) {
          const float* q = s.rows[row].q + (head * 4 + g) * 64;
          double all = 0.0, part = 0.0, total = 0.0, chosen = 0.0;
          for (int i = 0; i < 64; ++i) all += std::abs(static_cast<double>(q[i]));
          for (const int32_t i : channels) part += std::abs(static_cast<double>(q[i]));
          const auto cells = with.cells(row, head);
          for (const int32_t cell : valid) {
            double logit = 0.0;
            for (const int32_t i : channels) {
              logit += static_cast<double>(q[i]) * static_cast<double>(reference::element(
                                                       s.keys.row(cell, head), DType::f16, i));
            }
            const double weight = std::exp(logit / std::sqrt(64.0 * part / all));
            total += weight;
            if (std::binary_search(cells.begin(), cells.end(), cell)) chosen += weight;
          }
          const double share = chosen / total;
          for (int i = 0; i < 64; ++i) {
            double mean = 0.0;
            for (const int32_t cell : valid) {
              mean +=
                  static_cast<double>(reference::element(s.values.row(cell, head), DType::f16, i));
            }
            mean /= static_cast<double>(valid.size());
            const size_t at = (static_cast<size_t>(row) * 8 + head * 4 + g) * 64 + i;
            const double plain = static_cast<double>(without.problem.out()[at]);
            EXPECT_NEAR(with.problem.out()[at], share * plain + (1.0 - share) * mean, 2e-5);
          }
        }
      }
    }
  }
}

// More hashes, nearer to dense: with enough of them every key is sampled with certainty.
TEST_F(MethodsTest, MagicpigConvergesToDense) {
  const auto dense = dense_result(51);
  double before = 1e300;
  for (const int l : {2, 8, 32, 128}) {
    double error = 0.0;
    for (int seed = 1; seed <= 4; ++seed) {
      Run r("magicpig:k=4:sink=0:recent=1:l=" + std::to_string(l) + ":seed=" + std::to_string(seed),
            kShape, kCells, 51);
      step(r, "800");  // row 1 has about 800 valid keys: it is nearly dense in any case
      error += difference(r.problem.out(), dense) / 4;
    }
    EXPECT_LT(error, before) << l << " tables";
    before = error;
  }
  Run all("magicpig:k=1:l=256", kShape, kCells, 51);
  step(all, "999");  // one key less than all
  EXPECT_EQ(all.decoder.counters().sparse_rows, 1);
  EXPECT_LT(difference(all.problem.out(), dense), 0.02);
}

// Each sample is off, but the mean over many seeds approaches dense attention: the correction takes
// the bias towards near keys away.
TEST_F(MethodsTest, MagicpigsCorrectionIsRight) {
  const auto dense = dense_result(52);
  std::vector<double> mean(dense.size(), 0.0);
  constexpr int kSeeds = 30;
  double single = 0.0;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    Run r("magicpig:k=6:l=60:seed=" + std::to_string(seed), kShape, kCells, 52);
    step(r, "999", 1);
    single += difference(r.problem.out(), dense) / kSeeds;
    for (size_t i = 0; i < mean.size(); ++i) {
      mean[i] += static_cast<double>(r.problem.out()[i]) / kSeeds;
    }
  }
  double error = 0.0;
  for (size_t i = 0; i < mean.size(); ++i) {
    const double d = mean[i] - static_cast<double>(dense[i]);
    error += d * d;
  }
  error = std::sqrt(error / static_cast<double>(mean.size()));
  EXPECT_GT(single, 0.01) << "or the test shows nothing";
  EXPECT_LT(error, single / 3);
}

TEST_F(MethodsTest, WindowKeysAreChosen) {
  for (const char* spec : {"hata", "exact-logit", "exact-prob", "quest", "loki", "sparq",
                           "magicpig:k=4:l=20", "random"}) {
    Run r(std::string(spec) + ":sink=2:recent=5", kShape, kCells, 61);
    step(r, "40");
    for (int head = 0; head < 2; ++head) {
      const auto cells = r.cells(0, head);
      for (const int32_t c : {0, 1, 995, 996, 997, 998, 999}) {
        EXPECT_TRUE(std::binary_search(cells.begin(), cells.end(), c)) << spec << " " << c;
      }
    }
  }
}

TEST_F(MethodsTest, SecondStreamOfACache) {
  for (const char* spec : kSpecs) {
    Problem problem(kShape, 1024, 1, 71);
    const auto selector = make_selector(spec, {});
    LayerCache cache(*selector, 0, kShape, 1024);
    cache.index.written(0, 1024);
    Step s = problem.step();
    s.keys.data = s.keys.row(512, 0);
    s.values.data = s.values.row(512, 0);
    s.first_cell = 512;
    s.n_kv = 500;
    Decoder decoder(selector);
    decoder.step(s, &cache, rule("50"), Worker{});
    const auto cells = decoder.selection().cells(0, 0);
    ASSERT_GT(cells.size(), 0u) << spec;
    EXPECT_LT(cells.back(), 500) << spec;
    if (cache.store != nullptr) {
      EXPECT_TRUE(cache.store->matches(problem.step().keys, 512 + 70)) << spec;
    }
  }
}

TEST_F(MethodsTest, BytesToChoose) {
  const std::map<std::string, double> per_key = {
      {"exact-logit", 128},
      {"exact-prob", 128},
      {"hata", 16.5},
      {"hata:rerank=4", 16.5 + 2 * 4 * 64 * 40 / 1024.0},  // for each of two rows
      {"random", 16},
      {"quest", 16},
      {"quest:page=32", 8},
      {"loki:channels=8", 16},
      {"streaming", 0},
      {"loki", 64},
      {"sparq:mean=off", 64},
      {"sparq:channels=8:mean=off", 16},
  };
  for (const auto& [spec, bytes] : per_key) {
    Run r(spec, kShape, 1024, 81);
    step(r, "64");
    EXPECT_EQ(static_cast<double>(r.decoder.counters().choose_bytes), bytes * 1024 * 2) << spec;
    int64_t attended = 0;
    for (int row = 0; row < kRows; ++row) {
      for (int head = 0; head < 2; ++head) attended += std::ssize(r.cells(row, head));
    }
    EXPECT_EQ(r.decoder.counters().attend_bytes, attended * 64 * 4) << spec;
    EXPECT_EQ(r.decoder.counters().keys_attended, attended / 2) << spec;
  }
}

}  // namespace
}  // namespace hata
