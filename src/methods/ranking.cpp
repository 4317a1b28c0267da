#include "methods/ranking.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "cpu/rank.h"
#include "methods/best_keys.h"
#include "methods/logits.h"
#include "methods/sizes.h"
#include "methods/stopwatch.h"

namespace hata {
namespace {

constexpr int64_t kTile = 1024;  // keys scored at a time: their scores stay in the L1 cache
// Keys whose exponentials have one maximum. Sums of floats depend on it: it must not depend on the
// threads, as the parts do that they search for the best keys.
constexpr int64_t kChunk = 4 * kTile;

bool all_zero(const uint64_t* words, int64_t n) {
  return std::all_of(words, words + n, [](uint64_t word) { return word == 0; });
}

}  // namespace

struct Ranking::State final : Selector::Scratch {
  int n_heads = 0;
  int group = 0;
  int64_t n_padded = 0;  // cells of the view, rounded up to 64
  int64_t n_tiles = 0;
  int64_t n_chunks = 0;
  int64_t n_parts = 0;
  int64_t made_floats = 0;
  ForcedKeys forced;
  std::vector<float> made;        // [row][KV head][made_floats]
  std::vector<int32_t> channels;  // [row][KV head][kMaxHeadDim]
  std::vector<BestKeys> best;     // [row][KV head][part]
  std::atomic<int64_t> keys_scored{0};
  std::atomic<int64_t> finish_bytes{0};

  // Order::softmax: exponentials of logits under the maximum of their chunk.
  std::vector<float> exps;    // [row][KV head][group][n_padded]
  std::vector<float> maxima;  // [row][KV head][group][chunk]
  std::vector<float> sums;    // likewise; then what turns the exponentials into probabilities

  void prepare(const Step& step, size_t n_rows, int64_t floats, bool softmax, int n_threads);
  size_t list(size_t row, int head) const { return row * n_heads + static_cast<size_t>(head); }
  Query query(const Step& step, std::span<const RowPlan> plans, const LayerCache& cache, size_t row,
              int head) {
    return {step,
            cache,
            plans[row],
            row,
            head,
            made.data() + list(row, head) * made_floats,
            channels.data() + list(row, head) * kMaxHeadDim};
  }
  BestKeys& best_of(size_t row, int head, int64_t part) {
    return best[list(row, head) * n_parts + part];
  }
  int64_t first_tile(int64_t part) const { return n_tiles * part / n_parts; }
  float* exps_of(size_t row, int head) { return &exps[list(row, head) * group * n_padded]; }
  size_t chunk_of(size_t row, int head, int g, int64_t chunk) const {
    return (list(row, head) * group + static_cast<size_t>(g)) * n_chunks + chunk;
  }
  void normalise(size_t row, int head);
  void exponentials(size_t row, int head, int64_t chunk, const uint64_t* valid);
  void push_probabilities(size_t row, int head, int64_t part);
  void shares(size_t row, int head, std::span<const int32_t> cells, float* out);
};

// Sizes everything; only grows.
void Ranking::State::prepare(const Step& step, size_t n_rows, int64_t floats, bool softmax,
                             int n_threads) {
  n_heads = step.shape.n_kv_heads;
  group = step.shape.group();
  n_padded = ceil_div(step.n_kv, 64) * 64;
  n_tiles = ceil_div(n_padded, kTile);
  n_chunks = ceil_div(n_padded, kChunk);
  n_parts = parts_per_head(n_threads, n_heads, n_tiles);
  made_floats = floats;
  const size_t lists = n_rows * n_heads;
  grow(made, lists * floats);
  grow(channels, lists * kMaxHeadDim);
  grow(best, lists * n_parts);
  if (softmax) {
    grow(exps, lists * group * n_padded);
    grow(maxima, lists * group * n_chunks);
    grow(sums, lists * group * n_chunks);
  }
  keys_scored.store(0, std::memory_order_relaxed);
  finish_bytes.store(0, std::memory_order_relaxed);
}

void Ranking::State::exponentials(size_t row, int head, int64_t chunk, const uint64_t* valid) {
  const int64_t first = chunk * kChunk;
  const int64_t n = std::min(kChunk, n_padded - first);
  for (int g = 0; g < group; ++g) {
    float* x = exps_of(row, head) + g * n_padded + first;
    mask_logits(x, valid + first / 64, n);
    const float max = largest(x, n);
    const size_t at = chunk_of(row, head, g, chunk);
    maxima[at] = max;
    sums[at] = 0.0f;
    if (max > kNoLogit) {
      sums[at] = exp_all(x, n, max);
    } else {
      std::fill_n(x, n, 0.0f);
    }
  }
}

void Ranking::State::normalise(size_t row, int head) {
  for (int g = 0; g < group; ++g) {
    float* max = &maxima[chunk_of(row, head, g, 0)];
    float* sum = &sums[chunk_of(row, head, g, 0)];
    const float top = *std::max_element(max, max + n_chunks);
    float total = 0.0f;
    for (int64_t r = 0; r < n_chunks; ++r) {
      max[r] = max[r] > kNoLogit ? std::exp(max[r] - top) : 0.0f;
      total += max[r] * sum[r];
    }
    for (int64_t r = 0; r < n_chunks; ++r) sum[r] = total > 0.0f ? max[r] / total : 0.0f;
  }
}

void Ranking::State::push_probabilities(size_t row, int head, int64_t part) {
  const uint64_t* free = forced.free(row);
  alignas(64) std::array<float, kTile> total;
  for (int64_t tile = first_tile(part); tile < first_tile(part + 1); ++tile) {
    const int64_t first = tile * kTile;
    const int64_t n = std::min(kTile, n_padded - first);
    if (all_zero(free + first / 64, n / 64)) continue;
    total.fill(0.0f);
    for (int g = 0; g < group; ++g) {
      const float* x = exps_of(row, head) + g * n_padded + first;
      const float factor = sums[chunk_of(row, head, g, first / kChunk)];
      for (int64_t i = 0; i < n; ++i) total[static_cast<size_t>(i)] += factor * x[i];
    }
    best_of(row, head, part).push(first, total.data(), free + first / 64, n);
  }
}

void Ranking::State::shares(size_t row, int head, std::span<const int32_t> cells, float* out) {
  for (int g = 0; g < group; ++g) {
    const float* x = exps_of(row, head) + g * n_padded;
    double share = 0.0;
    for (const int32_t cell : cells) {
      share += static_cast<double>(x[cell] * sums[chunk_of(row, head, g, cell / kChunk)]);
    }
    out[g] = static_cast<float>(std::min(share, 1.0));
  }
}

void Ranking::sum_queries(const Query& query) {
  const int head_dim = query.step.shape.head_dim;
  std::fill_n(query.made, head_dim, 0.0f);
  for (int g = 0; g < query.step.shape.group(); ++g) {
    for (int i = 0; i < head_dim; ++i) query.made[i] += query.of(g)[i];
  }
}

std::unique_ptr<Selector::Scratch> Ranking::make_scratch() const {
  return std::make_unique<State>();
}

void Ranking::select(const Step& step, std::span<const RowPlan> plans, LayerCache& cache,
                     Scratch& scratch, Selection& out, StageCounters& counters,
                     const Worker& worker) const {
  auto& s = static_cast<State&>(scratch);
  const int64_t n_heads = step.shape.n_kv_heads;
  const auto n_rows = static_cast<int64_t>(plans.size());
  const bool softmax = order_ == Order::softmax;
  const auto query_of = [&](int64_t item) {
    return s.query(step, plans, cache, static_cast<size_t>(item / n_heads),
                   static_cast<int>(item % n_heads));
  };
  // Calls fn for the rows that choose, by row and KV head.
  const auto share_lists = [&](auto&& fn) {
    worker.share(n_rows * n_heads, [&](int64_t item) {
      if (plans[static_cast<size_t>(item / n_heads)].budget > 0) fn(query_of(item));
    });
  };
  Stopwatch watch;

  if (worker.ith == 0) {
    s.prepare(step, plans.size(), made_floats(step.shape), softmax, worker.nth);
    s.forced.reset(plans);
    if (finishes()) out.use_blend();
  }
  worker.barrier();
  worker.share(n_rows * (n_heads + 1), [&](int64_t item) {
    if (item < n_rows) {
      s.forced.choose(window_, step, plans, cache.index, static_cast<size_t>(item));
    } else if (plans[static_cast<size_t>((item - n_rows) / n_heads)].budget > 0) {
      prepare(query_of(item - n_rows));
    }
  });
  const int64_t prepared = watch.lap();
  if (softmax) {
    worker.share(n_heads * s.n_chunks, [&](int64_t item) {
      score_chunk(step, plans, cache, s, static_cast<int>(item / s.n_chunks), item % s.n_chunks);
    });
    share_lists([&](const Query& query) { s.normalise(query.row, query.head); });
  }
  worker.share(n_heads * s.n_parts, [&](int64_t item) {
    search_part(step, plans, cache, s, static_cast<int>(item / s.n_parts), item % s.n_parts);
  });
  const int64_t scored = watch.lap();
  share_lists([&](const Query& query) { collect(query, s, out); });
  if (worker.ith == 0) {
    counters.encode_ns += prepared;
    counters.score_ns += scored;
    counters.select_ns += watch.lap();
    counters.choose_bytes += s.keys_scored.load(std::memory_order_relaxed) * key_bytes(step) +
                             s.finish_bytes.load(std::memory_order_relaxed);
  }
}

// Order::softmax: the exponentials of one chunk, for one KV head.
void Ranking::score_chunk(const Step& step, std::span<const RowPlan> plans, const LayerCache& cache,
                          State& s, int head, int64_t chunk) const {
  const int64_t end = std::min(s.n_padded, (chunk + 1) * kChunk);
  for (int64_t first = chunk * kChunk; first < end; first += kTile) {
    score_tile(step, plans, cache, s, head, first, [&](const Query& query, int64_t n, int64_t) {
      score(query, first, n, s.exps_of(query.row, head) + first, s.n_padded);
    });
  }
  for (size_t row = 0; row < plans.size(); ++row) {
    if (plans[row].budget > 0) s.exponentials(row, head, chunk, plans[row].valid.data());
  }
}

// Finds the best keys of one part of the cache, for one KV head.
void Ranking::search_part(const Step& step, std::span<const RowPlan> plans, const LayerCache& cache,
                          State& s, int head, int64_t part) const {
  for (size_t row = 0; row < plans.size(); ++row) {
    if (plans[row].budget == 0) continue;
    s.best_of(row, head, part).reset(plans[row].budget - std::ssize(s.forced.cells(row)));
    if (order_ == Order::softmax) s.push_probabilities(row, head, part);
  }
  if (order_ == Order::softmax) return;
  alignas(64) std::array<float, kTile> scores;
  for (int64_t tile = s.first_tile(part); tile < s.first_tile(part + 1); ++tile) {
    const int64_t first = tile * kTile;
    const auto push = [&](const Query& query, int64_t n, int64_t n_padded) {
      score(query, first, n, scores.data(), kTile);
      s.best_of(query.row, head, part)
          .push(first, scores.data(), s.forced.free(query.row) + first / 64, n_padded);
    };
    score_tile(step, plans, cache, s, head, first, push);
  }
}

// Calls fn(query, n, n padded to 64) for the rows that see any of the tile's n keys: they share the
// reading of what is kept of them.
template <class Fn>
void Ranking::score_tile(const Step& step, std::span<const RowPlan> plans, const LayerCache& cache,
                         State& s, int head, int64_t first, Fn&& fn) const {
  const int64_t n_padded = std::min(kTile, s.n_padded - first);
  const int64_t n = std::min(n_padded, step.n_kv - first);
  bool read = false;
  for (size_t row = 0; row < plans.size(); ++row) {
    if (plans[row].budget == 0) continue;
    if (all_zero(plans[row].valid.data() + first / 64, n_padded / 64)) continue;
    fn(s.query(step, plans, cache, row, head), n, n_padded);
    read = true;
  }
  if (read) s.keys_scored.fetch_add(n, std::memory_order_relaxed);
}

// The best of all parts, and the forced keys among them in order.
void Ranking::collect(const Query& query, State& s, Selection& out) const {
  BestKeys& best = s.best_of(query.row, query.head, 0);
  for (int64_t part = 1; part < s.n_parts; ++part) {
    best.append(s.best_of(query.row, query.head, part));
  }
  s.forced.merge(best.finish(), out, query.row, query.head);
  if (!finishes()) return;
  const int row = static_cast<int>(query.row);
  std::array<float, kMaxGroup> shares;
  s.shares(query.row, query.head, out.cells(row, query.head), shares.data());
  s.finish_bytes.fetch_add(finish(query, shares.data(), out), std::memory_order_relaxed);
}

}  // namespace hata
