// The recorder against sums written out.
#include "eval/inspect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "core/f16.h"
#include "core/random.h"

namespace hata::eval {
namespace {

constexpr HeadShape kShape{.n_q_heads = 4, .n_kv_heads = 2, .head_dim = 64};
constexpr int64_t kCells = 256, kValid = 200;

// One row over 200 valid cells of 256, written in their order.
class Scene {
 public:
  Scene() : index_(kCells) {
    Random random(1);
    keys_.resize(kCells * 2 * 64);
    for (float& x : keys_) x = random.quick_normal();
    q_.resize(4 * 64);
    for (float& x : q_) x = 0.6f * random.quick_normal();
    mask_.assign(kCells, kF16NegInf);
    std::fill_n(mask_.begin(), kValid, 0);
    valid_ = {~0ull, ~0ull, ~0ull, (1ull << (kValid - 192)) - 1};
    index_.written(0, kCells);
    row_ = {.q = q_.data(), .q_head_stride = 64, .mask = mask_.data()};
    step_.shape = kShape;
    step_.params.scale = 0.125f;
    step_.keys = {reinterpret_cast<const std::byte*>(keys_.data()), DType::f32, 2 * 64 * 4, 64 * 4};
    step_.n_kv = kCells;
    step_.rows = {&row_, 1};
  }

  void choose(const std::vector<int32_t>& cells) {
    selection_.reset(1, kShape, static_cast<int64_t>(cells.size()));
    for (int head = 0; head < 2; ++head) {
      std::copy(cells.begin(), cells.end(), selection_.data(0, head));
      selection_.set_count(0, head, static_cast<int64_t>(cells.size()));
    }
    plan_ = {.valid = valid_, .n_valid = kValid, .budget = static_cast<int64_t>(cells.size())};
  }

  // Query head g of each group does not attend to the i-th chosen key.
  void leave_out(int g, int64_t i) {
    selection_.use_bias();
    for (int head = 0; head < 2; ++head) {
      float* bias = selection_.bias(0, head);
      std::fill_n(bias, 2 * selection_.capacity(), 0.0f);
      bias[g * selection_.capacity() + i] = -std::numeric_limits<float>::infinity();
    }
  }

  void show(Recorder& recorder) const {
    recorder.see({.layer = 3,
                  .step = step_,
                  .plans = {&plan_, 1},
                  .selection = selection_,
                  .index = index_});
  }

  // Exact attention of a KV head, mean over its two query heads, or that of one of them.
  std::vector<double> mass(int head, int only = -1) const {
    std::vector<double> mean(kValid, 0.0);
    for (int g = 0; g < 2; ++g) {
      if (only >= 0 && g != only) continue;
      std::vector<double> p(kValid);
      for (int64_t c = 0; c < kValid; ++c) {
        double dot = 0;
        for (int i = 0; i < 64; ++i) {
          dot += static_cast<double>(q_[(head * 2 + g) * 64 + i]) * keys_[(c * 2 + head) * 64 + i];
        }
        p[c] = std::exp(dot * 0.125);
      }
      const double sum = std::accumulate(p.begin(), p.end(), 0.0);
      for (int64_t c = 0; c < kValid; ++c) mean[c] += p[c] / sum / (only < 0 ? 2 : 1);
    }
    return mean;
  }

 private:
  std::vector<float> keys_, q_;
  std::vector<uint16_t> mask_;
  std::vector<uint64_t> valid_;
  CellIndex index_;
  Row row_;
  Step step_;
  RowPlan plan_;
  Selection selection_;
};

double sum_of(const std::vector<double>& mass, int first, int last) {
  return std::accumulate(mass.begin() + first, mass.begin() + last, 0.0);
}

TEST(Recorder, MassIsExactAttentionsByRegion) {
  Scene scene;
  scene.choose({0, 50, 60, 199});
  Recorder recorder;
  scene.show(recorder);
  for (int head = 0; head < 2; ++head) {
    const HeadCounts& counts = recorder.counts().at(3)[static_cast<size_t>(head)];
    const auto mass = scene.mass(head);
    EXPECT_EQ(counts.rows, 1);
    EXPECT_NEAR(counts.mass[kSinks], sum_of(mass, 0, 4), 1e-6);
    EXPECT_NEAR(counts.mass[kRecent], sum_of(mass, 168, 200), 1e-6);
    EXPECT_NEAR(counts.mass[kFar], sum_of(mass, 4, 168), 1e-6);
    EXPECT_NEAR(counts.kept[kSinks], mass[0], 1e-6);
    EXPECT_NEAR(counts.kept[kRecent], mass[199], 1e-6);
    EXPECT_NEAR(counts.kept[kFar], mass[50] + mass[60], 1e-6);
    EXPECT_NEAR(counts.kept_mass(), mass[0] + mass[50] + mass[60] + mass[199], 1e-6);
  }
}

TEST(Recorder, AKeyIsKeptByTheHeadsThatAttendToIt) {
  Scene scene;
  scene.choose({50, 60});
  scene.leave_out(1, 0);
  Recorder recorder;
  scene.show(recorder);
  for (int head = 0; head < 2; ++head) {
    const double kept = recorder.counts().at(3)[static_cast<size_t>(head)].kept[kFar];
    EXPECT_NEAR(kept, scene.mass(head)[60] + scene.mass(head, 0)[50] / 2, 1e-6);
  }
}

TEST(Recorder, RecallCountsTheBestKeys) {
  Scene scene;
  const auto mass = scene.mass(0);
  std::vector<int32_t> order(kValid);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return mass[a] > mass[b]; });
  std::vector<int32_t> best(order.begin(), order.begin() + 20);
  std::sort(best.begin(), best.end());
  scene.choose(best);
  Recorder all;
  scene.show(all);
  EXPECT_EQ(all.counts().at(3)[0].recall(), 1);
  EXPECT_LT(all.counts().at(3)[1].recall(), 0.5) << "those of another head";

  std::vector<int32_t> half(order.begin() + 10, order.begin() + 30);
  std::sort(half.begin(), half.end());
  scene.choose(half);
  Recorder some;
  scene.show(some);
  scene.show(some);
  EXPECT_EQ(some.counts().at(3)[0].recall(), 0.5);
  EXPECT_EQ(some.counts().at(3)[0].rows, 2);
}

TEST(Recorder, NotesCellsWhereAskedTo) {
  Scene scene;
  scene.choose({1, 2, 3});
  Recorder recorder;
  scene.show(recorder);
  EXPECT_TRUE(recorder.cells().empty());
  recorder.note_cells(true);
  scene.show(recorder);
  recorder.note_cells(false);
  scene.choose({4, 5});
  scene.show(recorder);
  const std::vector<std::vector<int32_t>> both(2, {1, 2, 3});
  EXPECT_EQ(recorder.cells().at(3), both);
}

TEST(HeadCounts, NothingIsNotANumber) {
  EXPECT_TRUE(std::isnan(HeadCounts{}.recall()));
  EXPECT_TRUE(std::isnan(HeadCounts{}.far_recall()));
}

}  // namespace
}  // namespace hata::eval
