#include "methods/prefill.h"

#include <algorithm>

#include "cpu/kernels.h"
#include "methods/sizes.h"
#include "methods/stopwatch.h"

namespace hata {
namespace {

constexpr uint16_t kMinusInfinity = 0xfc00;
constexpr int64_t kVectors = 96;     // query vectors of an item: they share the widening of keys
constexpr int64_t kFewVectors = 24;  // the fewest, where there are many threads
constexpr int64_t kItemsPerThread = 4;
constexpr int64_t kFloatsPerLine = 16;

using cpu::kPrefillTile;
using cpu::TileMask;

int64_t whole_lines(int64_t floats) { return ceil_div(floats, kFloatsPerLine) * kFloatsPerLine; }

TileMask tile_mask(const uint16_t* mask, int64_t n) {
  uint16_t adds = 0, sees = 0;  // not zero where a cell's mask does
  for (int64_t i = 0; i < n; ++i) {
    adds |= mask[i];
    sees |= mask[i] ^ kMinusInfinity;
  }
  if (sees == 0) return TileMask::none;
  return adds == 0 && n == kPrefillTile ? TileMask::all : TileMask::some;
}

}  // namespace

PrefillCounters& PrefillCounters::operator+=(const PrefillCounters& other) {
  steps += other.steps;
  rows += other.rows;
  ns += other.ns;
  return *this;
}

bool Prefill::fast() { return cpu::kernels().level != SimdLevel::scalar; }

void Prefill::prepare(const Step& step, int n_threads) {
  const HeadShape& shape = step.shape;
  const auto n_rows = static_cast<int64_t>(step.rows.size());
  n_tiles_ = cpu::prefill_tiles(step.n_kv);
  tiles_.resize(static_cast<size_t>(n_rows * n_tiles_));
  masks_.clear();
  for (const Row& row : step.rows) masks_.push_back(row.mask);
  slopes_.clear();
  for (int h = 0; h < shape.n_q_heads; ++h) {
    slopes_.push_back(alibi_slope(step.params.max_bias, shape.n_q_heads, h));
  }

  const int64_t vectors = n_rows * shape.n_q_heads;
  const int64_t wanted =
      std::clamp(ceil_div(vectors, kItemsPerThread * n_threads), kFewVectors, kVectors);
  rows_per_item_ = static_cast<int>(std::clamp<int64_t>(wanted / shape.group(), 1, n_rows));
  items_per_head_ = ceil_div(n_rows, rows_per_item_);

  const int64_t item_vectors = cpu::prefill_vectors(rows_per_item_, shape.group());
  thread_floats_ = whole_lines(item_vectors * 2 * (shape.head_dim + 1)) +
                   whole_lines(cpu::prefill_scratch(item_vectors, shape.head_dim));
  grow(memory_, static_cast<size_t>(thread_floats_ * n_threads + kFloatsPerLine));
}

void Prefill::read_mask(const Step& step, int64_t row) {
  const uint16_t* mask = masks_[static_cast<size_t>(row)];
  TileMask* tiles = &tiles_[static_cast<size_t>(row * n_tiles_)];
  for (int64_t t = 0; t < n_tiles_; ++t) {
    const int64_t n = std::min<int64_t>(kPrefillTile, step.n_kv - t * kPrefillTile);
    if (mask != nullptr) {
      tiles[t] = tile_mask(mask + t * kPrefillTile, n);
    } else {
      tiles[t] = n == kPrefillTile ? TileMask::all : TileMask::some;
    }
  }
}

/// The rows of one item, for one KV head.
void Prefill::run_item(const Step& step, int64_t item, int thread) {
  const int group = step.shape.group();
  const int head_dim = step.shape.head_dim;
  const auto kv_head = static_cast<int>(item / items_per_head_);
  const int64_t first = item % items_per_head_ * rows_per_item_;
  const int64_t left = static_cast<int64_t>(step.rows.size()) - first;
  const int n_rows = static_cast<int>(std::min<int64_t>(rows_per_item_, left));
  const auto rows = step.rows.subspan(static_cast<size_t>(first), static_cast<size_t>(n_rows));
  const int64_t vectors = cpu::prefill_vectors(n_rows, group);
  const int first_q_head = kv_head * group;

  const auto base = reinterpret_cast<uintptr_t>(memory_.data());
  float* q = reinterpret_cast<float*>((base + 63) / 64 * 64) + thread * thread_floats_;
  float* acc = q + vectors * head_dim;
  const Partial out{
      .max = acc + vectors * head_dim, .sum = acc + vectors * (head_dim + 1), .acc = acc};
  float* scratch = q + whole_lines(vectors * 2 * (head_dim + 1));

  std::fill_n(q, vectors * head_dim, 0.0f);
  for (int64_t v = 0; v < n_rows * group; ++v) {
    const Row& row = rows[static_cast<size_t>(v / group)];
    std::copy_n(row.query(first_q_head + static_cast<int>(v % group)), head_dim, q + v * head_dim);
  }
  attend_begin(out, static_cast<int>(vectors), head_dim);
  cpu::kernels().prefill({.n_rows = n_rows,
                          .heads = group,
                          .head_dim = head_dim,
                          .q = q,
                          .keys = step.keys,
                          .values = step.values,
                          .kv_head = kv_head,
                          .n_kv = step.n_kv,
                          .masks = &masks_[static_cast<size_t>(first)],
                          .tiles = &tiles_[static_cast<size_t>(first * n_tiles_)],
                          .slopes = &slopes_[first_q_head],
                          .params = step.params,
                          .scratch = scratch},
                         out);
  const float* sinks = step.params.sinks == nullptr ? nullptr : step.params.sinks + first_q_head;
  for (int r = 0; r < n_rows; ++r) {
    const Row& row = rows[static_cast<size_t>(r)];
    const Partial of_row{.max = out.max + r * group,
                         .sum = out.sum + r * group,
                         .acc = out.acc + static_cast<int64_t>(r) * group * head_dim};
    attend_finish(of_row, group, head_dim, sinks,
                  row.out + static_cast<size_t>(first_q_head) * row.out_head_stride,
                  row.out_head_stride);
  }
}

void Prefill::step(const Step& step, const Worker& worker) {
  Stopwatch watch;
  if (worker.ith == 0) prepare(step, worker.nth);
  worker.barrier();
  const auto n_rows = static_cast<int64_t>(step.rows.size());
  worker.share(n_rows, [&](int64_t row) { read_mask(step, row); });
  worker.share(step.shape.n_kv_heads * items_per_head_,
               [&](int64_t item) { run_item(step, item, worker.ith); });
  if (worker.ith == 0) counters_ += {.steps = 1, .rows = n_rows, .ns = watch.lap()};
}

}  // namespace hata
