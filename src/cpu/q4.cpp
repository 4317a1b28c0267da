#include "cpu/q4.h"

#include <algorithm>
#include <cmath>

#include "cpu/kernels.h"

namespace hata {

void q4_encode(int head_dim, const void* x, DType type, size_t stride, int64_t n, uint8_t* keys) {
  cpu::kernels().q4_encode(head_dim, q4_bytes(head_dim), x, type, stride, n, keys);
}

void q4_logits(const Q4Args& args) { cpu::kernels().q4_logits(args); }

namespace {

constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to integers

// One head and one block: `n` elements of q, of 8 a row.
void set_block(const float* q, int n, float scale, int head, int block, Q4Query& query) {
  float most = 0.0f;
  for (int i = 0; i < n; ++i) most = std::fabs(q[i]) > most ? std::fabs(q[i]) : most;
  const float inverse = most > 0.0f ? 127.0f / most : 0.0f;
  int sum = 0;
  for (int i = 0; i < n; ++i) {
    float x = q[i] * inverse;
    x = x < 127.0f ? x : 127.0f;  // a NaN becomes 127
    x = x > -127.0f ? x : -127.0f;
    const auto number = static_cast<int8_t>(x + kRound - kRound);
    query.numbers[head][i / 4 % 2][i / 8 * 16 + block * 4 + i % 4] = number;
    sum += number;
  }
  query.scales[4 * head + block] = most / 127.0f * scale;
  query.offsets[4 * head + block] = 15 * sum;
}

}  // namespace

void Q4Queries::set(const float* q, size_t stride, int group, int head_dim, float scale) {
  group_ = group;
  n_quads_ = (head_dim + kQ4Quad - 1) / kQ4Quad;
  key_bytes_ = q4_bytes(head_dim);
  queries_.assign(static_cast<size_t>((group + kQ4Heads - 1) / kQ4Heads * n_quads_), Q4Query{});
  for (int g = 0; g < group; ++g, q += stride) {
    for (int quad = 0; quad < n_quads_; ++quad) {
      const int first = quad * kQ4Quad;
      const int block_size = 8 * q4_rows(head_dim, first);
      for (int b = 0; b < 4 && first + b * block_size < head_dim; ++b) {
        const int from = first + b * block_size;
        set_block(q + from, std::min(block_size, head_dim - from), scale, g % kQ4Heads, b,
                  queries_[static_cast<size_t>(g / kQ4Heads * n_quads_ + quad)]);
      }
    }
  }
}

void Q4Queries::logits(const uint8_t* keys, std::span<const int32_t> cells, float* out,
                       int64_t out_stride) const {
  q4_logits({.queries = queries_.data(),
             .group = group_,
             .n_quads = n_quads_,
             .key_bytes = key_bytes_,
             .keys = keys,
             .cells = cells.data(),
             .n = std::ssize(cells),
             .out = out,
             .out_stride = out_stride});
}

}  // namespace hata
