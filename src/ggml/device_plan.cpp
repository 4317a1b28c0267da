#include "ggml/device_plan.h"

#include <algorithm>
#include <cstring>

#include "methods/sizes.h"

namespace hata::host {
namespace {

constexpr int kMask = 3;          // source of an attention node
constexpr int64_t kBitWords = 4;  // rows of bits start on 16 bytes

}  // namespace

PlanKey::PlanKey(const Attention& a, std::shared_ptr<const MaskBits> bits, const LayerCache& cache)
    : mask(std::move(bits)),
      n_rows(a.n_rows),
      n_streams(a.n_streams),
      first_cell(a.first_cell),
      stream_cells(a.stream_cells),
      kept_mass(cache.kept_mass.get()),
      history(cache.index.history()) {}

DevicePlan::DevicePlan(PlanKey key, const SparseRule& rule, const Attention& a)
    : key_(std::move(key)), rows_(static_cast<size_t>(key_.n_rows * key_.n_streams)) {
  const ggml_tensor* mask = a.node->src[kMask];
  for (int64_t r = 0; r < std::ssize(rows_); ++r) {
    int64_t of_mask = r;
    if (mask != nullptr) {  // it may have more rows, and one stream for all
      of_mask = (mask->ne[3] > 1 ? r / key_.n_rows * mask->ne[1] : 0) + r % key_.n_rows;
    }
    plan_row(r, of_mask, rule, a.shape.n_kv_heads);
  }
}

// As Decoder does it; but with needs by KV head, all heads get as many keys as the one that needs
// most.
void DevicePlan::plan_row(int64_t r, int64_t of_mask, const SparseRule& rule, int n_heads) {
  RowPlan& row = rows_[static_cast<size_t>(r)];
  row.valid = {key_.mask->row(of_mask), static_cast<size_t>(key_.mask->n_words())};
  row.n_valid = key_.mask->n_valid[static_cast<size_t>(of_mask)];
  int64_t budget = rule.budget.of(row.n_valid);
  if (rule.budget.mass > 0.0 && key_.kept_mass != nullptr) {
    budget = 0;
    for (int head = 0; head < n_heads; ++head) {
      budget = std::max(budget, rule.budget.of(row.n_valid, *key_.kept_mass, head));
    }
  }
  const bool sparse =
      row.n_valid >= rule.min_ctx && budget < row.n_valid && key_.first_cell % 64 == 0;
  if (sparse) row.budget = budget;
  sparse_ = sparse_ || sparse;
  most_keys_ = std::max(most_keys_, sparse ? budget : row.n_valid);
}

std::span<const RowPlan> DevicePlan::rows(int64_t stream) const {
  return std::span(rows_).subspan(static_cast<size_t>(stream * key_.n_rows),
                                  static_cast<size_t>(key_.n_rows));
}

bool DevicePlan::sparse(int64_t stream) const {
  const auto of_stream = rows(stream);
  return std::any_of(of_stream.begin(), of_stream.end(),
                     [](const RowPlan& row) { return row.budget > 0; });
}

// One block: [row][word] valid bits, forced bits, then [row] budgets and streams.
bool DevicePlan::upload(const Window& window, const CellIndex& index, int64_t codes_cells,
                        DeviceLane& lane) {
  const auto n_rows = std::ssize(rows_);
  const int64_t stride = ceil_div(n_kv(), 32 * kBitWords) * kBitWords;
  const int64_t bits = n_rows * stride;
  std::vector<uint32_t> words(static_cast<size_t>(2 * bits + 2 * n_rows), 0);
  uint32_t* valid = words.data();
  uint32_t* forced = valid + bits;
  uint32_t* budgets = forced + bits;
  uint32_t* sequences = budgets + n_rows;
  ForcedKeys keys;
  for (int64_t s = 0; s < key_.n_streams; ++s) {
    const auto of_stream = rows(s);
    Step step;
    step.first_cell = first_cell(s);
    keys.reset(of_stream);
    for (size_t t = 0; t < of_stream.size(); ++t) {
      const RowPlan& row = of_stream[t];
      const int64_t r = s * key_.n_rows + static_cast<int64_t>(t);
      std::memcpy(valid + r * stride, row.valid.data(),
                  static_cast<size_t>(ceil_div(n_kv(), 32)) * sizeof(uint32_t));
      budgets[r] = static_cast<uint32_t>(row.budget > 0 ? row.budget : row.n_valid);
      sequences[r] = static_cast<uint32_t>(step.first_cell / codes_cells);
      if (row.budget == 0) continue;
      keys.choose(window, step, of_stream, index, t);
      for (const int32_t cell : keys.cells(t)) {
        forced[r * stride + cell / 32] |= uint32_t{1} << (cell % 32);
      }
    }
  }
  const auto* block =
      static_cast<const uint32_t*>(lane.upload(words.data(), words.size() * sizeof(uint32_t)));
  if (block == nullptr) return false;
  on_device_ = {.valid = block,
                .forced = block + bits,
                .budgets = reinterpret_cast<const int32_t*>(block + 2 * bits),
                .sequences = reinterpret_cast<const int32_t*>(block + 2 * bits + n_rows),
                .bit_stride = stride};
  return true;
}

}  // namespace hata::host
