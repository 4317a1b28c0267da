#include <algorithm>

#include "methods/methods.h"

namespace hata {
namespace {

constexpr int kSinks = 4;  // StreamingLLM, section 3.2

class Streaming final : public Selector {
 public:
  std::string_view name() const override { return "streaming"; }
  std::unique_ptr<KeyStore> make_store(int, const HeadShape&, int64_t) const override {
    return nullptr;
  }
  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<Scratch>(); }

  void select(const Step& step, std::span<const RowPlan> plans, const CellIndex& index,
              const KeyStore*, Scratch&, Selection& out, StageCounters&,
              const Worker& worker) const override {
    worker.share(static_cast<int64_t>(plans.size()), [&](int64_t i) {
      const RowPlan& plan = plans[static_cast<size_t>(i)];
      if (plan.budget == 0) return;
      const int row = static_cast<int>(i);
      const int budget = static_cast<int>(plan.budget);
      int32_t* cells = out.data(row, 0);
      const int sinks = index.oldest(step.first_cell, plan.valid, std::min(kSinks, budget), cells);
      const int recent = index.newest(step.first_cell, plan.valid, budget - sinks, cells + sinks);
      const int n = sinks + recent;  // no cell twice: the budget is below the valid cells
      std::sort(cells, cells + n);
      out.set_count(row, 0, n);
      for (int head = 1; head < step.shape.n_kv_heads; ++head) {
        std::copy(cells, cells + n, out.data(row, head));
        out.set_count(row, head, n);
      }
    });
  }
};

}  // namespace

std::shared_ptr<const Selector> make_streaming() { return std::make_shared<Streaming>(); }

}  // namespace hata
