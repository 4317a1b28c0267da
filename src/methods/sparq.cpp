// SparQ: logits estimated from the channels in which the queries are largest, and the mean value
// in the place of what is left out.

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "index/channel_store.h"
#include "index/value_sums.h"
#include "methods/methods.h"
#include "methods/ranking.h"

namespace hata {
namespace {

class SparqStore final : public ChannelStore {
 public:
  SparqStore(const HeadShape& shape, int64_t n_cells)
      : ChannelStore(shape, n_cells, shape.head_dim, false), values(shape, n_cells) {}

  size_t bytes() const override { return ChannelStore::bytes() + values.bytes(); }
  void update(const CacheView& keys, const CacheView& new_values, std::span<const int32_t> cells,
              const Worker& worker) override {
    ChannelStore::update(keys, new_values, cells, worker);
    values.update(new_values, cells, worker);
  }

  ValueSums values;
};

class Sparq final : public Ranking {
 public:
  explicit Sparq(const Spec& spec)
      : Ranking(spec.text(), spec.window(), Order::softmax),
        channels_(static_cast<int>(spec.integer("channels", 1, kMaxHeadDim))),
        mean_(spec.on("mean")) {}

  std::unique_ptr<KeyStore> make_store(int, const HeadShape& shape,
                                       int64_t n_cells) const override {
    return std::make_unique<SparqStore>(shape, n_cells);
  }

 protected:
  // The scaled queries [group][channels].
  int64_t made_floats(const HeadShape& shape) const override {
    return shape.group() * channels_of(shape);
  }

  void prepare(const Query& query) const override {
    const HeadShape& shape = query.step.shape;
    const int n = channels_of(shape);
    std::array<float, kMaxHeadDim> size{};
    for (int g = 0; g < shape.group(); ++g) {
      for (int i = 0; i < shape.head_dim; ++i) {
        size[static_cast<size_t>(i)] += std::abs(query.of(g)[i]);
      }
    }
    const int32_t* channels = query.channels;
    largest(size.data(), shape.head_dim, n, query.channels);
    for (int g = 0; g < shape.group(); ++g) {
      const float scale = query.step.params.scale * temperature(query.of(g), shape, channels, n);
      for (int c = 0; c < n; ++c) query.made[g * n + c] = query.of(g)[channels[c]] * scale;
    }
  }

  void score(const Query& query, int64_t first, int64_t n, float* out,
             int64_t stride) const override {
    store(query).dots(query.head, query.step.first_cell + first, (n + 63) / 64 * 64,
                      {.channels = query.channels,
                       .n_channels = channels_of(query.step.shape),
                       .q = query.made,
                       .heads = query.step.shape.group(),
                       .out = out,
                       .out_stride = stride});
  }

  int64_t key_bytes(const Step& step) const override {
    return channels_of(step.shape) * static_cast<int64_t>(sizeof(uint16_t));
  }

  bool finishes() const override { return mean_; }
  int64_t finish(const Query& query, const float* shares, Selection& out) const override {
    const int row = static_cast<int>(query.row);
    std::copy_n(shares, query.step.shape.group(), out.share(row, query.head));
    return store(query).values.mean(query.step.values, query.step.first_cell, query.plan.valid,
                                    query.plan.n_valid, query.head, out.mean(row, query.head));
  }

 private:
  int channels_of(const HeadShape& shape) const { return std::min(channels_, shape.head_dim); }
  static const SparqStore& store(const Query& query) {
    return static_cast<const SparqStore&>(*query.cache.store);
  }

  // The n largest of size[head_dim], in ascending order of channels.
  static void largest(const float* size, int head_dim, int n, int32_t* channels) {
    std::array<int32_t, kMaxHeadDim> order;
    std::iota(order.begin(), order.begin() + head_dim, 0);
    std::nth_element(
        order.begin(), order.begin() + n - 1, order.begin() + head_dim,
        [&](int32_t a, int32_t b) { return size[a] != size[b] ? size[a] > size[b] : a < b; });
    std::sort(order.begin(), order.begin() + n);
    std::copy_n(order.begin(), n, channels);
  }

  // What a logit of a few channels is multiplied by: the paper divides by the root of their part in
  // the query's L1 norm.
  static float temperature(const float* q, const HeadShape& shape, const int32_t* channels, int n) {
    double all = 0.0;
    double part = 0.0;
    for (int i = 0; i < shape.head_dim; ++i) all += std::abs(static_cast<double>(q[i]));
    for (int c = 0; c < n; ++c) part += std::abs(static_cast<double>(q[channels[c]]));
    return part > 0.0 ? static_cast<float>(std::sqrt(all / part)) : 0.0f;
  }

  int channels_;
  bool mean_;
};

}  // namespace

std::shared_ptr<const Selector> make_sparq(const Spec& spec) {
  return std::make_shared<Sparq>(spec);
}

}  // namespace hata
