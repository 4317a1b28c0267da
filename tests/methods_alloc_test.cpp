// No method allocates in the steady state of a decode step.
#include <functional>

#include "count_allocations.h"
#include "methods/totals.h"
#include "problem.h"

namespace hata {
namespace {

TEST(Methods, AllocateNothingInTheSteadyState) {
  constexpr int64_t kCells = 6000;
  constexpr HeadShape kShape{8, 2, 64};
  std::vector<std::string> specs = selector_names();
  specs.insert(specs.end(),
               {"hata:score=squares", "hata:rerank=4", "hata:rerank=4:rerank-keys=cache"});
  for (const std::string& spec : specs) {
    test::Problem problem(kShape, kCells, 2, 1);
    const auto selector = make_selector(spec, {});
    LayerCache cache(*selector, 0, kShape, kCells);
    cache.index.written(0, kCells);
    Decoder decoder(selector);
    Team team(2);
    const Step step = problem.step();
    cache.totals = std::make_unique<AttentionTotals>(kShape, kCells);
    team.run([&](const Worker& w) { cache.totals->observe(step, cache.index, w); });
    const SparseRule rule{.budget = Budget::parse("300"), .min_ctx = 1};
    const std::function<void(const Worker&)> decode_step = [&](const Worker& worker) {
      decoder.step(step, &cache, rule, worker);
    };
    std::vector<int64_t> written = {0};
    const auto decode = [&](int64_t cell) {
      problem.new_key(written[0] = cell);
      cache.index.written(written);
      team.run(decode_step);
    };
    for (int64_t cell = 10; cell < 13; ++cell) decode(cell);
    const int64_t before = test::g_allocations.load();
    for (int64_t cell = 13; cell < 20; ++cell) decode(cell);
    EXPECT_EQ(test::g_allocations.load(), before) << spec;
    EXPECT_EQ(decoder.counters().sparse_rows, selector->sparse() ? 20 : 0) << spec;
  }
  EXPECT_GT(test::g_allocations.load(), 0);  // the counter counts
}

}  // namespace
}  // namespace hata
