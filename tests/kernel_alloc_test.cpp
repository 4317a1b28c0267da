// A decode step's stages allocate nothing once their memory has grown.

#include "count_allocations.h"
#include "hata/attend.h"
#include "hata/encode.h"
#include "hata/score.h"
#include "hata/select.h"
#include "hata/team.h"
#include "kernel_test.h"
#include "methods/prefill.h"

namespace hata {
namespace {

using test::AlignedVector;
using test::Random;

constexpr int kHeads = 4, kDim = 128, kBits = 128;
constexpr int64_t kCells = 8192, kBudget = 512;

struct State {
  Random random{1};
  Projection projection = random_projection(1, 0, 1, kDim, kBits);
  test::Rows keys{kCells, kDim, DType::f16, kDim * 2, 0, random};
  std::vector<float> q = random.normals(kHeads * kDim);
  AlignedVector<uint64_t> codes = AlignedVector<uint64_t>(kCells * 2);
  std::vector<uint64_t> query_codes = std::vector<uint64_t>(kHeads * 2);
  std::vector<uint8_t> lengths = std::vector<uint8_t>(kCells);
  std::vector<uint64_t> valid = random.valid(kCells, 1.0);
  std::vector<int16_t> scores = std::vector<int16_t>(kCells);
  TopK halves[2];
  std::vector<float> max = std::vector<float>(kHeads), sum = max;
  std::vector<float> acc = std::vector<float>(kHeads * kDim), out = acc;

  void half(int64_t begin) {
    TopK& top = halves[begin == 0 ? 0 : 1];
    top.reset(kBudget, max_score(kHeads, kBits));
    score(query_codes.data(), kHeads, kBits, codes.data() + begin * 2, nullptr, kCells / 2,
          scores.data() + begin);
    top.push(begin, scores.data() + begin, valid.data() + begin / 64, kCells / 2);
  }

  void step(Team& team) {
    encode(projection.head(0), kDim, kBits, keys.data(), DType::f16, kDim * 2, kCells,
           codes.data());
    encode(projection.head(0), kDim, kBits, q.data(), DType::f32, kDim * 4, kHeads,
           query_codes.data());
    key_lengths(kDim, keys.data(), DType::f16, kDim * 2, kCells, 0.7f, lengths.data());
    team.run([this](const Worker& worker) {
      worker.share(2, [this](int64_t part) { half(part * kCells / 2); });
    });
    halves[0].append(halves[1]);
    halves[0].prune();
    AttendArgs args{};
    args.heads = kHeads;
    args.head_dim = kDim;
    args.q = q.data();
    args.q_stride = kDim;
    args.keys = args.values = {keys.data(), DType::f16, kDim * 2, 0};
    args.cells = halves[0].cells().data();
    args.count = static_cast<int64_t>(halves[0].cells().size());
    const Partial partial{max.data(), sum.data(), acc.data()};
    attend_begin(partial, kHeads, kDim);
    attend(args, partial);
    attend_finish(partial, kHeads, kDim, nullptr, out.data(), kDim);
  }
};

TEST(Allocations, NoneInTheSteadyState) {
  State state;
  Team team(2);
  state.step(team);
  const int64_t before = test::g_allocations.load();
  EXPECT_GT(before, 0);  // the counter counts
  for (int i = 0; i < 3; ++i) state.step(team);
  EXPECT_EQ(test::g_allocations.load(), before);
  EXPECT_EQ(state.halves[0].cells().size(), static_cast<size_t>(kBudget));
}

TEST(Allocations, NoneInAPrefillsSteadyState) {
  constexpr int kRows = 40;
  Random random(2);
  const test::Rows cells(256, kDim, DType::f16, kDim * 2, 0, random);
  const std::vector<float> q = random.normals(kRows * kHeads * kDim);
  std::vector<float> out(q.size());
  std::vector<Row> rows;
  for (size_t r = 0; r < kRows; ++r) {
    rows.push_back({.q = &q[r * kHeads * kDim],
                    .q_head_stride = kDim,
                    .out = &out[r * kHeads * kDim],
                    .out_head_stride = kDim,
                    .mask = nullptr});
  }
  Step step;
  step.shape = {kHeads, 1, kDim};
  step.keys = step.values = {cells.data(), DType::f16, kDim * 2, 0};
  step.n_kv = 256;
  step.rows = rows;
  Team team(2);
  Prefill prefill;
  const std::function<void(const Worker&)> run = [&](const Worker& worker) {
    prefill.step(step, worker);
  };
  team.run(run);
  const int64_t before = test::g_allocations.load();
  for (int i = 0; i < 3; ++i) {
    step.n_kv -= 30;
    team.run(run);
  }
  EXPECT_EQ(test::g_allocations.load(), before);
}

}  // namespace
}  // namespace hata
