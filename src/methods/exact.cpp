// Exact top-k: reads every key, chooses by q.k summed over the query heads of the group. Slow; the
// ceiling that codes are measured against.

#include <algorithm>
#include <bit>

#include "core/f16.h"
#include "methods/methods.h"
#include "methods/stopwatch.h"

namespace hata {
namespace {

struct ExactScratch final : Selector::Scratch {
  std::vector<float> logits;   // [KV head][n_kv]
  std::vector<int32_t> order;  // [KV head][n_kv]
};

// The sum over a group of q.k is the product of the summed query with k.
void sum_queries(const Step& step, const Row& row, int head, std::vector<float>& sum) {
  const int group = step.shape.group();
  sum.assign(static_cast<size_t>(step.shape.head_dim), 0.0f);
  for (int g = 0; g < group; ++g) {
    const float* q = row.q + static_cast<size_t>(head * group + g) * row.q_head_stride;
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += q[i];
  }
}

float dot(const std::vector<float>& q, const std::byte* key, DType type) {
  float sum = 0.0f;
  for (size_t i = 0; i < q.size(); ++i) {
    const float k = type == DType::f32 ? reinterpret_cast<const float*>(key)[i]
                                       : f16_to_f32(reinterpret_cast<const uint16_t*>(key)[i]);
    sum += q[i] * k;
  }
  return sum;
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
    std::vector<float> query;
    sum_queries(step, row, head, query);
    float* logits = s.logits.data() + head * step.n_kv;
    int32_t* order = s.order.data() + head * step.n_kv;
    int64_t n = 0;
    for (size_t word = 0; word < plan.valid.size(); ++word) {
      for (uint64_t left = plan.valid[word]; left != 0; left &= left - 1) {
        const auto cell = static_cast<int32_t>(word * 64 + std::countr_zero(left));
        logits[cell] = dot(query, step.keys.row(cell, head), step.keys.type);
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
