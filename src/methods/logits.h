// Logits of one query head, and what a softmax over them needs. ALiBi's part is left out.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "hata/encode.h"
#include "hata/selector.h"

namespace hata {

constexpr float kNoLogit = -std::numeric_limits<float>::infinity();

/// The soft cap of n logits, where there is one.
inline void cap_logits(const AttendParams& params, int64_t n, float* logits) {
  if (params.softcap <= 0.0f) return;
  for (int64_t i = 0; i < n; ++i) {
    logits[i] = params.softcap * std::tanh(logits[i] / params.softcap);
  }
}

/// Of the view's cells first .. first + n - 1.
inline void logits_of(const Step& step, const float* q, int kv_head, int64_t first, int64_t n,
                      float* out) {
  const AttendParams& params = step.params;
  dots(q, step.shape.head_dim, step.keys.row(first, kv_head), step.keys.type, step.keys.cell_stride,
       n, out);
  for (int64_t i = 0; i < n; ++i) out[i] *= params.scale;
  cap_logits(params, n, out);
}

/// -inf for the cells whose bit is not set; n is a multiple of 64.
inline void mask_logits(float* logits, const uint64_t* valid, int64_t n) {
  for (int64_t word = 0; word < n / 64; ++word) {
    if (valid[word] == ~uint64_t{0}) continue;
    for (int bit = 0; bit < 64; ++bit) {
      if ((valid[word] >> bit & 1) == 0) logits[word * 64 + bit] = kNoLogit;
    }
  }
}

/// n is a multiple of 16.
inline float largest(const float* x, int64_t n) {
  float lanes[16];
  std::fill_n(lanes, 16, kNoLogit);
  for (int64_t i = 0; i < n; i += 16) {
    for (int l = 0; l < 16; ++l) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  }
  return *std::max_element(lanes, lanes + 16);
}

}  // namespace hata
