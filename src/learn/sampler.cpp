#include "learn/sampler.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/f16.h"
#include "core/random.h"

namespace hata::learn {
namespace {

std::vector<int32_t> choose_positions(int64_t n_tokens, int n_queries, uint64_t seed) {
  Random random(seed);
  std::set<int32_t> chosen;
  const int64_t half = n_tokens / 2, eighth = n_tokens - n_tokens / 8;
  const auto room = static_cast<int>(std::min<int64_t>(n_queries, n_tokens - half));
  for (int64_t draw = 0; static_cast<int>(chosen.size()) < room; ++draw) {
    const int64_t first = draw % 2 == 0 && draw < 8 * n_queries ? eighth : half;
    const size_t further = random.below(static_cast<size_t>(n_tokens - first));
    chosen.insert(static_cast<int32_t>(first + static_cast<int64_t>(further)));
  }
  return {chosen.begin(), chosen.end()};
}

/// The row of `position` sees the cells 0 .. position, and no others.
bool sees_all_before(const Step& step, const hata::Row& row, int64_t position) {
  if (position >= step.n_kv) return false;
  if (row.mask == nullptr) return position + 1 == step.n_kv;
  const auto seen = [](uint16_t mask) { return mask != kF16NegInf; };
  const uint16_t* after = row.mask + position + 1;
  return std::all_of(row.mask, after, seen) && std::none_of(after, row.mask + step.n_kv, seen);
}

void copy_query(const hata::Row& row, size_t i, size_t n_queries, SampledDocument::Layer& out) {
  const auto d = static_cast<size_t>(out.shape.head_dim);
  const auto group = static_cast<size_t>(out.shape.group());
  for (size_t q_head = 0; q_head < static_cast<size_t>(out.shape.n_q_heads); ++q_head) {
    const float* q = row.q + q_head * row.q_head_stride;
    const size_t head = q_head / group;
    std::copy(q, q + d, out.queries.data() + ((head * n_queries + i) * group + q_head % group) * d);
  }
}

// Keys or values: f16 [KV head][n_keys][head_dim].
std::vector<uint16_t> copied(const CacheView& cache, int64_t n_keys, const HeadShape& shape) {
  const int d = shape.head_dim;
  std::vector<uint16_t> out(static_cast<size_t>(shape.n_kv_heads * n_keys * d));
  uint16_t* to = out.data();
  for (int head = 0; head < shape.n_kv_heads; ++head) {
    for (int64_t cell = 0; cell < n_keys; ++cell, to += d) {
      const std::byte* row = cache.row(cell, head);
      if (cache.type == DType::f16) {
        std::memcpy(to, row, sizeof(uint16_t) * static_cast<size_t>(d));
      } else {
        const auto* from = reinterpret_cast<const float*>(row);
        std::transform(from, from + d, to, f32_to_f16);
      }
    }
  }
  return out;
}

}  // namespace

Sampler::Sampler(int64_t n_tokens, int n_queries, uint64_t seed, bool with_values)
    : n_tokens_(n_tokens), with_values_(with_values) {
  document_.n_keys = n_tokens;
  document_.positions = choose_positions(n_tokens, n_queries, seed);
}

void Sampler::observe(int layer, const Step& step, int64_t first_position) {
  if (std::find(left_out_.begin(), left_out_.end(), layer) != left_out_.end()) return;
  const size_t n_queries = document_.positions.size();
  SampledDocument::Layer& out = document_.layers[layer];
  out.shape = step.shape;
  out.queries.resize(static_cast<size_t>(step.shape.n_q_heads) * n_queries *
                     static_cast<size_t>(step.shape.head_dim));
  for (size_t i = 0; i < n_queries; ++i) {
    const int64_t position = document_.positions[i];
    const int64_t at = position - first_position;
    if (at < 0 || at >= std::ssize(step.rows)) continue;
    const hata::Row& row = step.rows[static_cast<size_t>(at)];
    if (!sees_all_before(step, row, position)) {
      left_out_.push_back(layer);
      document_.layers.erase(layer);
      return;
    }
    copy_query(row, i, n_queries, out);
  }
  if (first_position + std::ssize(step.rows) < n_tokens_) return;
  out.keys = copied(step.keys, n_tokens_, step.shape);
  if (with_values_) out.values = copied(step.values, n_tokens_, step.shape);
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
