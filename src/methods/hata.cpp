// HATA: rank keys by summed Hamming distance to the codes of a group's queries.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>

#include "hata/encode.h"
#include "hata/score.h"
#include "hata/select.h"
#include "index/code_store.h"
#include "methods/methods.h"
#include "methods/stopwatch.h"

namespace hata {
namespace {

constexpr int64_t kTile = 1024;  // keys scored at a time: their scores stay in the L1 cache
constexpr int kDefaultRecent = 32;

struct HataScratch final : Selector::Scratch {
  int words = 0;     // of a code
  int n_ranges = 0;  // parts of the cache that threads score on their own
  int64_t n_tiles = 0;
  std::vector<uint64_t> queries;  // [row][query head][words]
  std::vector<uint64_t> free;     // [row][n_kv / 64] valid cells that are not forced
  std::vector<int32_t> forced;    // [row][budget] ascending
  std::vector<int64_t> n_forced;  // [row]
  std::vector<TopK> top;          // [row][KV head][range]
  std::atomic<int64_t> keys_scored{0};
};

class Hata final : public Selector {
 public:
  Hata(std::string name, const HataOptions& options) : name_(std::move(name)), options_(options) {}

  std::string_view name() const override { return name_; }

  std::unique_ptr<KeyStore> make_store(int layer, const HeadShape& shape,
                                       int64_t n_cells) const override {
    return std::make_unique<CodeStore>(
        random_projection(options_.seed, layer, shape.n_kv_heads, shape.head_dim, options_.rbit),
        shape, n_cells, options_.lengths);
  }

  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<HataScratch>(); }

  void select(const Step& step, std::span<const RowPlan> plans, const CellIndex& index,
              const KeyStore* store, Scratch& scratch, Selection& out, StageCounters& counters,
              const Worker& worker) const override {
    const auto& codes = static_cast<const CodeStore&>(*store);
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
        force_keys(step, plans, index, s, static_cast<size_t>(i - n_heads));
      }
    });
    const int64_t encoded = watch.lap();
    worker.share(n_heads * s.n_ranges, [&](int64_t i) {
      score_range(step, plans, codes, s, static_cast<int>(i / s.n_ranges),
                  static_cast<int>(i % s.n_ranges));
    });
    const int64_t scored = watch.lap();
    worker.share(n_rows * n_heads, [&](int64_t i) {
      const auto row = static_cast<int>(i / n_heads);
      if (plans[static_cast<size_t>(row)].budget > 0) {
        collect(plans, s, out, row, static_cast<int>(i % n_heads), static_cast<int>(n_heads));
      }
    });
    const int64_t selected = watch.lap();

    if (worker.ith == 0) {
      counters.encode_ns += encoded;
      counters.score_ns += scored;
      counters.select_ns += selected;
      const int64_t key_bits = codes.projection().rbit + (options_.lengths ? 4 : 0);
      counters.choose_bytes += s.keys_scored.load(std::memory_order_relaxed) * key_bits / 8;
    }
  }

 private:
  // Sizes everything; only grows.
  static void prepare(const Step& step, std::span<const RowPlan> plans, const CodeStore& codes,
                      HataScratch& s, int n_threads) {
    const int n_heads = step.shape.n_kv_heads;
    const size_t n_rows = plans.size();
    s.words = codes.projection().words();
    s.n_tiles = (step.n_kv + kTile - 1) / kTile;
    // Four items a thread keep threads busy that are slowed down; the result does not depend on it.
    const int wanted = n_threads == 1 ? 1 : (4 * n_threads + n_heads - 1) / n_heads;
    s.n_ranges = static_cast<int>(std::clamp<int64_t>(wanted, 1, s.n_tiles));
    s.queries.resize(n_rows * step.shape.n_q_heads * s.words);
    size_t n_words = 0;
    int64_t budget = 1;
    for (const RowPlan& plan : plans) {
      n_words = std::max(n_words, plan.valid.size());
      budget = std::max(budget, plan.budget);
    }
    s.free.resize(n_rows * n_words);
    s.forced.resize(n_rows * static_cast<size_t>(budget));
    s.n_forced.assign(n_rows, 0);
    const size_t n_top = n_rows * n_heads * s.n_ranges;
    if (s.top.size() < n_top) s.top.resize(n_top);
    s.keys_scored.store(0, std::memory_order_relaxed);
  }

  static void encode_queries(const Step& step, std::span<const RowPlan> plans,
                             const CodeStore& codes, HataScratch& s, int head) {
    const int group = step.shape.group();
    for (size_t row = 0; row < plans.size(); ++row) {
      if (plans[row].budget == 0) continue;
      const Row& r = step.rows[row];
      encode(codes.projection().head(head), step.shape.head_dim, codes.projection().rbit,
             r.q + static_cast<size_t>(head) * group * r.q_head_stride, DType::f32,
             r.q_head_stride * sizeof(float), group, query_codes(step, s, row, head));
    }
  }

  // The first and last tokens of the row's sequence are chosen without a score.
  void force_keys(const Step& step, std::span<const RowPlan> plans, const CellIndex& index,
                  HataScratch& s, size_t row) const {
    const RowPlan& plan = plans[row];
    if (plan.budget == 0) return;
    const int64_t window =
        options_.recent >= 0 ? options_.recent : std::min<int64_t>(kDefaultRecent, plan.budget / 2);
    const int recent = static_cast<int>(std::min(window, plan.budget));
    const int sink = static_cast<int>(std::min<int64_t>(options_.sink, plan.budget - recent));
    int32_t* forced = forced_cells(plans, s, row);
    int n = index.oldest(step.first_cell, plan.valid, sink, forced);
    n += index.newest(step.first_cell, plan.valid, recent, forced + n);
    std::sort(forced, forced + n);
    n = static_cast<int>(std::unique(forced, forced + n) - forced);
    s.n_forced[row] = n;

    uint64_t* free = free_cells(plans, s, row);
    std::copy(plan.valid.begin(), plan.valid.end(), free);
    for (int i = 0; i < n; ++i) free[forced[i] / 64] &= ~(uint64_t{1} << (forced[i] % 64));
  }

  // Scores one part of the cache for one KV head. All rows share the reading of the codes.
  static void score_range(const Step& step, std::span<const RowPlan> plans, const CodeStore& codes,
                          HataScratch& s, int head, int range) {
    const int rbit = codes.projection().rbit;
    const int group = step.shape.group();
    const int64_t n_padded = (step.n_kv + 63) / 64 * 64;
    for (size_t row = 0; row < plans.size(); ++row) {
      top_of(step, s, row, head, range)
          .reset(plans[row].budget - s.n_forced[row], max_score(group, rbit));
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
        const uint64_t* free = free_cells(plans, s, row) + first / 64;
        if (std::all_of(free, free + n / 64, [](uint64_t word) { return word == 0; })) continue;
        score(query_codes(step, s, row, head), group, rbit,
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

  // The best of all ranges, and the forced keys among them in order.
  static void collect(std::span<const RowPlan> plans, HataScratch& s, Selection& out, int row,
                      int head, int n_heads) {
    TopK* ranges = s.top.data() + (static_cast<int64_t>(row) * n_heads + head) * s.n_ranges;
    for (int range = 1; range < s.n_ranges; ++range) ranges[0].append(ranges[range]);
    if (s.n_ranges > 1) ranges[0].prune();
    const auto best = ranges[0].cells();
    const int32_t* forced = forced_cells(plans, s, static_cast<size_t>(row));
    const int64_t n_forced = s.n_forced[static_cast<size_t>(row)];
    std::merge(best.begin(), best.end(), forced, forced + n_forced, out.data(row, head));
    out.set_count(row, head, static_cast<int64_t>(best.size()) + n_forced);
  }

  static uint64_t* query_codes(const Step& step, HataScratch& s, size_t row, int head) {
    const size_t first =
        row * step.shape.n_q_heads + static_cast<size_t>(head) * step.shape.group();
    return s.queries.data() + first * s.words;
  }
  static uint64_t* free_cells(std::span<const RowPlan> plans, HataScratch& s, size_t row) {
    return s.free.data() + row * (s.free.size() / plans.size());
  }
  static int32_t* forced_cells(std::span<const RowPlan> plans, HataScratch& s, size_t row) {
    return s.forced.data() + row * (s.forced.size() / plans.size());
  }
  static TopK& top_of(const Step& step, HataScratch& s, size_t row, int head, int range) {
    return s.top[(row * step.shape.n_kv_heads + static_cast<size_t>(head)) * s.n_ranges +
                 static_cast<size_t>(range)];
  }

  std::string name_;
  HataOptions options_;
};

}  // namespace

std::shared_ptr<const Selector> make_hata(std::string name, const HataOptions& options) {
  if (options.rbit != 64 && options.rbit != 128 && options.rbit != 256) {
    throw Error("rbit " + std::to_string(options.rbit) + ": codes have 64, 128 or 256 bits");
  }
  if (options.sink < 0) throw Error("sink " + std::to_string(options.sink) + ": must be 0 or more");
  if (options.recent < -1) {
    throw Error("recent " + std::to_string(options.recent) + ": must be 0 or more");
  }
  return std::make_shared<Hata>(std::move(name), options);
}

}  // namespace hata
