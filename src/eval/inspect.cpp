#include "eval/inspect.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/f16.h"
#include "hata/encode.h"

namespace hata::eval {
namespace {

// Calls fn(cell) for every valid cell.
template <class Fn>
void for_each_valid(const RowPlan& plan, Fn&& fn) {
  for (size_t word = 0; word < plan.valid.size(); ++word) {
    for (uint64_t left = plan.valid[word]; left != 0; left &= left - 1) {
      fn(static_cast<size_t>(word * 64) + std::countr_zero(left));
    }
  }
}

template <class T>
T total(const std::array<T, kRegions>& parts) {
  return std::accumulate(parts.begin(), parts.end(), T{});
}

// Whether query head g of the group attends to the i-th chosen key: a bias of -inf says no.
bool attends(const Selection& selection, int row, int head, int g, size_t i) {
  if (!selection.has_bias()) return true;
  const float* bias = selection.bias(row, head) + g * selection.capacity();
  return bias[i] != -std::numeric_limits<float>::infinity();
}

double share(double part, double whole) {
  return whole > 0 ? part / whole : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

HeadCounts& HeadCounts::operator+=(const HeadCounts& other) {
  rows += other.rows;
  for (size_t r = 0; r < kRegions; ++r) {
    mass[r] += other.mass[r];
    kept[r] += other.kept[r];
    best[r] += other.best[r];
    found[r] += other.found[r];
  }
  return *this;
}

double HeadCounts::kept_mass() const { return share(total(kept), total(mass)); }
double HeadCounts::recall() const {
  return share(static_cast<double>(total(found)), static_cast<double>(total(best)));
}
double HeadCounts::far_recall() const {
  return share(static_cast<double>(found[kFar]), static_cast<double>(best[kFar]));
}

// Of one row and KV head; [cell].
struct Recorder::Memory {
  std::vector<float> logits;
  std::vector<double> mass;  // exact attention, mean over the group
  std::vector<double> kept;  // the same where the query head attends to the key
  std::vector<uint8_t> region;
  std::vector<int32_t> order;
  std::array<int32_t, kRecentKeys> window;

  void prepare(const Inspection& step, const RowPlan& plan);
  void logits_of(const Inspection& step, const Row& row, int head, int g);
  double softmax(const Inspection& step, const RowPlan& plan, int q_head);
};

void Recorder::Memory::prepare(const Inspection& step, const RowPlan& plan) {
  const auto n = static_cast<size_t>(step.step.n_kv);
  logits.resize(n);
  mass.assign(n, 0.0);
  kept.assign(n, 0.0);
  region.assign(n, kFar);
  const int64_t first = step.step.first_cell;
  const int recent = step.index.newest(first, plan.valid, kRecentKeys, window.data());
  for (int i = 0; i < recent; ++i) region[static_cast<size_t>(window[i])] = kRecent;
  const int sinks = step.index.oldest(first, plan.valid, kSinkKeys, window.data());
  for (int i = 0; i < sinks; ++i) region[static_cast<size_t>(window[i])] = kSinks;
}

void Recorder::Memory::logits_of(const Inspection& step, const Row& row, int head, int g) {
  const Step& s = step.step;
  const int q_head = head * s.shape.group() + g;
  const AttendParams& params = s.params;
  dots(row.q + static_cast<size_t>(q_head) * row.q_head_stride, s.shape.head_dim,
       s.keys.row(0, head), s.keys.type, s.keys.cell_stride, s.n_kv, logits.data());
  const float slope = alibi_slope(params.max_bias, s.shape.n_q_heads, q_head);
  for (size_t cell = 0; cell < logits.size(); ++cell) {
    float x = logits[cell] * params.scale;
    if (params.softcap > 0) x = params.softcap * std::tanh(x / params.softcap);
    if (row.mask != nullptr) x += slope * f16_to_f32(row.mask[cell]);
    logits[cell] = x;
  }
}

// Logits become weights; returns their sum, the attention sink's counted in.
double Recorder::Memory::softmax(const Inspection& step, const RowPlan& plan, int q_head) {
  const float* sinks = step.step.params.sinks;
  float max = sinks != nullptr ? sinks[q_head] : -std::numeric_limits<float>::infinity();
  for_each_valid(plan, [&](size_t cell) { max = std::max(max, logits[cell]); });
  double sum = sinks != nullptr ? std::exp(sinks[q_head] - max) : 0.0;
  for_each_valid(plan, [&](size_t cell) {
    logits[cell] = std::exp(logits[cell] - max);
    sum += logits[cell];
  });
  return sum;
}

Recorder::Recorder() : memory_(std::make_unique<Memory>()) {}
Recorder::~Recorder() = default;

void Recorder::see(const Inspection& step) {
  const int n_heads = step.step.shape.n_kv_heads;
  auto& counts = counts_[step.layer];
  counts.resize(static_cast<size_t>(n_heads));
  for (size_t row = 0; row < step.plans.size(); ++row) {
    if (step.plans[row].budget == 0) continue;
    for (int head = 0; head < n_heads; ++head) see_head(step, static_cast<int>(row), head);
  }
  if (!note_cells_ || step.plans.empty() || step.plans[0].budget == 0) return;
  auto& cells = cells_[step.layer];
  cells.clear();
  for (int head = 0; head < n_heads; ++head) {
    const auto chosen = step.selection.cells(0, head);
    cells.emplace_back(chosen.begin(), chosen.end());
  }
}

void Recorder::see_head(const Inspection& step, int row, int head) {
  Memory& m = *memory_;
  const RowPlan& plan = step.plans[static_cast<size_t>(row)];
  const auto chosen = step.selection.cells(row, head);
  const int group = step.step.shape.group();
  m.prepare(step, plan);
  for (int g = 0; g < group; ++g) {
    m.logits_of(step, step.step.rows[static_cast<size_t>(row)], head, g);
    const double weight = 1.0 / (group * m.softmax(step, plan, head * group + g));
    for_each_valid(plan, [&](size_t cell) { m.mass[cell] += weight * m.logits[cell]; });
    for (size_t i = 0; i < chosen.size(); ++i) {
      const auto at = static_cast<size_t>(chosen[i]);
      if (attends(step.selection, row, head, g, i)) m.kept[at] += weight * m.logits[at];
    }
  }
  HeadCounts& counts = counts_[step.layer][static_cast<size_t>(head)];
  ++counts.rows;
  m.order.clear();
  for_each_valid(plan, [&](size_t cell) {
    counts.mass[m.region[cell]] += m.mass[cell];
    counts.kept[m.region[cell]] += m.kept[cell];
    m.order.push_back(static_cast<int32_t>(cell));
  });
  const auto k = static_cast<int64_t>(std::min(chosen.size(), m.order.size()));
  const auto better = [&](int32_t a, int32_t b) {
    const double x = m.mass[static_cast<size_t>(a)], y = m.mass[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::nth_element(m.order.begin(), m.order.begin() + k, m.order.end(), better);
  for (int64_t i = 0; i < k; ++i) {
    const int32_t cell = m.order[static_cast<size_t>(i)];
    const uint8_t region = m.region[static_cast<size_t>(cell)];
    ++counts.best[region];
    counts.found[region] += std::binary_search(chosen.begin(), chosen.end(), cell);
  }
}

}  // namespace hata::eval
