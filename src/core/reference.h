// The scalar reference of every stage: as plain as it can be, and the truth that every kernel is
// compared with. Not for speed.
#pragma once

#include <cstdint>
#include <vector>

#include "hata/attend.h"
#include "hata/types.h"

namespace hata::reference {

/// Element i of a row.
float element(const void* row, DType type, int i);

/// As hata::encode.
void encode(const float* w, int head_dim, int rbit, const void* x, DType type, size_t stride,
            int64_t n, uint64_t* codes);

/// As hata::key_norms.
void key_norms(int head_dim, const void* x, DType type, size_t stride, int64_t n, float* norms);

/// As hata::dots.
void dots(const float* q, int head_dim, const void* x, DType type, size_t stride, int64_t n,
          float* out);

/// As hata::key_lengths.
void key_lengths(int head_dim, const void* x, DType type, size_t stride, int64_t n, float inv_unit,
                 uint8_t* lengths);

/// As hata::score, for any n.
void score(const uint64_t* query, int group, int rbit, const uint64_t* keys, const uint8_t* lengths,
           int64_t n, int16_t* scores);

/// As hata::score_squares, for any n.
void score_squares(const uint64_t* query, int group, int rbit, const uint64_t* keys,
                   const uint8_t* lengths, int64_t n, int16_t* scores);

/// As q4_encode in cpu/q4.h, of finite elements.
void q4_encode(int head_dim, const void* x, DType type, size_t stride, int64_t n, uint8_t* keys);

/// Element i of such a key.
float q4_element(const uint8_t* key, int head_dim, int i);

/// As Q4Queries of cpu/q4.h, for one query and one key.
float q4_logit(const float* q, int head_dim, float scale, const uint8_t* key);

/// The k best-scored keys whose bit in `valid` is set (ties to the lowest cell), ascending.
std::vector<int32_t> select(const int16_t* scores, const uint64_t* valid, int64_t n, int64_t k);

/// softmax(logits) v in double precision, for the keys that `args` names (scratch is not used).
/// sinks: [heads] or nullptr. out: [heads][head_dim]; a row without keys gives zeros.
void attend(const AttendArgs& args, const float* sinks, double* out);

}  // namespace hata::reference
