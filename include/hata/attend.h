// Stage 4, attend: softmax(scale * q.k + mask) v over chosen keys, or over all of them (dense
// attention, "the exact path"). f32 accumulation, stable softmax, result independent of the number
// of threads.
#pragma once

#include <cstdint>

#include "hata/types.h"

namespace hata {

/// How logits become weights; the same for all rows of a step.
struct AttendParams {
  float scale = 1.0f;
  float softcap = 0.0f;          ///< > 0: logit = softcap * tanh(scale * q.k / softcap)
  float max_bias = 0.0f;         ///< > 0: ALiBi; the mask is multiplied by the head's slope
  const float* sinks = nullptr;  ///< [n_q_heads], an extra logit without a value per query head
};

/// ALiBi's slope of query head h of n_heads; 1 where max_bias is 0.
float alibi_slope(float max_bias, int n_heads, int h);

/// A softmax over some keys that can still be merged with one over others:
/// maximum logit, sum of exp(logit - maximum), and the weighted sum of values [head_dim].
struct Partial {
  float* max;  ///< [heads]
  float* sum;  ///< [heads]
  float* acc;  ///< [heads][head_dim]
};

/// Sets `heads` heads of `out` to "no key seen yet".
void attend_begin(const Partial& out, int heads, int head_dim);

/// Folds `count` keys of one KV head into `out`, for the `heads` query heads that read it.
/// q: [heads] rows, q_stride floats apart. cells: the keys' cells (ascending), or nullptr for
/// first_cell, first_cell + 1, ... mask: f16 per cell of the cache (index: the cell), nullptr for
/// none; cells whose mask is -inf take no part. slopes: [heads] ALiBi slopes. bias: added to the
/// logit of head h and the j-th key, bias[h * bias_stride + j], nullptr for none; -inf: not for
/// this head.
struct AttendArgs {
  int heads;
  int head_dim;
  const float* q;
  size_t q_stride;
  CacheView keys;
  CacheView values;
  int kv_head;
  const int32_t* cells;
  int64_t first_cell;
  int64_t count;
  const uint16_t* mask;
  const float* slopes;
  AttendParams params;
  float* scratch;  ///< [heads][attend_scratch(count)] floats, 64-byte aligned
  const float* bias = nullptr;
  size_t bias_stride = 0;
};
void attend(const AttendArgs& args, const Partial& out);

/// Floats of scratch per query head for `count` keys.
constexpr int64_t attend_scratch(int64_t count) { return (count + 31) / 32 * 32; }

/// Folds `from` into `into` (both of `heads` heads).
void attend_merge(const Partial& into, const Partial& from, int heads, int head_dim);

/// Writes acc / sum to out ([heads] rows, out_stride floats apart), after adding the sinks' share
/// (sinks: [heads] or nullptr). A row that saw no key gives zeros.
void attend_finish(const Partial& from, int heads, int head_dim, const float* sinks, float* out,
                   size_t out_stride);

}  // namespace hata
