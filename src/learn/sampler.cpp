#include "learn/sampler.h"

#include <algorithm>
#include <random>
#include <set>

#include "core/f16.h"

namespace hata::learn {
namespace {

constexpr uint16_t kMinusInfinity = 0xfc00;

std::vector<int32_t> choose_positions(int64_t n_tokens, int n_queries, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::set<int32_t> chosen;
  const int64_t half = n_tokens / 2, eighth = n_tokens - n_tokens / 8;
  const auto room = static_cast<int>(std::min<int64_t>(n_queries, n_tokens - half));
  for (int64_t draw = 0; static_cast<int>(chosen.size()) < room; ++draw) {
    const int64_t first = draw % 2 == 0 && draw < 8 * n_queries ? eighth : half;
    chosen.insert(static_cast<int32_t>(
        first + static_cast<int64_t>(random() % static_cast<uint64_t>(n_tokens - first))));
  }
  return {chosen.begin(), chosen.end()};
}

/// The row of `position` sees the cells 0 .. position, and no others.
bool sees_all_before(const Step& step, const hata::Row& row, int64_t position) {
  if (position >= step.n_kv) return false;
  if (row.mask == nullptr) return position + 1 == step.n_kv;
  const auto end = row.mask + step.n_kv;
  return std::find(row.mask, row.mask + position + 1, kMinusInfinity) == row.mask + position + 1 &&
         std::find_if(row.mask + position + 1, end,
                      [](uint16_t m) { return m != kMinusInfinity; }) == end;
}

}  // namespace

Sampler::Sampler(int64_t n_tokens, int n_queries, uint64_t seed) : n_tokens_(n_tokens) {
  document_.n_keys = n_tokens;
  document_.positions = choose_positions(n_tokens, n_queries, seed);
}

void Sampler::observe(int layer, const Step& step, int64_t first_position) {
  if (std::find(left_out_.begin(), left_out_.end(), layer) != left_out_.end()) return;
  const HeadShape& shape = step.shape;
  const auto d = static_cast<size_t>(shape.head_dim);
  const auto group = static_cast<size_t>(shape.group());
  const size_t n_queries = document_.positions.size();
  SampledDocument::Layer& out = document_.layers[layer];
  out.shape = shape;
  out.queries.resize(static_cast<size_t>(shape.n_q_heads) * n_queries * d);

  for (size_t i = 0; i < n_queries; ++i) {
    const int64_t position = document_.positions[i];
    const int64_t at = position - first_position;
    if (at < 0 || at >= static_cast<int64_t>(step.rows.size())) continue;
    const hata::Row& row = step.rows[static_cast<size_t>(at)];
    if (!sees_all_before(step, row, position)) {
      left_out_.push_back(layer);
      document_.layers.erase(layer);
      return;
    }
    for (size_t q_head = 0; q_head < static_cast<size_t>(shape.n_q_heads); ++q_head) {
      const float* q = row.q + q_head * row.q_head_stride;
      const size_t head = q_head / group;
      std::copy(q, q + d,
                out.queries.data() + ((head * n_queries + i) * group + q_head % group) * d);
    }
  }
  if (first_position + static_cast<int64_t>(step.rows.size()) < n_tokens_) return;

  const auto n_keys = static_cast<size_t>(n_tokens_);
  out.keys.resize(static_cast<size_t>(shape.n_kv_heads) * n_keys * d);
  for (int head = 0; head < shape.n_kv_heads; ++head) {
    for (size_t cell = 0; cell < n_keys; ++cell) {
      const std::byte* key = step.keys.row(static_cast<int64_t>(cell), head);
      uint16_t* to = out.keys.data() + (static_cast<size_t>(head) * n_keys + cell) * d;
      if (step.keys.type == DType::f16) {
        const auto* from = reinterpret_cast<const uint16_t*>(key);
        std::copy(from, from + d, to);
      } else {
        const auto* from = reinterpret_cast<const float*>(key);
        for (size_t i = 0; i < d; ++i) to[i] = f32_to_f16(from[i]);
      }
    }
  }
}

SampledDocument Sampler::take() {
  std::erase_if(document_.layers, [](const auto& layer) { return layer.second.keys.empty(); });
  if (document_.layers.empty()) {
    throw Error(
        "no layer could be sampled: none of the model's attention goes through this library"
        " with all keys in view (hata info MODEL says why)");
  }
  return std::move(document_);
}

}  // namespace hata::learn
