#include "index/value_sums.h"

#include <algorithm>
#include <array>
#include <bit>

#include "index/cell_runs.h"
#include "index/rows.h"

namespace hata {
namespace {

constexpr uint64_t kAll = ~uint64_t{0};

void add(const float* from, int n, float* to) {
  for (int i = 0; i < n; ++i) to[i] += from[i];
}

// Adds the values of 64 cells from `first` on whose bit is set.
void add_cells(const CacheView& values, int64_t first, uint64_t bits, int head, int head_dim,
               float* to) {
  std::array<float, kMaxHeadDim> value;
  for (; bits != 0; bits &= bits - 1) {
    widen_row(values, first + std::countr_zero(bits), head, head_dim, value.data());
    add(value.data(), head_dim, to);
  }
}

}  // namespace

ValueSums::ValueSums(const HeadShape& shape, int64_t n_cells)
    : n_heads_(shape.n_kv_heads),
      head_dim_(shape.head_dim),
      n_blocks_((n_cells + kBlock - 1) / kBlock),
      n_supers_((n_blocks_ + kSuper - 1) / kSuper),
      known_(n_cells),
      blocks_(static_cast<size_t>(n_heads_ * n_blocks_ * head_dim_)),
      supers_(static_cast<size_t>(n_heads_ * n_supers_ * head_dim_)) {}

void ValueSums::update(const CacheView& values, std::span<const int32_t> cells,
                       const Worker& worker) {
  known_.add(cells, worker);
  share_blocks(cells, kBlock, n_heads_, worker, [&](int head, int64_t b) {
    std::fill_n(block(head, b), head_dim_, 0.0f);
    add_cells(values, b * kBlock, known_.word(b), head, head_dim_, block(head, b));
  });
  share_blocks(cells, kBlock * kSuper, n_heads_, worker, [&](int head, int64_t s) {
    std::fill_n(super(head, s), head_dim_, 0.0f);
    for (int64_t b = s * kSuper; b < std::min(n_blocks_, (s + 1) * kSuper); ++b) {
      add(block(head, b), head_dim_, super(head, s));
    }
  });
}

int64_t ValueSums::mean(const CacheView& values, int64_t first_cell,
                        std::span<const uint64_t> valid, int64_t n_valid, int head,
                        float* out) const {
  std::fill_n(out, head_dim_, 0.0f);
  const int64_t n_words = std::ssize(valid);
  int64_t sums = 0, rows = 0;
  for (int64_t word = 0; word < n_words;) {
    const int64_t b = first_cell / kBlock + word;
    const auto full = [](uint64_t bits) { return bits == kAll; };
    const auto at = valid.begin() + word;
    if (b % kSuper == 0 && word + kSuper <= n_words && std::all_of(at, at + kSuper, full)) {
      add(supers_.data() + (head * n_supers_ + b / kSuper) * head_dim_, head_dim_, out);
      ++sums;
      word += kSuper;
      continue;
    }
    if (*at == kAll) {
      add(blocks_.data() + (head * n_blocks_ + b) * head_dim_, head_dim_, out);
      ++sums;
    } else {
      add_cells(values, word * kBlock, *at, head, head_dim_, out);
      rows += std::popcount(*at);
    }
    ++word;
  }
  for (int i = 0; i < head_dim_; ++i) out[i] /= static_cast<float>(n_valid);
  return head_dim_ * (sums * static_cast<int64_t>(sizeof(float)) +
                      rows * static_cast<int64_t>(dtype_size(values.type)));
}

}  // namespace hata
