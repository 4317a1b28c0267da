#include <algorithm>

#include "methods/methods.h"

namespace hata {
namespace {

constexpr int64_t kMaxSinks = 1 << 20;

// StreamingLLM: the first tokens, and as many of the last as the budget allows.
class Streaming final : public Selector {
 public:
  explicit Streaming(const Spec& spec)
      : name_(spec.text()), sinks_(spec.integer("sink", 0, kMaxSinks)) {}

  std::string_view name() const override { return name_; }
  std::unique_ptr<KeyStore> make_store(int, const HeadShape&, int64_t) const override {
    return nullptr;
  }
  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<Forced>(); }

  void select(const Step& step, std::span<const RowPlan> plans, LayerCache& cache, Scratch& scratch,
              Selection& out, StageCounters&, const Worker& worker) const override {
    ForcedKeys& forced = static_cast<Forced&>(scratch).keys;
    if (worker.ith == 0) forced.reset(plans);
    worker.barrier();
    worker.share(static_cast<int64_t>(plans.size()), [&](int64_t i) {
      const auto row = static_cast<size_t>(i);
      const int64_t budget = plans[row].budget;
      if (budget == 0) return;
      const Window window{.sink = sinks_, .recent = {.tokens = budget - std::min(sinks_, budget)}};
      forced.choose(window, step, plans, cache.index, row);
      for (int head = 0; head < step.shape.n_kv_heads; ++head) forced.merge({}, out, row, head);
    });
  }

 private:
  struct Forced final : Scratch {
    ForcedKeys keys;
  };
  std::string name_;
  int64_t sinks_;
};

}  // namespace

std::shared_ptr<const Selector> make_streaming(const Spec& spec) {
  return std::make_shared<Streaming>(spec);
}

}  // namespace hata
