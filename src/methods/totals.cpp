#include "methods/totals.h"

#include <bit>

#include "cpu/rank.h"
#include "methods/logits.h"
#include "methods/row_plan.h"

namespace hata {
namespace {

constexpr size_t kRowsAtOnce = 16;  // they share the reading of keys
constexpr int64_t kKeysAtOnce = 64;

}  // namespace

AttentionTotals::AttentionTotals(const HeadShape& shape, int64_t n_cells)
    : shape_(shape),
      n_cells_(n_cells),
      all_(static_cast<size_t>(shape.n_kv_heads * n_cells)),
      last_(all_.size()),
      decoded_(all_.size()),
      stamps_(static_cast<size_t>(n_cells)) {
  queries_.reserve(static_cast<size_t>(n_cells));
}

size_t AttentionTotals::bytes() const {
  return (all_.size() + last_.size() + decoded_.size()) * sizeof(float) +
         stamps_.size() * sizeof(uint64_t);
}

void AttentionTotals::observe(const Step& step, const CellIndex& index, const Worker& worker) {
  if (worker.ith == 0) prepare(step, index);
  worker.barrier();
  worker.share(shape_.n_kv_heads,
               [&](int64_t head) { observe_head(step, static_cast<int>(head)); });
}

// Reads the masks; what is known of cells that were written since is forgotten.
void AttentionTotals::prepare(const Step& step, const CellIndex& index) {
  n_words_ = (step.n_kv + 63) / 64;
  valid_.resize(step.rows.size() * static_cast<size_t>(n_words_));
  logits_.resize(static_cast<size_t>(shape_.n_kv_heads) * kRowsAtOnce *
                 static_cast<size_t>(n_words_ * 64));
  std::vector<uint64_t> any(static_cast<size_t>(n_words_), 0);
  for (size_t row = 0; row < step.rows.size(); ++row) {
    uint64_t* words = valid_.data() + row * static_cast<size_t>(n_words_);
    valid_cells(step.rows[row].mask, step.n_kv, words);
    for (size_t w = 0; w < any.size(); ++w) any[w] |= words[w];
  }
  for (size_t w = 0; w < any.size(); ++w) {
    for (uint64_t left = any[w]; left != 0; left &= left - 1) {
      const int64_t cell = step.first_cell + static_cast<int64_t>(w) * 64 + std::countr_zero(left);
      if (saw(index, cell)) continue;
      stamps_[static_cast<size_t>(cell)] = index.stamp(cell);
      for (int head = 0; head < shape_.n_kv_heads; ++head) {
        all_[at(head, cell)] = last_[at(head, cell)] = decoded_[at(head, cell)] = 0.0f;
      }
    }
  }
}

void AttentionTotals::observe_head(const Step& step, int head) {
  const size_t n_rows = step.rows.size();
  float* logits = logits_.data() + static_cast<size_t>(head) * kRowsAtOnce * n_words_ * 64;
  // Fewer rows than the window's: what older rows voted counts for the rest of it.
  const size_t n_last = std::min<size_t>(n_rows, kLastRows);
  const float older = static_cast<float>(kLastRows - n_last) / kLastRows;
  const uint64_t* seen = valid_.data() + (n_rows - 1) * static_cast<size_t>(n_words_);
  for (int64_t cell = 0; cell < step.n_kv; ++cell) {
    if (seen[cell / 64] >> (cell % 64) & 1) last_[at(head, step.first_cell + cell)] *= older;
  }
  for (size_t row = 0; row < n_rows; row += kRowsAtOnce) {
    add_rows(step, head, row, std::min(kRowsAtOnce, n_rows - row), logits);
  }
}

void AttentionTotals::add_rows(const Step& step, int head, size_t first_row, size_t n_rows,
                               float* logits) {
  const int64_t n_padded = n_words_ * 64;
  for (int g = 0; g < shape_.group(); ++g) {
    const int q_head = head * shape_.group() + g;
    for (int64_t cell = 0; cell < step.n_kv; cell += kKeysAtOnce) {
      const int64_t n = std::min(kKeysAtOnce, step.n_kv - cell);
      for (size_t r = 0; r < n_rows; ++r) {
        const uint64_t word = valid_[(first_row + r) * n_words_ + cell / 64];
        float* to = logits + static_cast<int64_t>(r) * n_padded + cell;
        const float* q = step.rows[first_row + r].query(q_head);
        if (word != 0) logits_of(step, q, head, cell, n, to);
        mask_logits(to, &word, kKeysAtOnce);
      }
    }
    for (size_t r = 0; r < n_rows; ++r) {
      float* weights = logits + static_cast<int64_t>(r) * n_padded;
      const float max = largest(weights, n_padded);
      if (max == kNoLogit) continue;
      const float factor = 1.0f / exp_all(weights, n_padded, max);
      float* all = all_.data() + at(head, step.first_cell);
      for (int64_t i = 0; i < step.n_kv; ++i) all[i] += factor * weights[i];
      if (first_row + r + kLastRows < step.rows.size()) continue;
      float* last = last_.data() + at(head, step.first_cell);
      for (int64_t i = 0; i < step.n_kv; ++i) last[i] += factor * weights[i];
    }
  }
}

void AttentionTotals::observe_chosen(const Step& step, size_t row, int head,
                                     std::span<const int32_t> cells) {
  const auto logit = [&](const float* q, int32_t cell) {
    float x = 0.0f;
    logits_of(step, q, head, cell, 1, &x);
    return x;
  };
  for (int g = 0; g < shape_.group(); ++g) {
    const float* q = step.rows[row].query(head * shape_.group() + g);
    float max = kNoLogit;
    for (const int32_t cell : cells) max = std::max(max, logit(q, cell));
    float sum = 0.0f;
    for (const int32_t cell : cells) sum += std::exp(logit(q, cell) - max);
    for (const int32_t cell : cells) {
      decoded_[at(head, step.first_cell + cell)] += std::exp(logit(q, cell) - max) / sum;
    }
  }
}

void AttentionTotals::note_row(const Step& step, const CellIndex& index, const RowPlan& plan) {
  int32_t newest = 0;
  if (index.newest(step.first_cell, plan.valid, 1, &newest) == 0) return;
  const int64_t cell = step.first_cell + newest;
  const bool noted = !queries_.empty() && queries_.back().cell == cell;
  if (noted || queries_.size() == queries_.capacity()) return;
  queries_.push_back({cell, index.stamp(cell)});
}

void AttentionTotals::follow(const CellIndex& index) {
  const bool went_back = std::any_of(queries_.begin(), queries_.end(), [&](const QueryCell& query) {
    return index.stamp(query.cell) != query.stamp;
  });
  if (!went_back) return;
  std::fill(decoded_.begin(), decoded_.end(), 0.0f);
  queries_.clear();
}

bool AttentionTotals::covers(const Step& step, const CellIndex& index, const RowPlan& plan) const {
  int32_t oldest = 0;
  return index.oldest(step.first_cell, plan.valid, 1, &oldest) == 1 &&
         saw(index, step.first_cell + oldest);
}

}  // namespace hata
