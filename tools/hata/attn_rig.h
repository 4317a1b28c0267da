// One attention step on data of realistic size, for `hata bench attn`: caches with random keys and
// values, and the rivals that attend to them.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "hata/decode.h"

namespace hata::cli {

/// The shape that --heads ("32/8": query heads/KV heads) and --head-dim give.
HeadShape parse_heads(const std::string& heads, int head_dim);

/// The value below which this part of the values lies.
double percentile(std::vector<double> values, double part);

/// Which rows look at which cells.
struct AttnCase {
  HeadShape shape;
  int64_t n_kv = 0;   ///< cells of one cache
  int rows = 1;       ///< of one sequence: each sees one cell more than the one before
  int sequences = 1;  ///< more than one: a row each
  bool unified =
      true;  ///< sequences share one cache, a part each; else a cache each, of n_kv cells
  bool huge_pages = true;  ///< keys and values lie in huge pages, if the kernel has some

  int caches() const { return unified ? 1 : sequences; }
  int rows_per_cache() const { return !unified ? 1 : sequences > 1 ? sequences : rows; }
  size_t cache_elements() const {
    return static_cast<size_t>(n_kv) * shape.n_kv_heads * shape.head_dim;
  }
  size_t cache_bytes() const { return 2 * sizeof(uint16_t) * cache_elements(); }
  size_t row_elements() const { return static_cast<size_t>(shape.n_q_heads) * shape.head_dim; }
};

/// Memory aligned as ggml wants it.
template <class T>
class AlignedArray {
 public:
  explicit AlignedArray(size_t n)
      : data_(static_cast<T*>(std::aligned_alloc(kAlignment, round_up(n * sizeof(T))))), size_(n) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  T* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t round_up(size_t n) {
    return (n + kAlignment - 1) / kAlignment * kAlignment;
  }
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_;
};

/// The keys, values, queries and masks of one cache.
class AttnCache {
 public:
  AttnCache(const AttnCase& attn_case, uint64_t seed, Team& team);

  Step step();  ///< the rows of one step; results go to out()
  float* out() { return out_.data(); }
  void* keys() { return keys_.data(); }
  void* values() { return values_.data(); }
  void* mask() { return mask_.data(); }
  void* queries() { return queries_.data(); }
  const AttnCase& attn_case() const { return case_; }

 private:
  CacheView view(const AlignedArray<uint16_t>& cells) const;

  AttnCase case_;
  AlignedArray<uint16_t> keys_, values_;  ///< f16 [cell][kv_head][head_dim], as in llama.cpp
  AlignedArray<uint16_t> mask_;           ///< f16 [row][n_kv]
  AlignedArray<float> queries_;           ///< [q_head][row][head_dim]
  AlignedArray<float> out_;               ///< [row][q_head][head_dim]
  std::vector<Row> rows_;
};

/// A way to do one step over the caches of set `s`.
class AttnRival {
 public:
  virtual ~AttnRival() = default;
  virtual void step(size_t set) = 0;
  /// Times and bytes of the steps since the last call.
  virtual StageCounters take_counters() = 0;
};

using AttnSet = std::vector<AttnCache>;  ///< as many as the case has caches

/// ggml's flash attention on its CPU backend.
std::unique_ptr<AttnRival> ggml_rival(std::vector<AttnSet>& sets, int threads);
/// One of our selectors (dense: every key).
std::unique_ptr<AttnRival> selector_rival(std::vector<AttnSet>& sets, const std::string& method,
                                          const HataOptions& options, const Budget& budget,
                                          Team& team);
/// Our dense attention for many rows.
std::unique_ptr<AttnRival> prefill_rival(std::vector<AttnSet>& sets, Team& team);

}  // namespace hata::cli
