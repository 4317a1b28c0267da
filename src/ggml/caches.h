// The key caches that are known, by address, and the events that make their codes stale.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ggml/node.h"
#include "ggml/verify.h"
#include "hata/decode.h"

namespace hata::host {

class DeviceInputs;

/// Bytes [begin, end) of memory.
struct Range {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;

  static Range of(const void* data, size_t size) {
    const auto* begin = static_cast<const std::byte*>(data);
    return {begin, begin + size};
  }
  bool overlaps(const Range& other) const { return begin < other.end && other.begin < end; }
};

/// What a layer's keys are searched by.
struct LayerMethod {
  std::shared_ptr<const Selector> selector;
  bool dense = false;  ///< the options keep this layer dense
};

/// The keys of one layer. Codes belong to cells of memory, not to a tensor's pointer: a tensor
/// elsewhere, or of another form at the same place, is another cache.
struct Cache {
  Cache(const LayerMethod& method, const Attention& a, Range keys, uint64_t generation);

  bool holds_keys_of(const Attention& a, const Range& range) const;
  int64_t n_cells() const { return data.index.n_cells(); }
  int64_t cell_of(const std::byte* address) const {
    return (address - keys.begin) / static_cast<int64_t>(row_bytes);
  }
  CacheView view() const;  ///< of f16
  /// Keeps hashes of its keys, for the option verify, or no longer; what they are kept of from now
  /// on is encoded again.
  void watch(bool verify);

  Range keys;
  size_t row_bytes;
  size_t head_bytes;
  const ggml_backend_buffer* buffer;
  ggml_type type;  ///< f16 or q8_0
  int layer;
  HeadShape shape;
  uint64_t generation;  ///< of the selector that made data.store
  LayerCache data;
  bool dense = false;                 ///< the options keep this layer dense
  bool in_huge_pages = false;         ///< it was tried
  std::unique_ptr<KeyHashes> hashes;  ///< with the option verify

  // What the graph at hand does to it; one graph at a time works on a cache.
  uint64_t graph = 0;         ///< that wrote to it last
  int last_write = -1;        ///< its last writing node
  bool rows_unknown = false;  ///< a writing node whose rows are known only after the graph
};

/// All caches of the process. Events are marked at once, from any thread; codes are brought up to
/// date by the next sparse step.
class Caches {
 public:
  /// inputs: tells the cells that a device's graphs write.
  explicit Caches(const DeviceInputs* inputs = nullptr) : inputs_(inputs) {}

  /// Cheap, for the many calls that come before there is a cache.
  bool empty() const { return empty_.load(std::memory_order_relaxed); }

  /// The cache that the node reads, made where it is new, its store made anew where it stems from
  /// another generation of the options: `method` is asked for what it is made by.
  std::shared_ptr<Cache> get(const std::function<LayerMethod()>& method, uint64_t generation,
                             const Attention& a, size_t bytes);

  /// The host wrote these bytes outside a graph.
  void written(const Range& range);
  /// Any key may have changed.
  void all_changed();
  /// Memory that is given back.
  void forget(const Range& range);

  /// Marks what graph number `number` will write.
  void graph_writes(const Real& real, const Ops& ops, ggml_cgraph* graph, uint64_t number);
  /// The graph is done: rows that could not be known before are stale.
  void end_of_graph(uint64_t number);

  size_t size() const;
  /// Memory held beside the keys, now and at most so far.
  size_t code_bytes() const;
  size_t peak_code_bytes() const { return peak_bytes_.load(std::memory_order_relaxed); }

 private:
  std::vector<std::shared_ptr<Cache>>::iterator first_in(const Range& range);
  void forget_in(const Range& range);
  template <class Fn>
  void for_each_in(const Range& range, Fn&& fn);
  void node_writes(const Real& real, const Ops& ops, const ggml_tensor* node, const Range& range,
                   int i, uint64_t graph);
  void mark_rows(const Real& real, Cache& cache, const Ops& ops, const ggml_tensor* node);
  bool read_rows(const Real& real, const ggml_tensor* rows);
  void update_hull();
  size_t sum_bytes() const;

  const DeviceInputs* inputs_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Cache>> caches_;  ///< by address, disjoint
  std::vector<int64_t> rows_, cells_;
  Range hull_;  ///< from the first cache to the last
  std::atomic<bool> empty_{true};
  std::atomic<size_t> peak_bytes_{0};
};

}  // namespace hata::host
