// Exact top-k: reads every key, chooses by q.k summed over the query heads of the group. Slow; the
// ceiling that codes are measured against.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "hata/encode.h"
#include "methods/methods.h"
#include "methods/stopwatch.h"

namespace hata {
namespace {

struct ExactScratch final : Selector::Scratch {
  std::vector<float> logits;   // [KV head][n_kv]
  std::vector<int32_t> order;  // [KV head][n_kv]
};

// The sum over a group of q.k is the product of the summed query with k.
void sum_queries(const Step& step, const Row& row, int head, float* sum) {
  const int group = step.shape.group();
  for (int g = 0; g < group; ++g) {
    const float* q = row.q + static_cast<size_t>(head * group + g) * row.q_head_stride;
    for (int i = 0; i < step.shape.head_dim; ++i) sum[i] += q[i];
  }
}

class Exact final : public Selector {
 public:
  std::string_view name() const override { return "exact"; }
  std::unique_ptr<KeyStore> make_store(int, const HeadShape&, int64_t) const override {
    return nullptr;
  }
  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<ExactScratch>();
  }

  void select(const Step& step, std::span<const RowPlan> plans, const CellIndex&, const KeyStore*,
              Scratch& scratch, Selection& out, StageCounters& counters,
              const Worker& worker) const override {
    auto& s = static_cast<ExactScratch&>(scratch);
    const int n_heads = step.shape.n_kv_heads;
    Stopwatch watch;
    if (worker.ith == 0) {
      s.logits.resize(static_cast<size_t>(n_heads * step.n_kv));
      s.order.resize(s.logits.size());
    }
    worker.barrier();
    for (size_t row = 0; row < plans.size(); ++row) {
      if (plans[row].budget == 0) continue;
      worker.share(n_heads, [&](int64_t head) {
        choose(step, plans[row], step.rows[row], static_cast<int>(head), s,
               out.data(static_cast<int>(row), static_cast<int>(head)));
        out.set_count(static_cast<int>(row), static_cast<int>(head), plans[row].budget);
      });
      if (worker.ith == 0) {
        counters.choose_bytes += plans[row].n_valid * n_heads * step.shape.head_dim *
                                 static_cast<int64_t>(dtype_size(step.keys.type));
      }
    }
    if (worker.ith == 0) counters.score_ns += watch.lap();
  }

 private:
  static void choose(const Step& step, const RowPlan& plan, const Row& row, int head,
                     ExactScratch& s, int32_t* cells) {
    std::array<float, kMaxHeadDim> query{};
    sum_queries(step, row, head, query.data());
    float* logits = s.logits.data() + head * step.n_kv;
    int32_t* order = s.order.data() + head * step.n_kv;
    int64_t n = 0;
    for (size_t word = 0; word < plan.valid.size(); ++word) {
      if (plan.valid[word] == 0) continue;
      const auto first = static_cast<int64_t>(word) * 64;
      dots(query.data(), step.shape.head_dim, step.keys.row(first, head), step.keys.type,
           step.keys.cell_stride, std::min<int64_t>(64, step.n_kv - first), logits + first);
      for (uint64_t left = plan.valid[word]; left != 0; left &= left - 1) {
        const auto cell = static_cast<int32_t>(first + std::countr_zero(left));
        if (std::isnan(logits[cell])) logits[cell] = -std::numeric_limits<float>::infinity();
        order[n++] = cell;
      }
    }
    std::nth_element(order, order + plan.budget, order + n, [&](int32_t a, int32_t b) {
      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    });
    std::copy(order, order + plan.budget, cells);
    std::sort(cells, cells + plan.budget);
  }
};

}  // namespace

std::shared_ptr<const Selector> make_exact() { return std::make_shared<Exact>(); }

}  // namespace hata
