// MagicPIG: each query head samples the keys that share at least two of its hashes, and divides
// their weights by the probability of that.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <numbers>

#include "cpu/rank.h"
#include "hata/encode.h"
#include "index/hash_store.h"
#include "methods/best_keys.h"
#include "methods/methods.h"
#include "methods/sizes.h"
#include "methods/stopwatch.h"

namespace hata {
namespace {

constexpr int kMaxBits = 16;
constexpr int kMaxHashBits = 4096;  // of all hashes of a key
constexpr int64_t kTile = 256;      // keys whose hashes are compared at a time
constexpr int kNeeded = 2;          // hashes shared by a key that is sampled

struct MagicpigScratch final : Selector::Scratch {
  ForcedKeys forced;
  int64_t n_padded = 0;
  int64_t n_tiles = 0;
  int64_t n_parts = 0;
  std::vector<uint16_t> hashes;  // [row][query head][tables]
  std::vector<uint16_t> shared;  // [row][query head][n_padded] hashes in common
  std::vector<BestKeys> best;    // [row][KV head][part]
  std::atomic<int64_t> keys_compared{0};
};

// The probability that two of l hashes of k bits agree, for vectors at this cosine.
double sampled_with(double cosine, int k, int l) {
  const double p = 1.0 - std::acos(std::clamp(cosine, -1.0, 1.0)) / std::numbers::pi;
  const double all = std::pow(p, k);
  const double none = std::pow(1.0 - all, l);
  const double one = l * all * std::pow(1.0 - all, l - 1);
  return 1.0 - none - one;
}

class Magicpig final : public Selector {
 public:
  Magicpig(const Spec& spec, uint64_t seed)
      : name_(spec.text()),
        window_(window_of(spec)),
        seed_(spec.value("seed").empty()
                  ? seed
                  : static_cast<uint64_t>(spec.integer("seed", 0, INT64_MAX))),
        bits_(static_cast<int>(spec.integer("k", 1, kMaxBits))),
        tables_(static_cast<int>(spec.integer("l", kNeeded, kMaxHashBits))) {
    if (bits_ * tables_ > kMaxHashBits) {
      throw Error("method '" + name_ + "': k * l is " + std::to_string(bits_ * tables_) +
                  "; at most " + std::to_string(kMaxHashBits) + " bits a key can be kept");
    }
  }

  std::string_view name() const override { return name_; }
  std::unique_ptr<KeyStore> make_store(int layer, const HeadShape& shape,
                                       int64_t n_cells) const override {
    return std::make_unique<HashStore>(seed_, layer, shape, n_cells, bits_, tables_);
  }
  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<MagicpigScratch>();
  }

  void select(const Step& step, std::span<const RowPlan> plans, LayerCache& cache, Scratch& scratch,
              Selection& out, StageCounters& counters, const Worker& worker) const override {
    auto& s = static_cast<MagicpigScratch&>(scratch);
    const auto& store = static_cast<const HashStore&>(*cache.store);
    const int64_t n_heads = step.shape.n_kv_heads;
    const auto n_rows = static_cast<int64_t>(plans.size());
    Stopwatch watch;
    if (worker.ith == 0) {
      prepare(step, plans, s, worker.nth);
      out.use_bias();
    }
    worker.barrier();
    worker.share(n_rows, [&](int64_t row) {
      if (plans[static_cast<size_t>(row)].budget == 0) return;
      s.forced.choose(window_, step, plans, cache.index, static_cast<size_t>(row));
      hash_queries(step, store, s, static_cast<size_t>(row));
    });
    const int64_t prepared = watch.lap();
    worker.share(n_heads * s.n_parts, [&](int64_t i) {
      compare_part(step, plans, store, s, static_cast<int>(i / s.n_parts), i % s.n_parts);
    });
    const int64_t scored = watch.lap();
    worker.share(n_rows * n_heads, [&](int64_t i) {
      const auto row = static_cast<size_t>(i / n_heads);
      if (plans[row].budget > 0) choose(step, store, s, row, static_cast<int>(i % n_heads), out);
    });
    if (worker.ith == 0) {
      counters.encode_ns += prepared;
      counters.score_ns += scored;
      counters.select_ns += watch.lap();
      counters.choose_bytes += s.keys_compared.load(std::memory_order_relaxed) * tables_ *
                               static_cast<int64_t>(sizeof(uint16_t));
      counters.choose_bytes += corrected_bytes(step, plans, out);
    }
  }

 private:
  // A head whose sample is empty attends to the newest key at least.
  static Window window_of(const Spec& spec) {
    Window window = spec.window({.at_most_half = true});
    if (window.sink == 0 && window.recent == Recent{.tokens = 0}) window.recent = {.tokens = 1};
    return window;
  }

  // Sizes everything; only grows.
  void prepare(const Step& step, std::span<const RowPlan> plans, MagicpigScratch& s,
               int n_threads) const {
    s.n_padded = ceil_div(step.n_kv, 64) * 64;
    s.n_tiles = ceil_div(s.n_padded, kTile);
    s.n_parts = parts_per_head(n_threads, step.shape.n_kv_heads, s.n_tiles);
    grow(s.hashes, plans.size() * step.shape.n_q_heads * tables_);
    grow(s.shared, plans.size() * step.shape.n_q_heads * s.n_padded);
    grow(s.best, plans.size() * step.shape.n_kv_heads * s.n_parts);
    s.forced.reset(plans);
    s.keys_compared.store(0, std::memory_order_relaxed);
  }

  void hash_queries(const Step& step, const HashStore& store, MagicpigScratch& s,
                    size_t row) const {
    for (int h = 0; h < step.shape.n_q_heads; ++h) {
      store.hash(step.rows[row].query(h), 1,
                 s.hashes.data() + (row * step.shape.n_q_heads + h) * tables_);
    }
  }

  // Counts the hashes that keys share with each query head, and ranks the keys that any head
  // samples by how many they share with those heads.
  void compare_part(const Step& step, std::span<const RowPlan> plans, const HashStore& store,
                    MagicpigScratch& s, int head, int64_t part) const {
    const int group = step.shape.group();
    const int64_t begin = s.n_tiles * part / s.n_parts * kTile;
    const int64_t end = std::min(s.n_padded, s.n_tiles * (part + 1) / s.n_parts * kTile);
    std::array<float, kTile> scores;
    std::array<uint64_t, kTile / 64> sampled;
    bool read = false;
    for (size_t row = 0; row < plans.size(); ++row) {
      if (plans[row].budget == 0) continue;
      read = true;
      BestKeys& best = best_of(step, s, row, head, part);
      best.reset(plans[row].budget - std::ssize(s.forced.cells(row)));
      for (int64_t first = begin; first < end; first += kTile) {
        const int64_t n = std::min(kTile, end - first);
        scores.fill(0.0f);
        sampled.fill(0);
        count_shared(step, store, s, row, head, first, n);
        for (int g = 0; g < group; ++g) {
          const uint16_t* shared = shared_of(step, s, row, head * group + g) + first;
          for (int64_t i = 0; i < n; ++i) {
            if (shared[i] < kNeeded) continue;
            scores[static_cast<size_t>(i)] += static_cast<float>(shared[i]);
            sampled[static_cast<size_t>(i / 64)] |= uint64_t{1} << (i % 64);
          }
        }
        for (int64_t w = 0; w < n / 64; ++w) {
          sampled[static_cast<size_t>(w)] &= s.forced.free(row)[first / 64 + w];
        }
        best.push(first, scores.data(), sampled.data(), n);
      }
    }
    if (read) s.keys_compared.fetch_add(end - begin, std::memory_order_relaxed);
  }

  void count_shared(const Step& step, const HashStore& store, MagicpigScratch& s, size_t row,
                    int head, int64_t first, int64_t n) const {
    const int group = step.shape.group();
    for (int g = 0; g < group; ++g) {
      std::fill_n(shared_of(step, s, row, head * group + g) + first, n, uint16_t{0});
    }
    for (int t = 0; t < tables_; ++t) {
      const uint16_t* keys = store.hashes(head, t, step.first_cell + first);
      for (int g = 0; g < group; ++g) {
        const size_t q_head = row * step.shape.n_q_heads + static_cast<size_t>(head * group + g);
        count_equal(keys, s.hashes[q_head * tables_ + t], n,
                    shared_of(step, s, row, head * group + g) + first);
      }
    }
  }

  // The sampled keys, and what corrects for the chance of being sampled.
  void choose(const Step& step, const HashStore& store, MagicpigScratch& s, size_t row, int head,
              Selection& out) const {
    BestKeys& best = best_of(step, s, row, head, 0);
    for (int64_t r = 1; r < s.n_parts; ++r) best.append(best_of(step, s, row, head, r));
    s.forced.merge(best.finish(), out, row, head);
    for (int g = 0; g < step.shape.group(); ++g) {
      correct(step, store, s, row, head, g,
              out.bias(static_cast<int>(row), head) + g * out.capacity(),
              out.cells(static_cast<int>(row), head));
    }
  }

  void correct(const Step& step, const HashStore& store, MagicpigScratch& s, size_t row, int head,
               int g, float* bias, std::span<const int32_t> cells) const {
    const int d = step.shape.head_dim;
    const int q_head = head * step.shape.group() + g;
    const float* q = step.rows[row].query(q_head);
    float q_length = 0.0f;
    float q_centre = 0.0f;
    key_norms(d, q, DType::f32, 0, 1, &q_length);
    dots(q, d, store.centre(head), DType::f32, 0, 1, &q_centre);
    const auto forced = s.forced.cells(row);
    const uint16_t* shared = shared_of(step, s, row, q_head);
    for (size_t j = 0; j < cells.size(); ++j) {
      const int32_t cell = cells[j];
      if (std::binary_search(forced.begin(), forced.end(), cell)) {
        bias[j] = 0.0f;
      } else if (shared[cell] < kNeeded) {
        bias[j] = -std::numeric_limits<float>::infinity();
      } else {
        float product = 0.0f;
        dots(q, d, step.keys.row(cell, head), step.keys.type, step.keys.cell_stride, 1, &product);
        const float lengths = q_length * store.length(head, step.first_cell + cell);
        const double cosine =
            lengths > 0.0f ? static_cast<double>((product - q_centre) / lengths) : 0.0;
        bias[j] = static_cast<float>(-std::log(sampled_with(cosine, bits_, tables_)));
      }
    }
  }

  // The keys and their lengths, read to know their angles.
  static int64_t corrected_bytes(const Step& step, std::span<const RowPlan> plans,
                                 const Selection& out) {
    int64_t cells = 0;
    for (size_t row = 0; row < plans.size(); ++row) {
      for (int head = 0; plans[row].budget > 0 && head < step.shape.n_kv_heads; ++head) {
        cells += std::ssize(out.cells(static_cast<int>(row), head));
      }
    }
    return cells * (step.shape.head_dim * static_cast<int64_t>(dtype_size(step.keys.type)) +
                    static_cast<int64_t>(sizeof(float)));
  }

  static uint16_t* shared_of(const Step& step, MagicpigScratch& s, size_t row, int q_head) {
    return s.shared.data() +
           (static_cast<int64_t>(row) * step.shape.n_q_heads + q_head) * s.n_padded;
  }
  static BestKeys& best_of(const Step& step, MagicpigScratch& s, size_t row, int head,
                           int64_t part) {
    return s.best[(row * step.shape.n_kv_heads + static_cast<size_t>(head)) * s.n_parts + part];
  }

  std::string name_;
  Window window_;
  uint64_t seed_;
  int bits_;
  int tables_;
};

}  // namespace

std::shared_ptr<const Selector> make_magicpig(const Spec& spec, uint64_t seed) {
  return std::make_shared<Magicpig>(spec, seed);
}

}  // namespace hata
