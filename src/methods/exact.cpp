// Exact top-k: reads every key. The ceilings that everything else is measured against.

#include <algorithm>

#include "hata/encode.h"
#include "methods/logits.h"
#include "methods/methods.h"
#include "methods/ranking.h"

namespace hata {
namespace {

// Keys whose dot products are taken for one query head before the next: they stay in the L1 cache.
constexpr int64_t kKeysAtOnce = 64;

class Exact : public Ranking {
 protected:
  using Ranking::Ranking;
  int64_t key_bytes(const Step& step) const override {
    return step.shape.head_dim * static_cast<int64_t>(dtype_size(step.keys.type));
  }
};

// By q.k summed over the query heads of a group: the product of the summed query with k.
class ExactLogit final : public Exact {
 public:
  explicit ExactLogit(const Spec& spec) : Exact(spec.text(), spec.window(), Order::score) {}

 protected:
  int64_t made_floats(const HeadShape& shape) const override { return shape.head_dim; }
  void prepare(const Query& query) const override { sum_queries(query); }
  void score(const Query& query, int64_t first, int64_t n, float* out, int64_t) const override {
    const Step& step = query.step;
    dots(query.made, step.shape.head_dim, step.keys.row(first, query.head), step.keys.type,
         step.keys.cell_stride, n, out);
  }
};

// By softmax(scale * q.k) summed over the query heads of a group. ALiBi's part is left out.
class ExactProb final : public Exact {
 public:
  explicit ExactProb(const Spec& spec) : Exact(spec.text(), spec.window(), Order::softmax) {}

 protected:
  int64_t made_floats(const HeadShape&) const override { return 0; }
  void prepare(const Query&) const override {}
  void score(const Query& query, int64_t first, int64_t n, float* out,
             int64_t stride) const override {
    const Step& step = query.step;
    for (int64_t at = 0; at < n; at += kKeysAtOnce) {
      for (int g = 0; g < step.shape.group(); ++g) {
        logits_of(step, query.of(g), query.head, first + at, std::min(kKeysAtOnce, n - at),
                  out + g * stride + at);
      }
    }
  }
};

}  // namespace

std::shared_ptr<const Selector> make_exact_logit(const Spec& spec) {
  return std::make_shared<ExactLogit>(spec);
}
std::shared_ptr<const Selector> make_exact_prob(const Spec& spec) {
  return std::make_shared<ExactProb>(spec);
}

}  // namespace hata
