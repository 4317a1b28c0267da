#include "ggml/device_plan.h"

#include <algorithm>
#include <cstring>

#include "methods/sizes.h"

namespace hata::host {
namespace {

constexpr int64_t kBitWords = 4;  // rows of bits start on 16 bytes

/// Its valid cells are the first ones.
bool is_prefix(const RowPlan& row) {
  const int64_t whole = row.n_valid / 64;
  const auto words = row.valid.first(static_cast<size_t>(whole));
  if (std::any_of(words.begin(), words.end(), [](uint64_t word) { return ~word != 0; })) {
    return false;
  }
  const int64_t rest = row.n_valid % 64;
  return rest == 0 || row.valid[static_cast<size_t>(whole)] == (uint64_t{1} << rest) - 1;
}

/// The cells (ascending) are the first `sink` and the last `recent` of n.
bool at_both_ends(std::span<const int32_t> cells, int64_t sink, int64_t recent, int64_t n) {
  if (std::ssize(cells) != sink + recent) return false;
  for (int64_t i = 0; i < std::ssize(cells); ++i) {
    if (cells[static_cast<size_t>(i)] != (i < sink ? i : n - sink - recent + i)) return false;
  }
  return true;
}

}  // namespace

PlanKey::PlanKey(const Attention& a, std::shared_ptr<const MaskBits> bits, const LayerCache& cache,
                 const Window& forced)
    : mask(std::move(bits)),
      n_rows(a.n_rows),
      n_streams(a.n_streams),
      first_cell(a.first_cell),
      stream_cells(a.stream_cells),
      kept_mass(cache.kept_mass.get()),
      history(cache.index.history()),
      window(forced) {}

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

bool DevicePlan::upload(const CellIndex& index, int64_t codes_cells, DeviceLane& lane) {
  on_device_ = {};
  on_device_.max_n_kv = static_cast<int>(n_kv());
  if (!is_plain(index) && !upload_bits(index, lane)) return false;
  return upload_rows(codes_cells, lane);
}

// Every row chooses among its first cells, and all keep equally many at both ends.
bool DevicePlan::is_plain(const CellIndex& index) {
  const Window& window = key_.window;
  ForcedKeys forced;
  int64_t longest = 0;
  for (int64_t s = 0; s < key_.n_streams; ++s) {
    const auto of_stream = rows(s);
    Step step;
    step.first_cell = first_cell(s);
    forced.reset(of_stream);
    for (size_t t = 0; t < of_stream.size(); ++t) {
      const RowPlan& row = of_stream[t];
      if (row.budget == 0 || !is_prefix(row)) return false;
      const auto [sink, recent] = window.of(row.budget);
      if (longest == 0) {
        on_device_.sink = static_cast<int>(sink);
        on_device_.recent = static_cast<int>(recent);
      } else if (on_device_.sink != sink || on_device_.recent != recent) {
        return false;
      }
      forced.choose(window, step, of_stream, index, t);
      if (!at_both_ends(forced.cells(t), sink, recent, row.n_valid)) return false;
      longest = std::max(longest, row.n_valid);
    }
  }
  on_device_.max_n_kv = static_cast<int>(longest);
  return true;
}

// [row][word] valid bits, then forced ones.
bool DevicePlan::upload_bits(const CellIndex& index, DeviceLane& lane) {
  const int64_t stride = ceil_div(n_kv(), 32 * kBitWords) * kBitWords;
  const int64_t bits = std::ssize(rows_) * stride;
  std::vector<uint32_t> words(static_cast<size_t>(2 * bits), 0);
  uint32_t* valid = words.data();
  uint32_t* forced = valid + bits;
  ForcedKeys keys;
  for (int64_t s = 0; s < key_.n_streams; ++s) {
    const auto of_stream = rows(s);
    Step step;
    step.first_cell = first_cell(s);
    keys.reset(of_stream);
    for (size_t t = 0; t < of_stream.size(); ++t) {
      const int64_t r = s * key_.n_rows + static_cast<int64_t>(t);
      std::memcpy(valid + r * stride, of_stream[t].valid.data(),
                  static_cast<size_t>(ceil_div(n_kv(), 32)) * sizeof(uint32_t));
      if (of_stream[t].budget == 0) continue;
      keys.choose(key_.window, step, of_stream, index, t);
      for (const int32_t cell : keys.cells(t)) {
        forced[r * stride + cell / 32] |= uint32_t{1} << (cell % 32);
      }
    }
  }
  const auto* block =
      static_cast<const uint32_t*>(lane.upload(words.data(), words.size() * sizeof(uint32_t)));
  if (block == nullptr) return false;
  on_device_.valid = block;
  on_device_.forced = block + bits;
  on_device_.bit_stride = stride;
  return true;
}

// [row] budgets, streams, numbers of keys.
bool DevicePlan::upload_rows(int64_t codes_cells, DeviceLane& lane) {
  const size_t n_rows = rows_.size();
  std::vector<int32_t> numbers(3 * n_rows);
  for (size_t r = 0; r < n_rows; ++r) {
    const RowPlan& row = rows_[r];
    const int64_t stream = static_cast<int64_t>(r) / key_.n_rows;
    numbers[r] = static_cast<int32_t>(row.budget > 0 ? row.budget : row.n_valid);
    numbers[n_rows + r] = static_cast<int32_t>(first_cell(stream) / codes_cells);
    numbers[2 * n_rows + r] = static_cast<int32_t>(row.n_valid);
  }
  const auto* block =
      static_cast<const int32_t*>(lane.upload(numbers.data(), numbers.size() * sizeof(int32_t)));
  if (block == nullptr) return false;
  on_device_.budgets = block;
  on_device_.sequences = block + n_rows;
  if (!by_bits()) on_device_.n_kv = block + 2 * n_rows;
  return true;
}

}  // namespace hata::host
