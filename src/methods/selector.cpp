#include "hata/selector.h"

#include "methods/sizes.h"
#include "methods/totals.h"
#include "methods/window.h"

namespace hata {

void Selection::reset(int n_rows, const HeadShape& shape, int64_t capacity) {
  shape_ = shape;
  capacity_ = capacity;
  n_lists_ = static_cast<int64_t>(n_rows) * shape.n_kv_heads;
  has_bias_ = has_blend_ = false;
  counts_.assign(static_cast<size_t>(n_lists_), 0);
  grow(cells_, static_cast<size_t>(n_lists_ * capacity));
}

int32_t* Selection::data(int row, int head) { return cells_.data() + list(row, head) * capacity_; }

void Selection::set_count(int row, int head, int64_t n) {
  counts_[static_cast<size_t>(list(row, head))] = n;
}

std::span<const int32_t> Selection::cells(int row, int head) const {
  return {cells_.data() + list(row, head) * capacity_,
          static_cast<size_t>(counts_[static_cast<size_t>(list(row, head))])};
}

void Selection::use_bias() {
  has_bias_ = true;
  grow(bias_, static_cast<size_t>(n_lists_ * shape_.group() * capacity_));
}

float* Selection::bias(int row, int head) {
  return bias_.data() + list(row, head) * shape_.group() * capacity_;
}

void Selection::use_blend() {
  has_blend_ = true;
  grow(shares_, static_cast<size_t>(n_lists_ * shape_.group()));
  grow(means_, static_cast<size_t>(n_lists_ * shape_.head_dim));
}

float* Selection::share(int row, int head) {
  return shares_.data() + list(row, head) * shape_.group();
}

float* Selection::mean(int row, int head) {
  return means_.data() + list(row, head) * shape_.head_dim;
}

StageCounters& StageCounters::operator+=(const StageCounters& other) {
  encode_ns += other.encode_ns;
  score_ns += other.score_ns;
  select_ns += other.select_ns;
  rerank_ns += other.rerank_ns;
  attend_ns += other.attend_ns;
  choose_bytes += other.choose_bytes;
  attend_bytes += other.attend_bytes;
  dense_bytes += other.dense_bytes;
  keys_attended += other.keys_attended;
  keys_valid += other.keys_valid;
  sparse_rows += other.sparse_rows;
  dense_rows += other.dense_rows;
  unobserved_rows += other.unobserved_rows;
  return *this;
}

Window Selector::window(int /*layer*/) const { return {}; }

LayerCache::LayerCache(const Selector& selector, int layer, const HeadShape& shape, int64_t n_cells)
    : index(n_cells) {
  use(selector, layer, shape);
}
LayerCache::~LayerCache() = default;

void LayerCache::use(const Selector& selector, int layer, const HeadShape& shape) {
  why_dense = selector.why_dense(layer, shape);
  store = why_dense.empty() ? selector.make_store(layer, shape, index.n_cells()) : nullptr;
  kept_mass = selector.kept_mass(layer);
  index.changed(0, index.n_cells());
}

}  // namespace hata
