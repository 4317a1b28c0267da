// The stages of one instruction set as a table of functions. Each table is filled by a translation
// unit of its own (kernels_<isa>.cpp), compiled with that instruction set's flags; everything in it
// lives in a namespace of that name, so that no inline function compiled with those flags can be
// taken by the linker for generic code (for the same reason: no std:: functions in there).
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/prefill.h"
#include "cpu/q4.h"
#include "cpu/rank.h"
#include "hata/attend.h"
#include "hata/score.h"
#include "hata/simd.h"
#include "hata/types.h"

namespace hata::cpu {

/// How one KV head's queries score keys, in bit planes. With c_j of the G queries having bit j
/// set, and x the key's code xor the majority code, the distances sum to
///   const + sum over j of x_j * t_j,  t_j = |G - 2 c_j|,
/// and the t_j are kept as planes: bit j of planes[p] is bit p of t_j (even G: of t_j / 2). So
///   D / 2 = base - (sum over p of 2^p * popcount(x & planes[p]) << shift).
struct ScorePlan {
  static constexpr int kMaxPlanes = 7;
  static constexpr int kMaxWords = 4;
  int n_planes;
  int words;
  int shift;
  int base;
  bool narrow;  ///< length * D / 2 fits 16 bits
  uint64_t majority[kMaxWords];
  uint64_t planes[kMaxPlanes][kMaxWords];
};

/// A TopK's buffer of candidates, with room for 64 more behind `limit`.
struct Candidates {
  int32_t* cells;
  int16_t* scores;
  int64_t count;
  int64_t limit;
};

struct Kernels {
  SimdLevel level;

  void (*encode)(const float* w, int head_dim, int rbit, const void* x, DType type, size_t stride,
                 int64_t n, uint64_t* codes);
  void (*key_norms)(int head_dim, const void* x, DType type, size_t stride, int64_t n,
                    float* norms);
  void (*dots)(const float* q, int head_dim, const void* x, DType type, size_t stride, int64_t n,
               float* out);
  void (*score)(const ScorePlan& plan, const uint64_t* keys, const uint8_t* lengths, int64_t n,
                int16_t* scores);
  /// query: [group][words].
  void (*score_squares)(const uint64_t* query, int group, int words, const uint64_t* keys,
                        const uint8_t* lengths, int64_t n, int16_t* scores);

  /// Adds the keys that are valid and score above `threshold` until `out` is at its limit;
  /// returns how many of the n_words * 64 keys it took, in words.
  int64_t (*collect)(int32_t first_cell, const int16_t* scores, const uint64_t* valid,
                     int64_t n_words, int threshold, Candidates& out);

  /// How many of n scores are above `threshold`.
  int64_t (*count_above)(const int16_t* scores, int64_t n, int threshold);

  /// Keeps, in order, the candidates above `threshold` and the first `ties` that equal it.
  void (*keep)(int threshold, int64_t ties, Candidates& candidates);

  void (*attend)(const AttendArgs& args, const Partial& out);
  void (*prefill)(const PrefillArgs& args, const Partial& out);

  void (*to_floats)(const void* row, DType type, int n, float* out);
  void (*channel_dots)(const ChannelArgs& args);
  uint64_t (*floats_above)(const float* x, float threshold);
  int64_t (*count_floats_above)(const float* x, int64_t n, float threshold);
  float (*exp_all)(float* x, int64_t n, float max);
  void (*count_equal)(const uint16_t* hashes, uint16_t hash, int64_t n, uint16_t* counts);

  void (*q4_encode)(int head_dim, int key_bytes, const void* x, DType type, size_t stride,
                    int64_t n, uint8_t* keys);
  void (*q4_logits)(const Q4Args& args);
};

extern const Kernels kScalarKernels;
#ifdef HATA_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

/// The table in use.
const Kernels& kernels();

}  // namespace hata::cpu
