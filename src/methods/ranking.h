// The methods that give every key a float score and choose the best: what they share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "hata/selector.h"
#include "methods/window.h"

namespace hata {

class Ranking : public Selector {
 public:
  std::string_view name() const override { return name_; }
  std::unique_ptr<KeyStore> make_store(int, const HeadShape&, int64_t) const override {
    return nullptr;
  }
  std::unique_ptr<Scratch> make_scratch() const final;
  void select(const Step& step, std::span<const RowPlan> plans, LayerCache& cache, Scratch& scratch,
              Selection& out, StageCounters& counters, const Worker& worker) const override;

 protected:
  /// How scores become an order.
  enum class Order {
    score,    ///< one score a key and group
    softmax,  ///< a logit a key and query head; their softmaxes are summed over the group
  };
  Ranking(std::string name, const Window& window, Order order)
      : name_(std::move(name)), window_(window), order_(order) {}

  /// The queries of one row and KV head, with what prepare() made of them.
  struct Query {
    const Step& step;
    const LayerCache& cache;
    const RowPlan& plan;
    size_t row;
    int head;
    float* made;
    int32_t* channels;  ///< [kMaxHeadDim] for those that choose among channels

    const float* of(int g) const { return step.rows[row].query(head * step.shape.group() + g); }
  };

  /// Writes the sum of the queries, [head_dim], to query.made.
  static void sum_queries(const Query& query);

  /// Floats that prepare() makes of a row's queries of one KV head.
  virtual int64_t made_floats(const HeadShape& shape) const = 0;
  virtual void prepare(const Query& query) const = 0;

  /// Scores of the view's cells first .. first + n - 1 (of this KV head; first a multiple of 64).
  /// Order::softmax: query head g's logits start at out + g * stride.
  virtual void score(const Query& query, int64_t first, int64_t n, float* out,
                     int64_t stride) const = 0;

  /// Bytes that score() reads per key of one KV head.
  virtual int64_t key_bytes(const Step& step) const = 0;

  /// Order::softmax: whether finish() is called, with the part of the softmax that the chosen keys
  /// hold, per query head. It returns the bytes it read.
  virtual bool finishes() const { return false; }
  virtual int64_t finish(const Query&, const float* /*shares*/, Selection&) const { return 0; }

 private:
  struct State;
  void score_chunk(const Step& step, std::span<const RowPlan> plans, const LayerCache& cache,
                   State& s, int head, int64_t chunk) const;
  void search_part(const Step& step, std::span<const RowPlan> plans, const LayerCache& cache,
                   State& s, int head, int64_t part) const;
  template <class Fn>
  void score_tile(const Step& step, std::span<const RowPlan> plans, const LayerCache& cache,
                  State& s, int head, int64_t first, Fn&& fn) const;
  void collect(const Query& query, State& s, Selection& out) const;

  std::string name_;
  Window window_;
  Order order_;
};

}  // namespace hata
