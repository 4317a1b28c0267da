#include "hata/attend.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/kernels.h"

namespace hata {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

/// exp(from - to), 0 where nothing was seen.
float rescale(float from, float to) { return from == kNone ? 0.0f : std::exp(from - to); }

}  // namespace

float alibi_slope(float max_bias, int n_heads, int h) {
  if (max_bias <= 0.0f) return 1.0f;
  // Powers of one ratio for the largest power of two of heads; the rest lie between them.
  int regular = 1;
  while (regular * 2 <= n_heads) regular *= 2;
  const float exponent =
      h < regular ? static_cast<float>(h + 1) : static_cast<float>(2 * (h - regular) + 1) / 2.0f;
  return std::exp2(-max_bias / static_cast<float>(regular) * exponent);
}

void attend_begin(const Partial& out, int heads, int head_dim) {
  std::fill_n(out.max, heads, kNone);
  std::fill_n(out.sum, heads, 0.0f);
  std::fill_n(out.acc, static_cast<size_t>(heads) * head_dim, 0.0f);
}

void attend(const AttendArgs& args, const Partial& out) { cpu::kernels().attend(args, out); }

void attend_merge(const Partial& into, const Partial& from, int heads, int head_dim) {
  for (int h = 0; h < heads; ++h) {
    const float max = std::max(into.max[h], from.max[h]);
    const float a = rescale(into.max[h], max);
    const float b = rescale(from.max[h], max);
    into.max[h] = max;
    into.sum[h] = into.sum[h] * a + from.sum[h] * b;
    float* to = into.acc + static_cast<size_t>(h) * head_dim;
    const float* add = from.acc + static_cast<size_t>(h) * head_dim;
    for (int i = 0; i < head_dim; ++i) to[i] = to[i] * a + add[i] * b;
  }
}

void attend_finish(const Partial& from, int heads, int head_dim, const float* sinks, float* out,
                   size_t out_stride) {
  for (int h = 0; h < heads; ++h) {
    float sum = from.sum[h];
    float weight = 1.0f;
    if (sinks != nullptr) {
      const float max = std::max(from.max[h], sinks[h]);
      weight = rescale(from.max[h], max);
      sum = sum * weight + rescale(sinks[h], max);
    }
    const float factor = sum > 0.0f ? weight / sum : 0.0f;
    const float* acc = from.acc + static_cast<size_t>(h) * head_dim;
    float* to = out + static_cast<size_t>(h) * out_stride;
    for (int i = 0; i < head_dim; ++i) to[i] = acc[i] * factor;
  }
}

}  // namespace hata
