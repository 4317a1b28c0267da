// HATA: rank keys by Hamming distance to the codes of a group's queries.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>

#include "hata/encode.h"
#include "hata/score.h"
#include "hata/select.h"
#include "hata/weights.h"
#include "index/code_store.h"
#include "methods/methods.h"
#include "methods/rerank.h"
#include "methods/sizes.h"
#include "methods/stopwatch.h"
#include "weights/weights_file.h"

namespace hata {
namespace {

constexpr int kMaxRerank = 16;
constexpr int64_t kTile = 1024;    // keys scored at a time: their scores stay in the L1 cache
constexpr int64_t kMostParts = 8;  // that a list of candidates is cut into for threads

struct HataScratch final : Selector::Scratch {
  int words = 0;     // of a code
  int n_ranges = 0;  // parts of the cache that threads score on their own
  int64_t n_tiles = 0;
  std::vector<uint64_t> queries;  // [row][query head][words]
  ForcedKeys forced;
  std::vector<TopK> top;       // [row][KV head][range]
  std::vector<Rerank> rerank;  // [row][KV head]
  std::atomic<int64_t> keys_scored{0};
  std::atomic<int64_t> keys_reranked{0};
};

// What keeps a layer's weights from being used; empty: nothing.
std::string misfit(const LayerWeights& weights, const HeadShape& shape) {
  const Projection& p = weights.projection;
  const int64_t size = int64_t{shape.n_kv_heads} * shape.head_dim * p.rbit;
  const struct {
    const char* field;
    int64_t is, want;
  } fields[] = {
      {"the number of KV heads", p.n_heads, shape.n_kv_heads},
      {"head_dim", p.head_dim, shape.head_dim},
      {"the number of weights", std::ssize(p.weights), size},
      {"the number of mean lengths", std::ssize(weights.mean_lengths),
       weights.mean_lengths.empty() ? 0 : shape.n_kv_heads},
      {"the number of query weights", std::ssize(weights.queries.weights),
       weights.queries.n_heads == 0 ? 0 : size},
      {"the number of elements of the mean keys", std::ssize(weights.key_means),
       weights.key_means.empty() ? 0 : shape.n_kv_heads * shape.head_dim},
  };
  for (const auto& [field, is, want] : fields) {
    if (is == want) continue;
    return std::string(field) + " is " + std::to_string(is) + ", not " + std::to_string(want);
  }
  return {};
}

class Hata final : public Selector {
 public:
  Hata(const Spec& spec, const HataOptions& options, bool rerank_q4)
      : name_(spec.text()),
        options_(options),
        window_(spec.window({.sink = options.sink, .recent = options.recent})),
        rerank_q4_(rerank_q4) {}

  std::string_view name() const override { return name_; }

  std::string why_dense(int layer, const HeadShape& shape) const override {
    const auto weights = trained(layer);
    if (weights == nullptr) return {};
    const Weights& all = *options_.weights;
    std::string why = misfit(*weights, shape);
    if (!why.empty()) why = "layer " + std::to_string(layer) + ": " + why;
    if (!options_.model.empty() && all.fingerprint != options_.model) {
      why = "fingerprint: " + all.fingerprint + ": the model's is " + options_.model;
    }
    if (why.empty()) return {};
    return (all.path.empty() ? "trained weights" : all.path) + ": " + why +
           "; train weights for this model (hata train), or leave them out (weights=off)";
  }

  std::shared_ptr<const KeptMass> kept_mass(int layer) const override {
    const auto weights = trained(layer);
    return weights != nullptr ? weights->kept_mass : nullptr;
  }

  std::optional<ScoreRule> by_codes_alone() const override {
    if (options_.rerank > 0) return std::nullopt;
    return options_.score;
  }

  Window window(int layer) const override {
    const auto weights = trained(layer);
    return weights != nullptr ? window_of(*weights) : window_;
  }

  std::unique_ptr<KeyStore> make_store(int layer, const HeadShape& shape,
                                       int64_t n_cells) const override {
    auto weights = trained(layer);
    if (weights == nullptr) {
      weights = std::make_shared<LayerWeights>(LayerWeights{
          random_projection(options_.seed, layer, shape.n_kv_heads, shape.head_dim, options_.rbit),
          {}});
    }
    const CodeStore::Extras extras{.lengths = options_.lengths,
                                   .q4_keys = options_.rerank > 0 && rerank_q4_};
    return std::make_unique<CodeStore>(std::move(weights), shape, n_cells, extras);
  }

  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<HataScratch>(); }

  void select(const Step& step, std::span<const RowPlan> plans, LayerCache& cache, Scratch& scratch,
              Selection& out, StageCounters& counters, const Worker& worker) const override {
    const auto& codes = static_cast<const CodeStore&>(*cache.store);
    auto& s = static_cast<HataScratch&>(scratch);
    const int64_t n_heads = step.shape.n_kv_heads;
    const auto n_rows = static_cast<int64_t>(plans.size());
    Stopwatch watch;

    if (worker.ith == 0) prepare(step, plans, codes, s, worker.nth);
    worker.barrier();
    worker.share(n_heads + n_rows, [&](int64_t i) {
      if (i < n_heads) {
        encode_queries(step, plans, codes, s, static_cast<int>(i));
      } else {
        s.forced.choose(window_of(codes.coder().weights()), step, plans, cache.index,
                        static_cast<size_t>(i - n_heads));
      }
    });
    const int64_t encoded = watch.lap();
    worker.share(n_heads * s.n_ranges, [&](int64_t i) {
      score_range(step, plans, codes, s, static_cast<int>(i / s.n_ranges),
                  static_cast<int>(i % s.n_ranges));
    });
    const int64_t scored = watch.lap();
    share_lists(step, plans, 1, worker, [&](size_t row, int head, int64_t) {
      const auto found = candidates(step, s, row, head);
      if (options_.rerank == 0) return s.forced.merge(found, out, row, head);
      Rerank& rerank = rerank_of(step, s, row, head);
      rerank.start(step, step.rows[row], head, found, s.forced.cells(row));
      s.keys_reranked.fetch_add(rerank.n_keys(), std::memory_order_relaxed);
    });
    const int64_t collected = watch.lap();
    if (options_.rerank > 0) rerank(step, plans, codes, s, out, worker);
    const int64_t reranked = watch.lap();

    if (worker.ith == 0) {
      counters.encode_ns += encoded;
      counters.score_ns += scored;
      counters.select_ns += collected + reranked;
      counters.rerank_ns += options_.rerank > 0 ? reranked : 0;
      const int64_t key_bits = codes.projection().rbit + (options_.lengths ? 4 : 0);
      counters.choose_bytes += s.keys_scored.load(std::memory_order_relaxed) * key_bits / 8;
      const int64_t full_key =
          step.shape.head_dim * static_cast<int64_t>(dtype_size(step.keys.type));
      counters.choose_bytes += s.keys_reranked.load(std::memory_order_relaxed) *
                               (rerank_q4_ ? q4_bytes(step.shape.head_dim) : full_key);
    }
  }

 private:
  bool squares() const { return options_.score == ScoreRule::squares; }

  // The layer's trained weights, nullptr where there are none.
  std::shared_ptr<const LayerWeights> trained(int layer) const {
    if (options_.weights == nullptr) return nullptr;
    const auto at = options_.weights->layers.find(layer);
    if (at == options_.weights->layers.end()) return nullptr;
    return {options_.weights, &at->second};
  }

  // Sizes everything; only grows.
  static void prepare(const Step& step, std::span<const RowPlan> plans, const CodeStore& codes,
                      HataScratch& s, int n_threads) {
    const int n_heads = step.shape.n_kv_heads;
    const size_t n_rows = plans.size();
    s.words = codes.projection().words();
    s.n_tiles = ceil_div(step.n_kv, kTile);
    s.n_ranges = static_cast<int>(parts_per_head(n_threads, n_heads, s.n_tiles));
    grow(s.queries, n_rows * step.shape.n_q_heads * s.words);
    s.forced.reset(plans);
    grow(s.top, n_rows * n_heads * s.n_ranges);
    grow(s.rerank, n_rows * n_heads);
    s.keys_scored.store(0, std::memory_order_relaxed);
    s.keys_reranked.store(0, std::memory_order_relaxed);
  }

  static void encode_queries(const Step& step, std::span<const RowPlan> plans,
                             const CodeStore& codes, HataScratch& s, int head) {
    const int group = step.shape.group();
    for (size_t row = 0; row < plans.size(); ++row) {
      if (plans[row].budget == 0) continue;
      const Row& r = step.rows[row];
      encode(codes.query_projection().head(head), step.shape.head_dim, codes.projection().rbit,
             r.query(head * group), DType::f32, r.q_head_stride * sizeof(float), group,
             query_codes(step, s, row, head));
    }
  }

  // Scores one part of the cache for one KV head. All rows share the reading of the codes.
  void score_range(const Step& step, std::span<const RowPlan> plans, const CodeStore& codes,
                   HataScratch& s, int head, int range) const {
    const int rbit = codes.projection().rbit;
    const int group = step.shape.group();
    const int64_t n_padded = ceil_div(step.n_kv, 64) * 64;
    const auto score_keys = squares() ? score_squares : score;
    const int bound = squares() ? max_level(group, rbit) : max_score(group, rbit);
    for (size_t row = 0; row < plans.size(); ++row) {
      top_of(step, s, row, head, range).reset(wanted(plans[row], s, row, head), bound);
    }
    alignas(64) std::array<int16_t, kTile> scores;
    int64_t keys_scored = 0;
    const int64_t last_tile = s.n_tiles * (range + 1) / s.n_ranges;
    for (int64_t tile = s.n_tiles * range / s.n_ranges; tile < last_tile; ++tile) {
      const int64_t first = tile * kTile;
      const int64_t n = std::min(kTile, n_padded - first);
      bool read = false;
      for (size_t row = 0; row < plans.size(); ++row) {
        if (plans[row].budget == 0) continue;
        const uint64_t* free = s.forced.free(row) + first / 64;
        if (std::all_of(free, free + n / 64, [](uint64_t word) { return word == 0; })) continue;
        score_keys(query_codes(step, s, row, head), group, rbit,
                   codes.codes(head, step.first_cell + first),
                   codes.lengths(head, step.first_cell + first), n, scores.data());
        top_of(step, s, row, head, range).push(first, scores.data(), free, n);
        read = true;
      }
      if (read) keys_scored += n;
    }
    for (size_t row = 0; row < plans.size(); ++row) top_of(step, s, row, head, range).prune();
    s.keys_scored.fetch_add(keys_scored, std::memory_order_relaxed);
  }

  // How many keys a row looks for by codes, besides the forced ones.
  int64_t wanted(const RowPlan& plan, const HataScratch& s, size_t row, int head) const {
    const int64_t factor = std::max(1, options_.rerank);
    const int64_t all = std::min(plan.n_valid, plan.budget_of(head) * factor);
    return std::max(all - std::ssize(s.forced.cells(row)), int64_t{0});
  }

  // Calls fn(row, head, part) for every row that chooses and each part of its list.
  template <class Fn>
  static void share_lists(const Step& step, std::span<const RowPlan> plans, int64_t n_parts,
                          const Worker& worker, Fn&& fn) {
    const int64_t n_heads = step.shape.n_kv_heads;
    worker.share(std::ssize(plans) * n_heads * n_parts, [&](int64_t i) {
      const auto row = static_cast<size_t>(i / n_parts / n_heads);
      if (plans[row].budget > 0) fn(row, static_cast<int>(i / n_parts % n_heads), i % n_parts);
    });
  }

  // The best of all ranges.
  static std::span<const int32_t> candidates(const Step& step, HataScratch& s, size_t row,
                                             int head) {
    TopK* ranges = &top_of(step, s, row, head, 0);
    for (int range = 1; range < s.n_ranges; ++range) ranges[0].append(ranges[range]);
    if (s.n_ranges > 1) ranges[0].prune();
    return ranges[0].cells();
  }

  // Ranks the candidates again and takes the best, with the forced keys among them in order.
  void rerank(const Step& step, std::span<const RowPlan> plans, const CodeStore& codes,
              HataScratch& s, Selection& out, const Worker& worker) const {
    const int64_t n_lists = std::ssize(plans) * step.shape.n_kv_heads;
    const int64_t n_parts = parts_per_head(worker.nth, static_cast<int>(n_lists), kMostParts);
    share_lists(step, plans, n_parts, worker, [&](size_t row, int head, int64_t part) {
      Rerank& rerank = rerank_of(step, s, row, head);
      rerank.score(step, step.rows[row], head, codes.q4_keys(head, step.first_cell),
                   rerank.n_keys() * part / n_parts, rerank.n_keys() * (part + 1) / n_parts);
    });
    share_lists(step, plans, 1, worker, [&](size_t row, int head, int64_t) {
      const int64_t left =
          std::max(plans[row].budget_of(head) - std::ssize(s.forced.cells(row)), std::ptrdiff_t{0});
      s.forced.merge(rerank_of(step, s, row, head).best(left), out, row, head);
    });
  }

  static Rerank& rerank_of(const Step& step, HataScratch& s, size_t row, int head) {
    return s.rerank[row * step.shape.n_kv_heads + static_cast<size_t>(head)];
  }
  static uint64_t* query_codes(const Step& step, HataScratch& s, size_t row, int head) {
    const size_t first =
        row * step.shape.n_q_heads + static_cast<size_t>(head) * step.shape.group();
    return s.queries.data() + first * s.words;
  }
  static TopK& top_of(const Step& step, HataScratch& s, size_t row, int head, int range) {
    return s.top[(row * step.shape.n_kv_heads + static_cast<size_t>(head)) * s.n_ranges +
                 static_cast<size_t>(range)];
  }

  // By rule, what training found for the layer comes first.
  Window window_of(const LayerWeights& weights) const {
    Window window = window_;
    if (window.recent.by_rule()) window.recent.share = static_cast<double>(weights.recent_share);
    return window;
  }

  std::string name_;
  HataOptions options_;
  Window window_;   ///< of layers whose weights say nothing
  bool rerank_q4_;  // by 4-bit keys; else by those of the cache
};

// The trained weights that the spec names. The paper's rule takes no weights of another objective,
// unless they are named.
std::shared_ptr<const Weights> weights_of(const Spec& spec, const HataOptions& options) {
  const std::string_view name = Spec::name_of(spec.text());
  const std::string_view given = spec.value("weights");
  if (name == "random" || given == "off") return nullptr;
  if (given != "auto") return weights::shared_weights(std::string(given));
  const bool fits =
      name != "hata-paper" || options.weights == nullptr || options.weights->objective == "paper";
  return fits ? options.weights : nullptr;
}

// The defaults, with what the spec names. Only the method "hata" knows lengths.
HataOptions options_of(const Spec& spec, HataOptions options) {
  const auto given = [&](std::string_view key) { return !spec.value(key).empty(); };
  if (Spec::name_of(spec.text()) != "hata") options.lengths = false;
  options.weights = weights_of(spec, options);
  if (given("lengths")) options.lengths = spec.on("lengths");
  if (given("score")) {
    const bool sum = spec.one_of("score", {"sum", "squares"}) == "sum";
    options.score = sum ? ScoreRule::sum : ScoreRule::squares;
  }
  if (given("rbit")) options.rbit = static_cast<int>(spec.integer("rbit", 64, 256));
  if (given("rerank")) options.rerank = static_cast<int>(spec.integer("rerank", 0, INT32_MAX));
  if (given("seed")) options.seed = static_cast<uint64_t>(spec.integer("seed", 0, INT64_MAX));
  return options;
}

}  // namespace

std::shared_ptr<const Selector> make_hata(const Spec& spec, const HataOptions& defaults) {
  const HataOptions options = options_of(spec, defaults);
  const auto refuse = [&](const char* key, int value, const char* want) {
    throw Error("method '" + spec.text() + "': " + key + "=" + std::to_string(value) + ": want " +
                want);
  };
  if (options.rbit != 64 && options.rbit != 128 && options.rbit != 256) {
    refuse("rbit", options.rbit, "64, 128 or 256");
  }
  if (options.sink < 0) refuse("sink", options.sink, "0 or more");
  if (options.rerank < 0 || options.rerank == 1 || options.rerank > kMaxRerank) {
    refuse("rerank", options.rerank, "0 (off) or 2 to 16");
  }
  return std::make_shared<Hata>(spec, options, spec.one_of("rerank-keys", {"q4", "cache"}) == "q4");
}

}  // namespace hata
