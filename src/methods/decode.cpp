#include "hata/decode.h"

#include <algorithm>
#include <bit>

#include "methods/row_plan.h"
#include "methods/sizes.h"
#include "methods/stopwatch.h"
#include "methods/totals.h"

namespace hata {
namespace {

constexpr int64_t kPlanCells = 16384;  // cells of a mask read per item
constexpr int64_t kSparseChunk = 256;  // chosen keys per item
constexpr int64_t kDenseTile = 128;    // cells attended to for one head before the next
constexpr int64_t kDenseChunk = 256;   // fewest cells per item
constexpr int64_t kDenseChunks = 64;   // most items per row
constexpr int64_t kHeadsApart = 4096;  // below this many cells, heads are items of their own
constexpr int kFloatsPerLine = 16;

bool is_observed(const Step& step, const LayerCache& cache, const RowPlan& plan) {
  return cache.totals != nullptr && cache.totals->covers(step, cache.index, plan);
}

// A part of the attention of one step. Chunks depend on the step alone, never on the threads: so
// does the order of merging, and with it the result.
struct Job {
  int row;   // -1: all dense rows, which share the reading of keys and values
  int head;  // -1: all KV heads, which lie side by side in memory
  int64_t chunk;
};

}  // namespace

struct Decoder::Impl {
  explicit Impl(std::shared_ptr<const Selector> s)
      : selector(std::move(s)), selector_scratch(selector->make_scratch()) {}

  // --- the phases of a step, in order -------------------------------------------------------
  void prepare(const Step& step, int n_threads);
  void count_valid(const Step& step, int64_t item);
  void plan_rows(const Step& step, LayerCache* cache, const SparseRule& rule);
  int64_t plan_budget(const Step& step, const LayerCache* cache, const Budget& budget, size_t row);
  void refresh(const Step& step, LayerCache& cache, const Worker& worker);
  void plan_jobs(const Step& step);
  void attend_job(const Step& step, const Job& job, int thread);
  void finish(const Step& step, int row, int head);
  void blend(const Step& step, int row, int head, float* out);
  void count(const Step& step, int64_t attend_ns);

  // --- parts of attend_job ------------------------------------------------------------------
  void attend_chosen(const Step& step, const Job& job, float* scratch);
  void attend_all(const Step& step, const Job& job, float* scratch);
  AttendArgs args_for(const Step& step, int row, int head, float* scratch) const;
  Partial partial(const Step& step, int row, int head, int64_t chunk);
  int64_t n_chunks(int row) const;

  std::shared_ptr<const Selector> selector;
  std::unique_ptr<Selector::Scratch> selector_scratch;
  Selection selection;
  StageCounters counters;

  int64_t n_words = 0;                // of a row's valid bits
  int64_t n_parts = 0;                // of a row's mask
  std::vector<uint64_t> valid;        // [row][n_words]
  std::vector<int64_t> n_valid;       // [row][n_parts]
  std::vector<RowPlan> plans;         // [row]
  std::vector<int64_t> head_budgets;  // [row][KV head]
  std::vector<int32_t> stale;
  std::vector<float> slopes;  // [n_q_heads]
  bool any_sparse = false;
  bool any_dense = false;
  int64_t chunk_cells = 0;  // of a dense chunk
  int64_t dense_chunks = 0;
  int64_t max_chunks = 0;  // of any row
  std::vector<Job> jobs;
  std::vector<float> partials;  // [row][KV head][max_chunks][partial_floats]
  int64_t partial_floats = 0;
  std::vector<float> scratch;  // [thread][scratch_floats]
  int64_t scratch_floats = 0;
};

void Decoder::Impl::prepare(const Step& step, int n_threads) {
  const size_t n_rows = step.rows.size();
  n_words = ceil_div(step.n_kv, 64);
  n_parts = ceil_div(step.n_kv, kPlanCells);
  valid.resize(n_rows * static_cast<size_t>(n_words));
  n_valid.assign(n_rows * static_cast<size_t>(n_parts), 0);
  plans.assign(n_rows, RowPlan{});
  grow(head_budgets, n_rows * static_cast<size_t>(step.shape.n_kv_heads));
  const int n_q_heads = step.shape.n_q_heads;
  slopes.resize(static_cast<size_t>(n_q_heads));
  for (int h = 0; h < n_q_heads; ++h) {
    slopes[static_cast<size_t>(h)] = alibi_slope(step.params.max_bias, n_q_heads, h);
  }
  const int64_t keys_at_once = std::max(kSparseChunk, kDenseTile);
  const int64_t group = step.shape.group();
  scratch_floats = group * attend_scratch(keys_at_once);
  grow(scratch, static_cast<size_t>(scratch_floats * n_threads) + kFloatsPerLine);
  partial_floats = ceil_div(group * (step.shape.head_dim + 2), kFloatsPerLine) * kFloatsPerLine;
}

void Decoder::Impl::count_valid(const Step& step, int64_t item) {
  const int64_t row = item / n_parts;
  const int64_t first = item % n_parts * kPlanCells;
  const uint16_t* mask = step.rows[static_cast<size_t>(row)].mask;
  n_valid[static_cast<size_t>(item)] =
      valid_cells(mask == nullptr ? nullptr : mask + first, std::min(kPlanCells, step.n_kv - first),
                  &valid[row * n_words + first / 64]);
}

// A row's budget; with needs by KV head, theirs are noted in its plan, and the largest is its own.
int64_t Decoder::Impl::plan_budget(const Step& step, const LayerCache* cache, const Budget& budget,
                                   size_t row) {
  RowPlan& plan = plans[row];
  if (budget.mass == 0.0 || cache == nullptr || cache->kept_mass == nullptr) {
    return budget.of(plan.n_valid);
  }
  const auto n_heads = static_cast<size_t>(step.shape.n_kv_heads);
  const std::span<int64_t> of_row(head_budgets.data() + row * n_heads, n_heads);
  for (size_t head = 0; head < n_heads; ++head) {
    of_row[head] = budget.of(plan.n_valid, *cache->kept_mass, static_cast<int>(head));
  }
  plan.head_budgets = of_row;
  return *std::max_element(of_row.begin(), of_row.end());
}

void Decoder::Impl::plan_rows(const Step& step, LayerCache* cache, const SparseRule& rule) {
  // The index and the codes are read in blocks of 64 cells.
  const bool may_be_sparse = cache != nullptr && cache->why_dense.empty() && selector->sparse() &&
                             step.first_cell % 64 == 0;
  int64_t capacity = 0;
  any_sparse = any_dense = false;
  for (size_t row = 0; row < plans.size(); ++row) {
    RowPlan& plan = plans[row];
    plan.valid = {&valid[row * n_words], static_cast<size_t>(n_words)};
    for (int64_t part = 0; part < n_parts; ++part) plan.n_valid += n_valid[row * n_parts + part];
    const int64_t budget = plan_budget(step, cache, rule.budget, row);
    bool sparse = may_be_sparse && plan.n_valid >= rule.min_ctx && budget < plan.n_valid;
    if (sparse && selector->needs_totals() && !is_observed(step, *cache, plan)) {
      sparse = false;
      ++counters.unobserved_rows;
    }
    if (sparse) {
      plan.budget = budget;
      capacity = std::max(capacity, budget);
      any_sparse = true;
    } else {
      any_dense = true;
    }
  }
  if (any_sparse) {
    selection.reset(static_cast<int>(plans.size()), step.shape, capacity);
    if (cache->store != nullptr) {
      cache->index.stale(step.first_cell, step.first_cell + step.n_kv, stale);
    }
  }
}

void Decoder::Impl::refresh(const Step& step, LayerCache& cache, const Worker& worker) {
  if (cache.store == nullptr || stale.empty()) return;
  const auto from_cell_0 = [&](CacheView view) {
    view.data -= static_cast<size_t>(step.first_cell) * view.cell_stride;
    return view;
  };
  cache.store->update(from_cell_0(step.keys), from_cell_0(step.values), stale, worker);
  if (worker.ith == 0) {
    cache.index.refreshed(step.first_cell, step.first_cell + step.n_kv);
  }
}

int64_t Decoder::Impl::n_chunks(int row) const {
  const int64_t budget = plans[static_cast<size_t>(row)].budget;
  return budget > 0 ? ceil_div(budget, kSparseChunk) : dense_chunks;
}

void Decoder::Impl::plan_jobs(const Step& step) {
  const int n_heads = step.shape.n_kv_heads;
  const auto n_rows = static_cast<int>(plans.size());
  chunk_cells = std::max(kDenseChunk, ceil_div(ceil_div(step.n_kv, kDenseChunks), 64) * 64);
  dense_chunks = any_dense ? ceil_div(step.n_kv, chunk_cells) : 0;
  jobs.clear();
  max_chunks = 0;
  if (any_dense) {
    const bool heads_apart = step.n_kv < kHeadsApart;
    for (int64_t chunk = 0; chunk < dense_chunks; ++chunk) {
      for (int head = heads_apart ? 0 : -1; head < (heads_apart ? n_heads : 0); ++head) {
        jobs.push_back({-1, head, chunk});
      }
    }
  }
  for (int row = 0; row < n_rows; ++row) {
    max_chunks = std::max(max_chunks, n_chunks(row));
    if (plans[static_cast<size_t>(row)].budget == 0) continue;
    for (int head = 0; head < n_heads; ++head) {
      for (int64_t chunk = 0; chunk < n_chunks(row); ++chunk) jobs.push_back({row, head, chunk});
    }
  }
  grow(partials, static_cast<size_t>(n_rows * n_heads * max_chunks * partial_floats));
}

Partial Decoder::Impl::partial(const Step& step, int row, int head, int64_t chunk) {
  const int group = step.shape.group();
  float* at = partials.data() +
              ((static_cast<int64_t>(row) * step.shape.n_kv_heads + head) * max_chunks + chunk) *
                  partial_floats;
  return {.max = at, .sum = at + group, .acc = at + 2 * group};
}

AttendArgs Decoder::Impl::args_for(const Step& step, int row, int head, float* job_scratch) const {
  const int group = step.shape.group();
  const Row& r = step.rows[static_cast<size_t>(row)];
  const int first_q_head = head * group;
  return {.heads = group,
          .head_dim = step.shape.head_dim,
          .q = r.query(first_q_head),
          .q_stride = r.q_head_stride,
          .keys = step.keys,
          .values = step.values,
          .kv_head = head,
          .cells = nullptr,
          .first_cell = 0,
          .count = 0,
          .mask = r.mask,
          .slopes = slopes.data() + first_q_head,
          .params = step.params,
          .scratch = job_scratch};
}

void Decoder::Impl::attend_job(const Step& step, const Job& job, int thread) {
  auto base = reinterpret_cast<uintptr_t>(scratch.data());
  base = (base + 63) / 64 * 64;
  float* job_scratch = reinterpret_cast<float*>(base) + thread * scratch_floats;
  if (job.row >= 0) {
    attend_chosen(step, job, job_scratch);
  } else {
    attend_all(step, job, job_scratch);
  }
}

void Decoder::Impl::attend_chosen(const Step& step, const Job& job, float* job_scratch) {
  const auto cells = selection.cells(job.row, job.head);
  const Partial out = partial(step, job.row, job.head, job.chunk);
  attend_begin(out, step.shape.group(), step.shape.head_dim);
  const int64_t first = job.chunk * kSparseChunk;
  AttendArgs args = args_for(step, job.row, job.head, job_scratch);
  args.cells = cells.data() + first;
  args.count = std::min(kSparseChunk, static_cast<int64_t>(cells.size()) - first);
  if (selection.has_bias()) {
    args.bias = selection.bias(job.row, job.head) + first;
    args.bias_stride = static_cast<size_t>(selection.capacity());
  }
  if (args.count > 0) attend(args, out);
}

void Decoder::Impl::attend_all(const Step& step, const Job& job, float* job_scratch) {
  const auto n_rows = static_cast<int>(plans.size());
  const int first_head = job.head < 0 ? 0 : job.head;
  const int last_head = job.head < 0 ? step.shape.n_kv_heads : job.head + 1;
  for (int row = 0; row < n_rows; ++row) {
    if (plans[static_cast<size_t>(row)].budget > 0) continue;
    for (int head = first_head; head < last_head; ++head) {
      attend_begin(partial(step, row, head, job.chunk), step.shape.group(), step.shape.head_dim);
    }
  }
  const int64_t end = std::min(step.n_kv, (job.chunk + 1) * chunk_cells);
  for (int64_t cell = job.chunk * chunk_cells; cell < end; cell += kDenseTile) {
    const int64_t n = std::min(kDenseTile, end - cell);
    for (int row = 0; row < n_rows; ++row) {
      const RowPlan& plan = plans[static_cast<size_t>(row)];
      if (plan.budget > 0) continue;
      const uint64_t* words = plan.valid.data() + cell / 64;
      if (words[0] == 0 && (n <= 64 || words[1] == 0)) continue;
      for (int head = first_head; head < last_head; ++head) {
        AttendArgs args = args_for(step, row, head, job_scratch);
        args.first_cell = cell;
        args.count = n;
        attend(args, partial(step, row, head, job.chunk));
      }
    }
  }
}

void Decoder::Impl::finish(const Step& step, int row, int head) {
  const int group = step.shape.group();
  const Partial all = partial(step, row, head, 0);
  for (int64_t chunk = 1; chunk < n_chunks(row); ++chunk) {
    attend_merge(all, partial(step, row, head, chunk), group, step.shape.head_dim);
  }
  const Row& r = step.rows[static_cast<size_t>(row)];
  const int first_q_head = head * group;
  const float* sinks = step.params.sinks == nullptr ? nullptr : step.params.sinks + first_q_head;
  float* out = r.out + static_cast<size_t>(first_q_head) * r.out_head_stride;
  attend_finish(all, group, step.shape.head_dim, sinks, out, r.out_head_stride);
  if (selection.has_blend() && plans[static_cast<size_t>(row)].budget > 0) {
    blend(step, row, head, out);
  }
}

void Decoder::Impl::blend(const Step& step, int row, int head, float* out) {
  const float* mean = selection.mean(row, head);
  for (int g = 0; g < step.shape.group(); ++g) {
    const float share = selection.share(row, head)[g];
    float* to = out + static_cast<size_t>(g) * step.rows[static_cast<size_t>(row)].out_head_stride;
    for (int i = 0; i < step.shape.head_dim; ++i) to[i] = share * to[i] + (1.0f - share) * mean[i];
  }
}

void Decoder::Impl::count(const Step& step, int64_t attend_ns) {
  counters.attend_ns += attend_ns;
  const int n_heads = step.shape.n_kv_heads;
  const int64_t key_bytes =
      step.shape.head_dim *
      static_cast<int64_t>(dtype_size(step.keys.type) + dtype_size(step.values.type));
  for (size_t row = 0; row < plans.size(); ++row) {
    const RowPlan& plan = plans[row];
    int64_t attended = 0;  // by all KV heads
    for (int head = 0; head < n_heads; ++head) {
      attended += plan.budget == 0 ? plan.n_valid
                                   : std::ssize(selection.cells(static_cast<int>(row), head));
    }
    counters.keys_attended += attended / n_heads;
    counters.keys_valid += plan.n_valid;
    counters.attend_bytes += attended * key_bytes;
    counters.dense_bytes += plan.n_valid * n_heads * key_bytes;
    (plan.budget > 0 ? counters.sparse_rows : counters.dense_rows) += 1;
  }
}

Decoder::Decoder(std::shared_ptr<const Selector> selector)
    : impl_(std::make_unique<Impl>(std::move(selector))) {}
Decoder::~Decoder() = default;

void Decoder::step(const Step& step, LayerCache* cache, const SparseRule& rule,
                   const Worker& worker) {
  Impl& impl = *impl_;
  const auto n_rows = static_cast<int64_t>(step.rows.size());
  Stopwatch watch;

  if (worker.ith == 0) impl.prepare(step, worker.nth);
  worker.barrier();
  worker.share(n_rows * impl.n_parts, [&](int64_t item) { impl.count_valid(step, item); });
  if (worker.ith == 0) {
    impl.plan_rows(step, cache, rule);
    impl.plan_jobs(step);
  }
  worker.barrier();

  if (impl.any_sparse) {
    impl.refresh(step, *cache, worker);
    if (worker.ith == 0) impl.counters.encode_ns += watch.lap();
    impl.selector->select(step, impl.plans, *cache, *impl.selector_scratch, impl.selection,
                          impl.counters, worker);
  }

  watch.lap();
  worker.share(static_cast<int64_t>(impl.jobs.size()), [&](int64_t i) {
    impl.attend_job(step, impl.jobs[static_cast<size_t>(i)], worker.ith);
  });
  worker.share(n_rows * step.shape.n_kv_heads, [&](int64_t i) {
    impl.finish(step, static_cast<int>(i / step.shape.n_kv_heads),
                static_cast<int>(i % step.shape.n_kv_heads));
  });
  if (worker.ith == 0) impl.count(step, watch.lap());
}

const StageCounters& Decoder::counters() const { return impl_->counters; }
void Decoder::reset_counters() { impl_->counters = {}; }
const Selector& Decoder::selector() const { return *impl_->selector; }
const Selection& Decoder::selection() const { return impl_->selection; }
std::span<const RowPlan> Decoder::plans() const { return impl_->plans; }

}  // namespace hata
