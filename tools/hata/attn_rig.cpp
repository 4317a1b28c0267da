#include "attn_rig.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/huge_pages.h"
#include "core/random.h"
#include "methods/prefill.h"
#include "random_cells.h"

namespace hata::cli {
namespace {

constexpr uint16_t kMasked = 0xfc00;  // f16 -inf

// Cells that row `row` may see: its sequence's part, or all but those of later rows.
std::pair<int64_t, int64_t> visible(const AttnCase& c, int row) {
  if (c.unified && c.sequences > 1) {
    return {c.n_kv * row / c.sequences, c.n_kv * (row + 1) / c.sequences};
  }
  return {0, c.n_kv - (c.rows_per_cache() - 1 - row)};
}

}  // namespace

HeadShape parse_heads(const std::string& heads, int head_dim) {
  HeadShape shape{.head_dim = head_dim};
  char rest = 0;
  if (std::sscanf(heads.c_str(), "%d/%d%c", &shape.n_q_heads, &shape.n_kv_heads, &rest) != 2) {
    throw CLI::ValidationError("--heads",
                               fmt::format("'{}': give query heads/KV heads, as in 32/8", heads));
  }
  check_shape(shape);
  return shape;
}

double percentile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  const double at = part * static_cast<double>(values.size() - 1);
  return values[static_cast<size_t>(std::lround(at))];
}

AttnCache::AttnCache(const AttnCase& c, uint64_t seed, Team& team)
    : case_(c),
      keys_(c.cache_elements()),
      values_(c.cache_elements()),
      mask_(static_cast<size_t>(c.rows_per_cache() * c.n_kv)),
      queries_(c.rows_per_cache() * c.row_elements()),
      out_(c.rows_per_cache() * c.row_elements()),
      rows_(static_cast<size_t>(c.rows_per_cache())) {
  if (c.huge_pages) {
    prefer_huge_pages(keys_.data(), keys_.size() * sizeof(uint16_t));
    prefer_huge_pages(values_.data(), values_.size() * sizeof(uint16_t));
  }
  fill_normal(keys_.data(), keys_.size(), 2 * seed, team);
  fill_normal(values_.data(), values_.size(), 2 * seed + 1, team);
  Random random(seed);
  for (size_t i = 0; i < queries_.size(); ++i) queries_.data()[i] = random.quick_normal();
  std::fill_n(mask_.data(), mask_.size(), kMasked);
  const auto head_dim = static_cast<size_t>(c.shape.head_dim);
  for (int r = 0; r < c.rows_per_cache(); ++r) {
    uint16_t* mask = mask_.data() + r * c.n_kv;
    const auto [begin, end] = visible(c, r);
    std::fill(mask + begin, mask + end, uint16_t{0});
    // As in llama.cpp: queries are a permuted view, results are not.
    rows_[static_cast<size_t>(r)] = {.q = queries_.data() + r * head_dim,
                                     .q_head_stride = rows_.size() * head_dim,
                                     .out = out_.data() + r * c.row_elements(),
                                     .out_head_stride = head_dim,
                                     .mask = mask};
  }
}

CacheView AttnCache::view(const AlignedArray<uint16_t>& cells) const {
  const size_t head = case_.shape.head_dim * sizeof(uint16_t);
  return {.data = reinterpret_cast<const std::byte*>(cells.data()),
          .type = DType::f16,
          .cell_stride = head * case_.shape.n_kv_heads,
          .head_stride = head};
}

Step AttnCache::step() {
  return {.shape = case_.shape,
          .params = {.scale = 1.0f / std::sqrt(static_cast<float>(case_.shape.head_dim))},
          .keys = view(keys_),
          .values = view(values_),
          .n_kv = case_.n_kv,
          .first_cell = 0,
          .rows = rows_};
}

namespace {

class GgmlRival final : public AttnRival {
 public:
  GgmlRival(std::vector<AttnSet>& sets, int threads)
      : backend_(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr)) {
    if (backend_ == nullptr) throw Error("ggml has no CPU backend here");
    ggml_backend_dev_t device = ggml_backend_get_device(backend_.get());
    auto* set_threads =
        reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads"));
    if (set_threads == nullptr) throw Error("ggml's CPU backend does not take a thread count");
    set_threads(backend_.get(), threads);
    for (AttnSet& set : sets) {
      std::vector<Graph> graphs;
      for (AttnCache& cache : set) graphs.push_back(build(cache));
      sets_.push_back(std::move(graphs));
    }
  }

  void step(size_t set) override {
    for (Graph& graph : sets_[set]) {
      if (ggml_backend_graph_compute(backend_.get(), graph.graph) != GGML_STATUS_SUCCESS) {
        throw Error("ggml's flash attention failed");
      }
    }
  }

  StageCounters take_counters() override { return {}; }

 private:
  struct Graph {
    std::unique_ptr<ggml_context, void (*)(ggml_context*)> context{nullptr, ggml_free};
    std::vector<std::unique_ptr<ggml_backend_buffer, void (*)(ggml_backend_buffer_t)>> buffers;
    ggml_cgraph* graph = nullptr;
  };

  static void place(Graph& graph, ggml_tensor* tensor, void* data) {
    auto* buffer = ggml_backend_cpu_buffer_from_ptr(data, ggml_nbytes(tensor));
    graph.buffers.emplace_back(buffer, ggml_backend_buffer_free);
    ggml_backend_tensor_alloc(buffer, tensor, data);
  }

  static Graph build(AttnCache& cache) {
    const AttnCase& c = cache.attn_case();
    const int64_t d = c.shape.head_dim;
    const int n_rows = c.rows_per_cache();
    Graph g;
    g.context.reset(ggml_init({.mem_size = 64 * ggml_tensor_overhead() + ggml_graph_overhead(),
                               .mem_buffer = nullptr,
                               .no_alloc = true}));
    ggml_context* ctx = g.context.get();
    const auto cached = [&](void* data) {
      ggml_tensor* all = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, d, c.shape.n_kv_heads, c.n_kv);
      place(g, all, data);
      return ggml_permute(ctx, all, 0, 2, 1, 3);
    };
    ggml_tensor* q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, d, n_rows, c.shape.n_q_heads);
    place(g, q, cache.queries());
    ggml_tensor* mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, c.n_kv, n_rows);
    place(g, mask, cache.mask());
    ggml_tensor* out = ggml_flash_attn_ext(ctx, q, cached(cache.keys()), cached(cache.values()),
                                           mask, cache.step().params.scale, 0.0f, 0.0f);
    place(g, out, cache.out());
    g.graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(g.graph, out);
    for (int i = 0; i < ggml_graph_n_nodes(g.graph); ++i) {
      ggml_tensor* node = ggml_graph_node(g.graph, i);
      if (node->view_src != nullptr) ggml_backend_view_init(node);
    }
    return g;
  }

  struct FreeBackend {
    void operator()(ggml_backend_t backend) const { ggml_backend_free(backend); }
  };
  std::unique_ptr<ggml_backend, FreeBackend> backend_;
  std::vector<std::vector<Graph>> sets_;
};

class SelectorRival final : public AttnRival {
 public:
  SelectorRival(std::vector<AttnSet>& sets, const std::string& method, const HataOptions& options,
                const Budget& budget, Team& team)
      : sets_(sets),
        decoder_(make_selector(method, options)),
        rule_{.budget = budget, .min_ctx = 0},
        team_(team) {
    if (decoder_.selector().needs_totals()) {
      throw Error("method '" + method +
                  "' chooses by what a prefill looked at; there is none here");
    }
    int layer = 0;
    for (const AttnSet& set : sets) {
      for (const AttnCache& cache : set) {
        const AttnCase& c = cache.attn_case();
        caches_.push_back(
            std::make_unique<LayerCache>(decoder_.selector(), layer++, c.shape, c.n_kv));
        caches_.back()->index.written(0, c.n_kv);
      }
    }
  }

  // All that a decode step has to do: the new keys are noted, encoded, and every row attends.
  void step(size_t set) override {
    const size_t n_caches = sets_[set].size();
    for (size_t i = 0; i < n_caches; ++i) {
      AttnCache& data = sets_[set][i];
      LayerCache& cache = *caches_[set * n_caches + i];
      note_new_keys(data.attn_case(), cache.index);
      const Step step = data.step();
      team_.run([&](const Worker& worker) { decoder_.step(step, &cache, rule_, worker); });
    }
  }

  StageCounters take_counters() override {
    const StageCounters counters = decoder_.counters();
    decoder_.reset_counters();
    return counters;
  }

 private:
  // The last cell that each row sees is its own token's.
  void note_new_keys(const AttnCase& c, CellIndex& index) {
    new_cells_.clear();
    for (int row = 0; row < c.rows_per_cache(); ++row) {
      new_cells_.push_back(visible(c, row).second - 1);
    }
    index.written(new_cells_);
  }

  std::vector<AttnSet>& sets_;
  Decoder decoder_;
  SparseRule rule_;
  Team& team_;
  std::vector<std::unique_ptr<LayerCache>> caches_;
  std::vector<int64_t> new_cells_;
};

class PrefillRival final : public AttnRival {
 public:
  PrefillRival(std::vector<AttnSet>& sets, Team& team) : sets_(sets), team_(team) {}

  void step(size_t set) override {
    for (AttnCache& cache : sets_[set]) {
      const Step step = cache.step();
      team_.run([&](const Worker& worker) { prefill_.step(step, worker); });
    }
  }

  StageCounters take_counters() override { return {}; }

 private:
  std::vector<AttnSet>& sets_;
  Team& team_;
  Prefill prefill_;
};

}  // namespace

std::unique_ptr<AttnRival> ggml_rival(std::vector<AttnSet>& sets, int threads) {
  return std::make_unique<GgmlRival>(sets, threads);
}

std::unique_ptr<AttnRival> selector_rival(std::vector<AttnSet>& sets, const std::string& method,
                                          const HataOptions& options, const Budget& budget,
                                          Team& team) {
  return std::make_unique<SelectorRival>(sets, method, options, budget, team);
}

std::unique_ptr<AttnRival> prefill_rival(std::vector<AttnSet>& sets, Team& team) {
  return std::make_unique<PrefillRival>(sets, team);
}

}  // namespace hata::cli
