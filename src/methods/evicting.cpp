// H2O and SnapKV: they keep the keys that queries have looked at most, and evict the rest. Here a
// key that they would have evicted is never chosen again, as what it is chosen by does not grow.

#include <algorithm>
#include <limits>

#include "methods/methods.h"
#include "methods/ranking.h"
#include "methods/totals.h"

namespace hata {
namespace {

class Evicting : public Ranking {
 public:
  bool needs_totals() const override { return true; }

 protected:
  Evicting(const std::string& name, const Window& window) : Ranking(name, window, Order::score) {}
  int64_t made_floats(const HeadShape&) const override { return 0; }
  void prepare(const Query&) const override {}
};

// H2O: by the probabilities of all queries so far, those of decoding among them.
class H2o final : public Evicting {
 public:
  explicit H2o(const Spec& spec) : Evicting(spec.text(), spec.window()) {}

  void select(const Step& step, std::span<const RowPlan> plans, LayerCache& cache, Scratch& scratch,
              Selection& out, StageCounters& counters, const Worker& worker) const override {
    if (worker.ith == 0) cache.totals->follow(cache.index);
    worker.barrier();
    Evicting::select(step, plans, cache, scratch, out, counters, worker);
    worker.share(step.shape.n_kv_heads, [&](int64_t head) {
      for (size_t row = 0; row < plans.size(); ++row) {
        if (plans[row].budget == 0) continue;
        const int h = static_cast<int>(head);
        cache.totals->observe_chosen(step, row, h, out.cells(static_cast<int>(row), h));
      }
    });
    if (worker.ith != 0) return;
    for (const RowPlan& plan : plans) {
      if (plan.budget > 0) cache.totals->note_row(step, cache.index, plan);
    }
  }

 protected:
  void score(const Query& query, int64_t first, int64_t n, float* out, int64_t) const override {
    const LayerCache& cache = query.cache;
    for (int64_t i = 0; i < n; ++i) {
      out[i] = cache.totals->all(cache.index, query.head, query.step.first_cell + first + i);
    }
  }
  int64_t key_bytes(const Step&) const override { return 2 * sizeof(float); }
};

// SnapKV: by what the last rows of the prompt looked at, smoothed over neighbours. Tokens that came
// after the prompt are kept as long as the budget holds them.
class Snapkv final : public Evicting {
 public:
  explicit Snapkv(const Spec& spec)
      : Evicting(spec.text(), spec.window({.at_most_half = true})),
        reach_(spec.integer("pool", 1, 63) / 2) {}

 protected:
  void score(const Query& query, int64_t first, int64_t n, float* out, int64_t) const override {
    const LayerCache& cache = query.cache;
    const auto& valid = query.plan.valid;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t cell = first + i;
      if (!cache.totals->saw(cache.index, query.step.first_cell + cell)) {
        out[i] = std::numeric_limits<float>::max();
        continue;
      }
      out[i] = 0.0f;
      const int64_t end = std::min(query.step.n_kv, cell + reach_ + 1);
      for (int64_t c = std::max<int64_t>(0, cell - reach_); c < end; ++c) {
        if ((valid[static_cast<size_t>(c / 64)] >> (c % 64) & 1) == 0) continue;
        out[i] = std::max(out[i],
                          cache.totals->last(cache.index, query.head, query.step.first_cell + c));
      }
    }
  }
  int64_t key_bytes(const Step&) const override { return sizeof(float); }

 private:
  int64_t reach_;
};

}  // namespace

std::shared_ptr<const Selector> make_h2o(const Spec& spec) { return std::make_shared<H2o>(spec); }
std::shared_ptr<const Selector> make_snapkv(const Spec& spec) {
  return std::make_shared<Snapkv>(spec);
}

}  // namespace hata
