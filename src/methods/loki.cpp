// Loki: keys in the basis of their principal components, ranked by the first channels.

#include <algorithm>

#include "index/channel_store.h"
#include "methods/methods.h"
#include "methods/ranking.h"

namespace hata {
namespace {

class Loki final : public Ranking {
 public:
  explicit Loki(const Spec& spec)
      : Ranking(spec.text(), spec.window(), Order::score),
        channels_(static_cast<int>(spec.integer("channels", 1, kMaxHeadDim))) {}

  std::unique_ptr<KeyStore> make_store(int, const HeadShape& shape,
                                       int64_t n_cells) const override {
    return std::make_unique<ChannelStore>(shape, n_cells, channels_of(shape), true);
  }

 protected:
  int64_t made_floats(const HeadShape& shape) const override {
    return shape.head_dim + channels_of(shape);
  }

  // The group's summed query, and behind it what the basis makes of it.
  void prepare(const Query& query) const override {
    sum_queries(query);
    store(query).project(query.head, query.made, query.made + query.step.shape.head_dim);
  }

  void score(const Query& query, int64_t first, int64_t n, float* out,
             int64_t stride) const override {
    store(query).dots(query.head, query.step.first_cell + first, (n + 63) / 64 * 64,
                      {.channels = nullptr,
                       .n_channels = channels_of(query.step.shape),
                       .q = query.made + query.step.shape.head_dim,
                       .heads = 1,
                       .out = out,
                       .out_stride = stride});
  }

  int64_t key_bytes(const Step& step) const override {
    return channels_of(step.shape) * static_cast<int64_t>(sizeof(uint16_t));
  }

 private:
  int channels_of(const HeadShape& shape) const { return std::min(channels_, shape.head_dim); }
  static const ChannelStore& store(const Query& query) {
    return static_cast<const ChannelStore&>(*query.cache.store);
  }

  int channels_;
};

}  // namespace

std::shared_ptr<const Selector> make_loki(const Spec& spec) { return std::make_shared<Loki>(spec); }

}  // namespace hata
