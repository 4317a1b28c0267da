#include "ggml/caches.h"

#include <algorithm>

#include "ggml/device_inputs.h"

namespace hata::host {

Cache::Cache(const LayerMethod& method, const Attention& a, Range range, uint64_t made_in)
    : keys(range),
      row_bytes(a.cache->nb[1]),
      head_bytes(a.node->src[1]->nb[2]),
      buffer(a.cache->buffer),
      type(a.type),
      layer(a.layer),
      shape(a.shape),
      generation(made_in),
      data(*method.selector, a.layer, a.shape,
           (range.end - range.begin) / static_cast<int64_t>(a.cache->nb[1])),
      dense(method.dense) {}

bool Cache::holds_keys_of(const Attention& a, const Range& range) const {
  return keys.begin == range.begin && keys.end == range.end && row_bytes == a.cache->nb[1] &&
         head_bytes == a.node->src[1]->nb[2] && buffer == a.cache->buffer && type == a.type &&
         layer == a.layer && shape.n_kv_heads == a.shape.n_kv_heads &&
         shape.head_dim == a.shape.head_dim;
}

void Cache::watch(bool verify) {
  if (!verify || data.store == nullptr) {
    hashes.reset();
  } else if (hashes == nullptr) {
    hashes = std::make_unique<KeyHashes>(n_cells());
    data.index.changed(0, n_cells());
  }
}

CacheView Cache::view() const { return {keys.begin, DType::f16, row_bytes, head_bytes}; }

std::shared_ptr<Cache> Caches::get(const std::function<LayerMethod()>& method, uint64_t generation,
                                   const Attention& a, size_t bytes) {
  const Range range = Range::of(a.cache->data, bytes);
  const std::lock_guard lock(mutex_);
  const auto at = first_in(range);
  if (at == caches_.end() || !(*at)->holds_keys_of(a, range)) {
    auto cache = std::make_shared<Cache>(method(), a, range, generation);
    forget_in(range);
    caches_.insert(first_in(range), cache);
    update_hull();
    peak_bytes_ = std::max(peak_bytes_.load(), sum_bytes());
    return cache;
  }
  Cache& cache = **at;
  if (cache.generation != generation) {
    const LayerMethod now = method();
    cache.data.use(*now.selector, cache.layer, cache.shape);
    cache.dense = now.dense;
    cache.hashes.reset();
    cache.generation = generation;
  }
  return *at;
}

// The first cache that does not end before the range.
std::vector<std::shared_ptr<Cache>>::iterator Caches::first_in(const Range& range) {
  return std::upper_bound(
      caches_.begin(), caches_.end(), range.begin,
      [](const std::byte* begin, const auto& cache) { return begin < cache->keys.end; });
}

template <class Fn>
void Caches::for_each_in(const Range& range, Fn&& fn) {
  for (auto at = first_in(range); at != caches_.end() && (*at)->keys.begin < range.end; ++at) {
    Cache& cache = **at;
    const std::byte* begin = std::max(range.begin, cache.keys.begin);
    const std::byte* end = std::min(range.end, cache.keys.end);
    fn(cache, cache.cell_of(begin), cache.cell_of(end - 1) + 1);
  }
}

void Caches::written(const Range& range) {
  if (range.begin == range.end) return;
  const std::lock_guard lock(mutex_);
  for_each_in(range, [](Cache& cache, int64_t begin, int64_t end) {
    cache.data.index.written(begin, end);
  });
}

void Caches::all_changed() {
  const std::lock_guard lock(mutex_);
  for (const auto& cache : caches_) cache->data.index.changed(0, cache->n_cells());
}

void Caches::forget(const Range& range) {
  const std::lock_guard lock(mutex_);
  forget_in(range);
}

void Caches::forget_in(const Range& range) {
  std::erase_if(caches_, [&](const auto& cache) { return cache->keys.overlaps(range); });
  update_hull();
}

void Caches::graph_writes(const Real& real, const Ops& ops, ggml_cgraph* graph, uint64_t number) {
  if (empty()) return;
  ggml_tensor** nodes = real.ggml_graph_nodes(graph);
  const int n_nodes = real.ggml_graph_n_nodes(graph);
  const std::lock_guard lock(mutex_);
  for (int i = 0; i < n_nodes; ++i) {
    const ggml_tensor* node = nodes[i];
    if (ops.is_empty(node->op)) continue;
    const Range range = Range::of(node->data, real.ggml_nbytes(node));
    if (range.overlaps(hull_)) node_writes(real, ops, node, range, i, number);
  }
}

void Caches::node_writes(const Real& real, const Ops& ops, const ggml_tensor* node,
                         const Range& range, int i, uint64_t graph) {
  for_each_in(range, [&](Cache& cache, int64_t begin, int64_t end) {
    if (cache.graph != graph) cache.rows_unknown = false;
    cache.graph = graph;
    cache.last_write = i;
    if (node->op == ops.set_rows) {
      mark_rows(real, cache, ops, node);
    } else if (node->op == ops.rope || node->op == ops.cpy) {
      cache.data.index.changed(begin, end);  // a context shift
    } else {
      cache.data.index.written(begin, end);
    }
  });
}

// SET_ROWS writes the rows that its index tensor names.
void Caches::mark_rows(const Real& real, Cache& cache, const Ops& ops, const ggml_tensor* node) {
  const ggml_tensor* rows = node->src[1];
  const bool known = rows->op == ops.none && node->nb[1] == cache.row_bytes && node->ne[2] == 1 &&
                     node->ne[3] == 1 && rows->ne[1] == 1 && rows->ne[2] == 1 &&
                     read_rows(real, rows);
  if (!known) {
    cache.rows_unknown = true;
    return;
  }
  const int64_t first = (static_cast<const std::byte*>(node->data) - cache.keys.begin) /
                        static_cast<int64_t>(cache.row_bytes);
  cells_.clear();
  for (const int64_t row : rows_) {
    const int64_t cell = first + row;
    if (cell >= 0 && cell < cache.n_cells()) cells_.push_back(cell);
  }
  cache.data.index.written(cells_);
}

bool Caches::read_rows(const Real& real, const ggml_tensor* rows) {
  const ggml_backend_buffer_t buffer = root_of(rows)->buffer;
  if (buffer != nullptr && !real.ggml_backend_buffer_is_host(buffer)) {
    return inputs_ != nullptr && inputs_->numbers(real, rows, rows_);
  }
  rows_.clear();
  for (int64_t i = 0; i < rows->ne[0]; ++i) {
    const auto* at = static_cast<const std::byte*>(rows->data) + i * rows->nb[0];
    rows_.push_back(rows->type == GGML_TYPE_I64 ? *reinterpret_cast<const int64_t*>(at)
                                                : *reinterpret_cast<const int32_t*>(at));
  }
  return true;
}

void Caches::end_of_graph(uint64_t number) {
  const std::lock_guard lock(mutex_);
  for (const auto& cache : caches_) {
    if (cache->graph != number || !cache->rows_unknown) continue;
    cache->data.index.written(0, cache->n_cells());
    cache->rows_unknown = false;
  }
}

size_t Caches::code_bytes() const {
  const std::lock_guard lock(mutex_);
  return sum_bytes();
}

size_t Caches::sum_bytes() const {
  size_t bytes = 0;
  for (const auto& cache : caches_) {
    bytes += cache->data.index.bytes();
    if (cache->data.store != nullptr) bytes += cache->data.store->bytes();
  }
  return bytes;
}

size_t Caches::size() const {
  const std::lock_guard lock(mutex_);
  return caches_.size();
}

void Caches::update_hull() {
  hull_ = caches_.empty() ? Range{} : Range{caches_.front()->keys.begin, caches_.back()->keys.end};
  empty_.store(caches_.empty(), std::memory_order_relaxed);
}

}  // namespace hata::host
