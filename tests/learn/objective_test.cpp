// Gradients against finite differences, and training on planted data.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>

#include "hata/encode.h"
#include "learn/train_head.h"
#include "learn/vector_math.h"

namespace hata::learn {
namespace {

Row random_row(int head_dim, int group, int n_keys, int n_queries, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Row row{head_dim, group, {}, {}, {}};
  row.keys.resize(static_cast<size_t>(n_keys * head_dim));
  row.queries.resize(static_cast<size_t>(n_queries * group * head_dim));
  for (float& x : row.keys) x = normal(random);
  for (float& x : row.queries) x = normal(random);
  for (int i = 0; i < n_queries; ++i) row.positions.push_back(n_keys - 1 - 3 * i);
  return row;
}

Parameters random_parameters(int head_dim, int rbit, int group, uint64_t seed) {
  const Projection w = random_projection(seed, 0, 1, head_dim, rbit);
  return {head_dim, rbit, w.weights, std::vector<float>(static_cast<size_t>(group) + 1, -0.5f)};
}

TEST(VectorMath, ExponentialsAndTheirSum) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<float> any(-200, 50);
  for (const int64_t n : {0, 1, 15, 16, 17, 1000}) {
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = any(random);
    const std::vector<float> before = x;
    const double sum = exp_all(x.data(), n, 50.0f);
    double expected = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      // What is below e^-87 of the largest is that much.
      const double e = std::exp(std::max(-87.0, static_cast<double>(before[i] - 50.0f)));
      EXPECT_NEAR(static_cast<double>(x[i]), e, 2e-6 * e);
      expected += e;
    }
    EXPECT_NEAR(sum, expected, 2e-6 * expected);
  }
}

TEST(VectorMath, HyperbolicTangents) {
  std::vector<float> x(1000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) * 0.2f - 100.0f;
  std::vector<float> h = x;
  tanh_all(h.data(), std::ssize(h), 0.3f);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(h[i], std::tanh(0.3f * x[i]), 2e-6f);
}

// The slope along a random direction must be what the gradient says.
void check_gradient(Objective& objective, const std::vector<Row>& rows, const Parameters& at,
                    const Parameters& gradient, double progress, double tolerance) {
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 4; ++trial) {
    Parameters up = at, down = at;
    double slope = 0;
    const float step = 5e-4f;
    const auto move = [&](std::vector<float>& u, std::vector<float>& d,
                          const std::vector<float>& g) {
      for (size_t i = 0; i < u.size(); ++i) {
        const float direction = normal(random);
        u[i] += step * direction;
        d[i] -= step * direction;
        slope += static_cast<double>(direction * g[i]);
      }
    };
    move(up.w, down.w, gradient.w);
    move(up.log_scale, down.log_scale, gradient.log_scale);
    move(up.w_query, down.w_query, gradient.w_query);
    const double measured = (objective.evaluate(rows, up, progress, nullptr) -
                             objective.evaluate(rows, down, progress, nullptr)) /
                            (2 * static_cast<double>(step));
    EXPECT_NEAR(measured, slope, tolerance * (std::abs(slope) + 0.01));
  }
}

constexpr KlOptions kFar = {.by_group = 0, .floor = 1};  // kl-far

// By head, by group, weighted by the attention to far keys, and all of it with key lengths and a
// projection of the queries.
TEST(Kl, GradientIsTheSlope) {
  Row with_lengths = random_row(64, 2, 150, 3, 1);
  for (int i = 0; i < 150; ++i) with_lengths.lengths.push_back(static_cast<uint8_t>(1 + i % 15));
  const Row plain = random_row(64, 2, 150, 3, 1);
  Parameters one = random_parameters(64, 64, 2, 3), two = one;
  two.w_query = random_parameters(64, 64, 2, 4).w;
  const struct {
    KlOptions options;
    const Row& row;
    const Parameters& at;
  } cases[] = {{kFar, plain, one},
               {{.by_head = 0, .by_group = 1}, plain, one},
               {{.by_head = 1, .by_group = 0, .floor = 0.02}, plain, one},
               {{}, with_lengths, one},
               {{}, with_lengths, two}};
  for (const auto& [options, row, at] : cases) {
    KlObjective objective(options, 8.0);
    Parameters gradient;
    objective.evaluate({&row, 1}, at, 0.5, &gradient);
    objective.hold_rms();
    check_gradient(objective, {row}, at, gradient, 0.5, 0.02);
  }
}

// What decoding ranks by: with one head, by group is by head, but for the constant |q|.
TEST(Kl, AGroupOfOneIsAHead) {
  Row row = random_row(64, 1, 150, 1, 1);
  const Parameters at = random_parameters(64, 64, 1, 3);
  KlObjective group({.by_head = 0, .by_group = 1}, 8.0), head(kFar, 8.0);
  EXPECT_NEAR(group.evaluate({&row, 1}, at, 0, nullptr), head.evaluate({&row, 1}, at, 0, nullptr),
              1e-4);
}

// A head that attends to near keys alone has no say in what its group should find far away.
TEST(Kl, HeadsCountAsMuchAsTheyAttendToFarKeys) {
  Row row = random_row(64, 2, 150, 1, 1);
  const auto loss_with = [&](const KlOptions& options, float near) {
    Row with = row;
    for (int i = 0; i < 64; ++i) {  // the second head's query is near the last key
      with.queries[static_cast<size_t>(64 + i)] +=
          near * with.keys[static_cast<size_t>(149 * 64 + i)];
    }
    const Row alone{
        64, 1, with.keys, {with.queries.begin(), with.queries.begin() + 64}, with.positions};
    KlObjective both(options, 8.0), one(options, 8.0);
    const Parameters p = random_parameters(64, 64, 2, 3);
    return std::pair(both.evaluate({&with, 1}, p, 0, nullptr),
                     one.evaluate({&alone, 1}, random_parameters(64, 64, 1, 3), 0, nullptr));
  };
  const KlOptions weighted{.by_head = 1, .by_group = 0, .floor = 0};
  const auto [both, alone] = loss_with(weighted, 4.0f);
  EXPECT_NEAR(both, alone / 2, 1e-4);
  const auto [far, unused] = loss_with(kFar, 4.0f);
  EXPECT_GT(far, both + 0.01);
}

TEST(Kl, IsZeroWhereTheEstimateIsRight) {
  Row row = random_row(64, 1, 100, 2, 1);
  std::fill(row.queries.begin(), row.queries.end(), 0.0f);  // attention is flat, and so is z
  KlObjective objective({}, 8.0);
  const double loss = objective.evaluate({&row, 1}, random_parameters(64, 64, 1, 3), 0, nullptr);
  EXPECT_NEAR(loss, 0, 1e-5);
}

TEST(Kl, NearKeysDoNotCount) {
  Row row = random_row(64, 2, 150, 1, 1);
  KlObjective objective(kFar, 8.0);
  const Parameters at = random_parameters(64, 64, 2, 3);
  const double before = objective.evaluate({&row, 1}, at, 0, nullptr);
  for (int i = 0; i < 64; ++i) row.keys[static_cast<size_t>(140 * 64 + i)] *= 9;
  EXPECT_DOUBLE_EQ(objective.evaluate({&row, 1}, at, 0, nullptr), before);
  for (int i = 0; i < 64; ++i) row.keys[static_cast<size_t>(100 * 64 + i)] *= 9;
  EXPECT_NE(objective.evaluate({&row, 1}, at, 0, nullptr), before);
}

// What is remembered of a row is what would be found anew; other rows have other numbers.
TEST(Kl, ARowThatComesAgain) {
  Row one = random_row(64, 2, 150, 3, 1), two = random_row(64, 2, 130, 3, 2);
  const Parameters at = random_parameters(64, 64, 2, 3);
  const auto loss = [&](KlObjective& objective, const Row& row) {
    return objective.evaluate({&row, 1}, at, 0.5, nullptr);
  };
  KlObjective forgets({}, 8.0), remembers({}, 8.0);
  const double first = loss(forgets, one), second = loss(forgets, two);
  EXPECT_NE(first, second);
  one.number = 0;
  two.number = 1;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(loss(remembers, one), first);
    EXPECT_EQ(loss(remembers, two), second);
  }
}

TEST(Paper, GradientIsTheSlope) {
  const std::vector<Row> rows = {random_row(64, 2, 120, 2, 1), random_row(64, 2, 90, 2, 2)};
  PaperObjective objective({});
  Parameters at = random_parameters(64, 64, 2, 3);
  for (float& w : at.w) w *= 3;
  Parameters gradient;
  objective.evaluate(rows, at, 0, &gradient);
  check_gradient(objective, rows, at, gradient, 0, 0.02);
}

TEST(Paper, LabelsAreThoseOfThePublicCode) {
  PaperObjective objective({});
  std::vector<float> logits(100), labels(100);
  std::iota(logits.begin(), logits.end(), 0.0f);
  objective.label(logits.data(), 100, labels.data());
  EXPECT_FLOAT_EQ(labels[99], 20.0f);
  EXPECT_FLOAT_EQ(labels[90], 1.0f);
  EXPECT_FLOAT_EQ(labels[98], 20.0f - 19.0f / 9);
  EXPECT_FLOAT_EQ(labels[89], -1.0f);
  EXPECT_FLOAT_EQ(labels[0], -1.0f);
}

// --- planted data: q.k depends on the first kSignal elements alone, the others are loud ----------

constexpr int kDim = 128;
constexpr int kSignal = 48;
constexpr float kLoud = 20, kQuiet = 10;  // of a key's elements
constexpr double kLength = 190;           // of a key

Row planted_row(uint64_t seed, float query) {
  Row row = random_row(kDim, 2, 1000, 6, seed);
  for (size_t i = 0; i < row.keys.size(); ++i) {
    row.keys[i] *= i % kDim < kSignal ? kQuiet : kLoud;
  }
  for (size_t i = 0; i < row.queries.size(); ++i) {
    row.queries[i] *= i % kDim < kSignal ? query : 0.0f;
  }
  return row;
}

// Of the 20 keys with the largest q.k, the share among the 20 nearest codes.
double recall(const Row& row, const std::vector<float>& w, int rbit) {
  const size_t words = static_cast<size_t>(rbit) / 64;
  const auto codes = [&](const std::vector<float>& x) {
    const size_t n = x.size() / kDim;
    std::vector<uint64_t> out(n * words);
    encode(w.data(), kDim, rbit, x.data(), DType::f32, kDim * sizeof(float),
           static_cast<int64_t>(n), out.data());
    return out;
  };
  const auto key_codes = codes(row.keys), query_codes = codes(row.queries);
  const int n_keys = static_cast<int>(row.n_keys());
  double hits = 0, asked = 0;
  for (size_t v = 0; v < row.queries.size() / kDim; ++v) {
    std::vector<float> logits(static_cast<size_t>(n_keys)), near(static_cast<size_t>(n_keys));
    for (int i = 0; i < n_keys; ++i) {
      for (int e = 0; e < kDim; ++e) {
        logits[static_cast<size_t>(i)] += row.queries[v * kDim + static_cast<size_t>(e)] *
                                          row.keys[static_cast<size_t>(i * kDim + e)];
      }
      for (size_t word = 0; word < words; ++word) {
        near[static_cast<size_t>(i)] -= static_cast<float>(std::popcount(
            key_codes[static_cast<size_t>(i) * words + word] ^ query_codes[v * words + word]));
      }
    }
    const auto best = [&](const std::vector<float>& score) {
      std::vector<int> order(static_cast<size_t>(n_keys));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return score[static_cast<size_t>(a)] > score[static_cast<size_t>(b)];
      });
      order.resize(20);
      return order;
    };
    const auto truth = best(logits), found = best(near);
    for (const int cell : truth) hits += std::count(found.begin(), found.end(), cell) > 0;
    asked += 20;
  }
  return hits / asked;
}

// The share of a projection that lies in the signal: 0.375 for a random one.
double signal_share(const std::vector<float>& w, int rbit) {
  double signal = 0, all = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double square = static_cast<double>(w[i] * w[i]);
    all += square;
    if (i < static_cast<size_t>(kSignal * rbit)) signal += square;
  }
  return signal / all;
}

struct Plant {
  const char* objective;
  float query;  // the paper's h needs loud queries, a softmax soft ones
  int rbit;     // the paper's W is orthonormal: with 128 bits it could not leave anything out
};

void PrintTo(const Plant& plant, std::ostream* out) { *out << plant.objective; }

class Planted : public ::testing::TestWithParam<Plant> {};

TEST_P(Planted, TrainingFindsTheProjection) {
  const Plant& plant = GetParam();
  TrainOptions options;
  options.objective = plant.objective;
  options.rbit = plant.rbit;
  options.steps = 300;
  options.rows_a_step = options.objective == "paper" ? 8 : 2;
  options.paper.epsilon = 0.1;  // of a loss whose other parts do not know the data
  options.seed = 3;
  options = resolved(options);
  std::vector<Row> rows;
  for (uint64_t i = 0; i < 32; ++i) rows.push_back(planted_row(100 + i, plant.query));
  const auto load = [&](int64_t i) { return rows[static_cast<size_t>(i)]; };
  const Training training = train_head(options, 32, load, 0, 0, kLength);

  const Row held_out = planted_row(7, plant.query);
  const Projection random = random_projection(3, 0, 1, kDim, plant.rbit);
  const double before = recall(held_out, random.weights, plant.rbit);
  const double after = recall(held_out, training.parameters.w, plant.rbit);
  EXPECT_GT(after, before + 0.08) << "recall " << before << " to " << after;
  EXPECT_NEAR(signal_share(random.weights, plant.rbit), 0.375, 0.03);
  EXPECT_GT(signal_share(training.parameters.w, plant.rbit), 0.6);
  EXPECT_LT(training.losses.back(), training.losses.front());
}

INSTANTIATE_TEST_SUITE_P(Objectives, Planted,
                         ::testing::Values(Plant{"kl-group", 0.3f, 128}, Plant{"kl-far", 0.3f, 128},
                                           Plant{"kl", 0.3f, 128}, Plant{"paper", 10.0f, 64}));

TEST(Train, QueriesCanLearnAProjectionOfTheirOwn) {
  TrainOptions options;
  options.rbit = 64;
  options.separate_queries = true;
  options = resolved(options);
  options.steps = 5;
  const auto load = [](int64_t i) { return planted_row(static_cast<uint64_t>(100 + i), 0.3f); };
  const Parameters p = train_head(options, 4, load, 1, 0, kLength).parameters;
  ASSERT_EQ(p.w_query.size(), p.w.size());
  EXPECT_NE(p.w_query, p.w);
}

TEST(Train, ThePaperHasOneProjection) {
  TrainOptions options;
  options.objective = "paper";
  options.separate_queries = true;
  EXPECT_THROW(resolved(options), Error);
  options.separate_queries = false;
  options.centre = true;
  EXPECT_THROW(resolved(options), Error);
}

TEST(Train, SameSeedSameResult) {
  TrainOptions options;
  options.rbit = 64;
  options = resolved(options);
  options.steps = 5;
  const auto load = [](int64_t i) { return planted_row(static_cast<uint64_t>(100 + i), 0.3f); };
  const Training a = train_head(options, 4, load, 1, 0, kLength);
  const Training b = train_head(options, 4, load, 1, 0, kLength);
  EXPECT_EQ(a.parameters.w, b.parameters.w);
  EXPECT_NE(a.parameters.w, train_head(options, 4, load, 2, 0, kLength).parameters.w);
}

TEST(Train, SaysWhereNumbersAreBroken) {
  const auto load = [](int64_t i) {
    Row row = planted_row(static_cast<uint64_t>(i), 0.3f);
    row.keys[100 * kDim] = std::nanf("");
    return row;
  };
  try {
    train_head(resolved({}), 2, load, 3, 1, kLength);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("layer 3, KV head 1"), std::string::npos);
  }
}

TEST(Train, UnknownObjective) {
  TrainOptions options;
  options.objective = "magic";
  EXPECT_THROW(resolved(options), Error);
}

}  // namespace
}  // namespace hata::learn
