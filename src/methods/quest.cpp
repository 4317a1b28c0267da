// Quest: pages ranked by the largest logit that one of their keys can have.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <limits>

#include "hata/encode.h"
#include "index/page_store.h"
#include "methods/best_keys.h"
#include "methods/methods.h"
#include "methods/sizes.h"
#include "methods/stopwatch.h"

namespace hata {
namespace {

constexpr int64_t kPagesPerItem = 512;

struct QuestScratch final : Selector::Scratch {
  ForcedKeys forced;
  int64_t n_pages = 0;            // of the view
  int64_t n_words = 0;            // of a bit per page
  std::vector<float> queries;     // [row][KV head][2 * head_dim]
  std::vector<float> bounds;      // [row][KV head][n_words * 64]
  std::vector<uint64_t> pages;    // [row][n_words] pages with a free cell
  std::vector<BestKeys> best;     // [row][KV head]
  std::atomic<int64_t> bytes{0};  // of pages read
};

class Quest final : public Selector {
 public:
  explicit Quest(const Spec& spec)
      : name_(spec.text()),
        window_(spec.window()),
        last_(spec.on("last")),
        page_(static_cast<int>(spec.integer("page", 1, 64))) {
    if (64 % page_ != 0) {
      throw Error("method '" + name_ + "': page=" + std::to_string(page_) +
                  ": want a divisor of 64, as 16 or 32");
    }
  }

  std::string_view name() const override { return name_; }
  std::unique_ptr<KeyStore> make_store(int, const HeadShape& shape,
                                       int64_t n_cells) const override {
    return std::make_unique<PageStore>(shape, n_cells, page_);
  }
  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<QuestScratch>();
  }

  void select(const Step& step, std::span<const RowPlan> plans, LayerCache& cache, Scratch& scratch,
              Selection& out, StageCounters& counters, const Worker& worker) const override {
    auto& s = static_cast<QuestScratch&>(scratch);
    const auto& store = static_cast<const PageStore&>(*cache.store);
    const int64_t n_heads = step.shape.n_kv_heads;
    const auto n_rows = static_cast<int64_t>(plans.size());
    Stopwatch watch;
    if (worker.ith == 0) prepare(step, plans, s);
    worker.barrier();
    worker.share(n_rows, [&](int64_t row) {
      if (plans[static_cast<size_t>(row)].budget == 0) return;
      s.forced.choose(window_, step, plans, cache.index, static_cast<size_t>(row));
      find_pages(plans, s, static_cast<size_t>(row));
      split_queries(step, s, static_cast<size_t>(row));
    });
    const int64_t prepared = watch.lap();
    const int64_t n_items = ceil_div(s.n_pages, kPagesPerItem);
    worker.share(n_heads * n_items, [&](int64_t i) {
      bound_pages(step, plans, store, s, static_cast<int>(i / n_items), i % n_items);
    });
    const int64_t scored = watch.lap();
    worker.share(n_rows * n_heads, [&](int64_t i) {
      const auto row = static_cast<size_t>(i / n_heads);
      if (plans[row].budget > 0) {
        choose(step, plans, cache.index, s, row, static_cast<int>(i % n_heads), out);
      }
    });
    if (worker.ith == 0) {
      counters.encode_ns += prepared;
      counters.score_ns += scored;
      counters.select_ns += watch.lap();
      counters.choose_bytes += s.bytes.load(std::memory_order_relaxed);
    }
  }

 private:
  // Sizes everything; only grows.
  void prepare(const Step& step, std::span<const RowPlan> plans, QuestScratch& s) const {
    s.n_pages = ceil_div(step.n_kv, page_);
    s.n_words = ceil_div(s.n_pages, 64);
    const size_t lists = plans.size() * step.shape.n_kv_heads;
    grow(s.queries, lists * 2 * step.shape.head_dim);
    grow(s.bounds, lists * s.n_words * 64);
    grow(s.pages, plans.size() * s.n_words);
    grow(s.best, lists);
    s.forced.reset(plans);
    s.bytes.store(0, std::memory_order_relaxed);
  }

  // The bits of one page's cells.
  uint64_t cells_of(const uint64_t* words, int64_t page) const {
    const int64_t first = page * page_;
    const uint64_t ones = page_ == 64 ? ~uint64_t{0} : (uint64_t{1} << page_) - 1;
    return words[first / 64] >> (first % 64) & ones;
  }

  void find_pages(std::span<const RowPlan> plans, QuestScratch& s, size_t row) const {
    uint64_t* pages = s.pages.data() + row * s.n_words;
    std::fill_n(pages, s.n_words, 0);
    const int64_t n = std::min(s.n_pages, std::ssize(plans[row].valid) * 64 / page_);
    for (int64_t page = 0; page < n; ++page) {
      const bool any = cells_of(s.forced.free(row), page) != 0;
      pages[page / 64] |= static_cast<uint64_t>(any) << (page % 64);
    }
  }

  // The bounds of a group's queries sum to (sum of q's positive parts) . maxima + (sum of its
  // negative parts) . minima: one product with what is kept of a page.
  static void split_queries(const Step& step, QuestScratch& s, size_t row) {
    const int d = step.shape.head_dim;
    for (int head = 0; head < step.shape.n_kv_heads; ++head) {
      float* split = query_of(step, s, row, head);
      std::fill_n(split, 2 * d, 0.0f);
      for (int g = 0; g < step.shape.group(); ++g) {
        const float* q = step.rows[row].query(head * step.shape.group() + g);
        for (int i = 0; i < d; ++i) split[q[i] > 0.0f ? i : d + i] += q[i];
      }
    }
  }

  void bound_pages(const Step& step, std::span<const RowPlan> plans, const PageStore& store,
                   QuestScratch& s, int head, int64_t item) const {
    const int64_t first = item * kPagesPerItem;
    const int64_t n = std::min(kPagesPerItem, s.n_pages - first);
    bool read = false;
    for (size_t row = 0; row < plans.size(); ++row) {
      if (plans[row].budget == 0) continue;
      dots(query_of(step, s, row, head), 2 * step.shape.head_dim,
           store.pages(head, step.first_cell / page_ + first), DType::f16, store.page_bytes(), n,
           bounds_of(step, s, row, head) + first);
      read = true;
    }
    if (read) {
      s.bytes.fetch_add(n * static_cast<int64_t>(store.page_bytes()), std::memory_order_relaxed);
    }
  }

  void choose(const Step& step, std::span<const RowPlan> plans, const CellIndex& index,
              QuestScratch& s, size_t row, int head, Selection& out) const {
    const int64_t left = plans[row].budget - std::ssize(s.forced.cells(row));
    float* bounds = bounds_of(step, s, row, head);
    int32_t newest = 0;
    if (last_ && index.newest(step.first_cell, plans[row].valid, 1, &newest) == 1) {
      bounds[newest / page_] = std::numeric_limits<float>::infinity();
    }
    BestKeys& best = s.best[row * step.shape.n_kv_heads + static_cast<size_t>(head)];
    best.reset(left == 0 ? 0 : std::max<int64_t>(1, left / page_));
    best.push(0, bounds, s.pages.data() + row * s.n_words, s.n_words * 64);

    // Whole pages; where not even one fits, its first cells. They end up merged with the forced.
    int32_t* cells = out.data(static_cast<int>(row), head);
    int64_t n = 0;
    for (const int32_t page : best.finish()) {
      uint64_t bits = cells_of(s.forced.free(row), page);
      for (; bits != 0 && n < left; bits &= bits - 1) {
        cells[n++] = page * page_ + std::countr_zero(bits);
      }
    }
    const auto forced = s.forced.cells(row);
    std::copy(forced.begin(), forced.end(), cells + n);
    std::sort(cells, cells + n + std::ssize(forced));
    out.set_count(static_cast<int>(row), head, n + std::ssize(forced));
  }

  static float* query_of(const Step& step, QuestScratch& s, size_t row, int head) {
    const size_t list = row * step.shape.n_kv_heads + static_cast<size_t>(head);
    return s.queries.data() + list * 2 * step.shape.head_dim;
  }
  static float* bounds_of(const Step& step, QuestScratch& s, size_t row, int head) {
    const size_t list = row * step.shape.n_kv_heads + static_cast<size_t>(head);
    return s.bounds.data() + list * s.n_words * 64;
  }

  std::string name_;
  Window window_;
  bool last_;
  int page_;
};

}  // namespace

std::shared_ptr<const Selector> make_quest(const Spec& spec) {
  return std::make_shared<Quest>(spec);
}

}  // namespace hata
