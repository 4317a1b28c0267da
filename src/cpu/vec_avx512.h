// The vectors of the stages on AVX-512 (F, BW, VL, DQ, VBMI2, VPOPCNTDQ).
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/kernels.h"

namespace hata::cpu::avx512 {

constexpr int kLanes = 16;

struct F32 {
  __m512 v;

  static F32 all(float x) { return {_mm512_set1_ps(x)}; }
  static F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static F32 load(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};

inline F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
/// a * b + c, rounded once.
inline F32 fused(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32 muladd(F32 a, F32 b, F32 c) { return fused(a, b, c); }
inline F32 round(F32 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// a * 2^n for integral n in [-126, 127].
inline F32 scale2(F32 a, F32 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
/// `a` where x >= limit, else 0.
inline F32 where_at_least(F32 x, F32 limit, F32 a) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_GE_OQ), a.v)};
}
/// `a` where x >= limit, else b.
inline F32 choose_at_least(F32 x, F32 limit, F32 a, F32 b) {
  return {_mm512_mask_mov_ps(b.v, _mm512_cmp_ps_mask(x.v, limit.v, _CMP_GE_OQ), a.v)};
}
inline float max_lane(F32 a) { return _mm512_reduce_max_ps(a.v); }
inline F32 abs(F32 a) { return {_mm512_abs_ps(a.v)}; }
inline F32 copysign(F32 a, F32 sign) {
  const __m512 bit = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(bit, a.v), _mm512_and_ps(bit, sign.v))};
}
/// Bit l: lane l is > 0 (a NaN is not).
inline uint32_t positive(F32 a) { return _mm512_cmp_ps_mask(a.v, _mm512_setzero_ps(), _CMP_GT_OQ); }
/// Lane l is p[l % R]; reads kLanes floats.
template <int R>
F32 repeat(const float* p) {
  const __m512i index = _mm512_setr_epi32(0, 1 % R, 2 % R, 3 % R, 4 % R, 5 % R, 6 % R, 7 % R, 8 % R,
                                          9 % R, 10 % R, 11 % R, 12 % R, 13 % R, 14 % R, 15 % R);
  return {_mm512_permutexvar_ps(index, _mm512_loadu_ps(p))};
}
/// Lane l is the sum over the lanes of a[l]: adds and transposes by halves, 15 adds in all.
inline F32 sum_each(const F32 (&a)[kLanes]) {
  __m512 pair[8];
  for (int i = 0; i < 8; ++i) {  // 32-bit lanes 0, 1, 2, 3 of a 128-bit lane: a, b, a, b
    const __m512 x = a[2 * i].v, y = a[2 * i + 1].v;
    pair[i] = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
  }
  __m512 quad[4];
  for (int i = 0; i < 4; ++i) {  // a, b, c, d
    const __m512d x = _mm512_castps_pd(pair[2 * i]), y = _mm512_castps_pd(pair[2 * i + 1]);
    quad[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  const auto halves = [](__m512 x, __m512 y) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  };
  return {halves(halves(quad[0], quad[1]), halves(quad[2], quad[3]))};
}
/// Rows become columns: lane l of a[i] and lane i of a[l] change places.
inline void transpose(F32 (&a)[kLanes]) {
  __m512 b[kLanes];
  for (int i = 0; i < kLanes; i += 2) {  // pairs of rows, within 128 bits
    b[i] = _mm512_unpacklo_ps(a[i].v, a[i + 1].v);
    b[i + 1] = _mm512_unpackhi_ps(a[i].v, a[i + 1].v);
  }
  __m512 c[kLanes];
  for (int i = 0; i < kLanes; i += 4) {  // four rows: c[i + j] has column 4 q + j in 128-bit lane q
    for (int half = 0; half < 2; ++half) {
      const __m512d x = _mm512_castps_pd(b[i + half]), y = _mm512_castps_pd(b[i + half + 2]);
      c[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      c[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  }
  for (int j = 0; j < 4; ++j) {  // 128-bit lanes
    const __m512 even01 = _mm512_shuffle_f32x4(c[j], c[4 + j], 0x88);
    const __m512 odd01 = _mm512_shuffle_f32x4(c[j], c[4 + j], 0xdd);
    const __m512 even23 = _mm512_shuffle_f32x4(c[8 + j], c[12 + j], 0x88);
    const __m512 odd23 = _mm512_shuffle_f32x4(c[8 + j], c[12 + j], 0xdd);
    a[j].v = _mm512_shuffle_f32x4(even01, even23, 0x88);
    a[4 + j].v = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    a[8 + j].v = _mm512_shuffle_f32x4(even01, even23, 0xdd);
    a[12 + j].v = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
  }
}
inline float half_to_float(uint16_t half) { return _cvtsh_ss(half); }
inline uint16_t float_to_half(float x) {
  return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// encode: this many vectors of bits times this many keys are in registers.
constexpr int kEncodeBits = 4;
constexpr int kEncodeKeys = 6;
// attend: vectors of a value's elements per query head in registers.
constexpr int kValueVecs = 4;
// prefill: this many query vectors times this many vectors of keys (or of values) in registers.
constexpr int kBlockRows = 6;
constexpr int kBlockVecs = 4;

// score: keys a step.
constexpr int kScoreKeys = 32;

struct I16 {
  __m512i v;
  static I16 all(int16_t x) { return {_mm512_set1_epi16(x)}; }
  void store(int16_t* p) const { _mm512_storeu_si512(p, v); }
};

template <int Words, int N>
class Planes {
 public:
  Planes() = default;
  explicit Planes(const ScorePlan& plan) : majority_(pattern(plan.majority)) {
    for (int p = 0; p < N; ++p) planes_[p] = pattern(plan.planes[p]);
  }

  /// Per key the sum over the planes of 2^p * popcount.
  I16 sums(const uint64_t* keys) const {
    __m512i quads[Words];  // four vectors of 64-bit sums each, 16 bits a sum
    for (int i = 0; i < Words; ++i) {
      quads[i] = count(keys + i * 32);
      for (int f = 1; f < 4; ++f) {
        const __m512i part = count(keys + i * 32 + f * 8);
        quads[i] = _mm512_or_si512(quads[i], _mm512_slli_epi64(part, 16 * f));
      }
    }
    return in_order(quads);
  }

 private:
  /// One key's words, again and again.
  static __m512i pattern(const uint64_t* words) {
    uint64_t w[8];
    for (int i = 0; i < 8; ++i) w[i] = words[i % Words];
    return _mm512_loadu_si512(w);
  }

  /// Sums of the 64-bit words of one vector.
  __m512i count(const uint64_t* keys) const {
    constexpr int kXorAnd = 0x28;  // (a xor b) and c
    const __m512i key = _mm512_load_si512(keys);
    __m512i sum =
        _mm512_popcnt_epi64(_mm512_ternarylogic_epi64(key, majority_, planes_[N - 1], kXorAnd));
    for (int p = N - 2; p >= 0; --p) {
      const __m512i bits = _mm512_ternarylogic_epi64(key, majority_, planes_[p], kXorAnd);
      sum = _mm512_add_epi64(_mm512_add_epi64(sum, sum), _mm512_popcnt_epi64(bits));
    }
    return sum;
  }

  static I16 in_order(const __m512i (&quads)[Words]) {
    alignas(64) int16_t index[32];
    __m512i sums;
    if constexpr (Words == 1) {
      // 64-bit lane l, field f: key 8 f + l.
      sums = quads[0];
      for (int i = 0; i < 32; ++i) index[i] = static_cast<int16_t>(i % 8 * 4 + i / 8);
    } else if constexpr (Words == 2) {
      // 128-bit lane t, 16 bits i: key 4 i + t.
      sums = add_pairs(quads[0], quads[1]);
      for (int i = 0; i < 32; ++i) index[i] = static_cast<int16_t>(i % 4 * 8 + i / 4);
    } else {
      // 128-bit lane 2 h + t, 16 bits i: key 16 h + 2 i + t.
      const __m512i a = add_pairs(quads[0], quads[1]);
      const __m512i b = add_pairs(quads[2], quads[3]);
      sums = _mm512_add_epi16(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
      for (int i = 0; i < 32; ++i) {
        index[i] = static_cast<int16_t>((i / 16 * 2 + i % 2) * 8 + i % 16 / 2);
      }
    }
    return {_mm512_permutexvar_epi16(_mm512_load_si512(index), sums)};
  }

  static __m512i add_pairs(__m512i a, __m512i b) {
    return _mm512_add_epi16(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  }

  __m512i majority_;
  __m512i planes_[N];
};

inline I16 half_distance(const ScorePlan& plan, I16 sums) {
  const __m512i total = _mm512_slli_epi16(sums.v, static_cast<unsigned>(plan.shift));
  return {_mm512_sub_epi16(_mm512_set1_epi16(static_cast<int16_t>(plan.base)), total)};
}
inline I16 load_lengths(const uint8_t* p) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i both = _mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12));
  return {_mm512_and_si512(both, _mm512_set1_epi16(15))};
}
/// (length * half) >> 3 where the product fits 16 bits.
inline I16 weigh_narrow(I16 length, I16 half) {
  return {_mm512_srai_epi16(_mm512_mullo_epi16(length.v, half.v), 3)};
}
/// The same where it does not; the result does.
inline I16 weigh_wide(I16 length, I16 half) {
  const __m512i low = _mm512_mullo_epi16(length.v, half.v);
  const __m512i high = _mm512_mulhi_epi16(length.v, half.v);
  return {_mm512_or_si512(_mm512_slli_epi16(high, 13), _mm512_srli_epi16(low, 3))};
}

/// max(0, limit - a), of numbers that are not negative.
inline I16 below(int16_t limit, I16 a) {
  return {_mm512_subs_epu16(_mm512_set1_epi16(limit), a.v)};
}

/// Sums of squares in 32 bits, as unpacking 16-bit numbers parts them.
struct Squares {
  __m512i low, high;

  static Squares zero() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
  /// Adds a^2 + b^2.
  void add(I16 a, I16 b) {
    const __m512i l = _mm512_unpacklo_epi16(a.v, b.v), h = _mm512_unpackhi_epi16(a.v, b.v);
    low = _mm512_add_epi32(low, _mm512_madd_epi16(l, l));
    high = _mm512_add_epi32(high, _mm512_madd_epi16(h, h));
  }
  /// score_level(length * sum).
  I16 levels(I16 length) const {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i steps = _mm512_packs_epi32(steps_of(low, _mm512_unpacklo_epi16(length.v, zero)),
                                             steps_of(high, _mm512_unpackhi_epi16(length.v, zero)));
    return {_mm512_subs_epu16(steps, _mm512_set1_epi16((127 + kLevelFloor) << 6))};
  }

 private:
  static __m512i steps_of(__m512i sums, __m512i lengths) {
    const __m512 x = _mm512_cvtepi32_ps(_mm512_mullo_epi32(sums, lengths));
    return _mm512_srli_epi32(_mm512_castps_si512(x), 17);
  }
};

// q4: a vector holds four heads' four blocks of a quad.
/// Lane 4 h + b: the sum of number * (2 u - 15). half: there are two rows.
inline void q4_sums(const uint8_t* rows, bool half, const Q4Query& query, F32 (&out)[1]) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i bytes = _mm512_maskz_loadu_epi64(half ? 0x0f : 0xff, rows);
  const __m512i low = _mm512_and_si512(bytes, nibble);
  const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
  __m512i sum[kQ4Heads];  // the blocks' rows
  for (int h = 0; h < kQ4Heads; ++h) {
    const __m512i l = _mm512_maddubs_epi16(low, _mm512_load_si512(query.numbers[h][0]));
    const __m512i u = _mm512_maddubs_epi16(high, _mm512_load_si512(query.numbers[h][1]));
    sum[h] = _mm512_madd_epi16(_mm512_add_epi16(l, u), _mm512_set1_epi16(1));  // below 2^13
  }
  const auto halves = [](__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
  };
  const __m512i ab = halves(sum[0], sum[1]), cd = halves(sum[2], sum[3]);
  const __m512i sums =
      _mm512_add_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xdd));
  const __m512i offsets = _mm512_load_si512(query.offsets);
  out[0] = {_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_add_epi32(sums, sums), offsets))};
}
/// Lane 4 h + b: the scale of block b.
inline F32 q4_scales(const uint8_t* p) {
  return {
      _mm512_broadcast_f32x4(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
/// Each head's blocks, added up: (0 + 2) + (1 + 3).
inline void q4_fold(const F32 (&sum)[1], float* out) {
  const __m512 pairs = _mm512_add_ps(sum[0].v, _mm512_permute_ps(sum[0].v, 0x4e));
  const __m512 all = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xb1));  // lanes 0, 4, 8, 12
  const __m512i index = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(index, all)));
}

/// Bit i: scores[i] > threshold, for 64 scores.
inline uint64_t above(const int16_t* scores, int threshold) {
  const __m512i limit = _mm512_set1_epi16(static_cast<int16_t>(threshold));
  const __mmask32 low = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(scores), limit);
  const __mmask32 high = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(scores + 32), limit);
  // Not low | high << 32: where GCC 12 spills a mask, its upper half comes back undefined.
  return _mm512_kunpackd(high, low);
}

/// Writes the 32 cells and scores whose bit in `take` is set, and up to 32 more behind them.
inline void compress(__m512i cells_low, __m512i cells_high, __m512i scores, uint32_t take,
                     int32_t* to_cells, int16_t* to_scores) {
  const auto low = static_cast<__mmask16>(take);
  const auto high = static_cast<__mmask16>(take >> 16);
  const int n_low = __builtin_popcount(low);
  _mm512_storeu_si512(to_cells, _mm512_maskz_compress_epi32(low, cells_low));
  _mm512_storeu_si512(to_cells + n_low, _mm512_maskz_compress_epi32(high, cells_high));
  _mm512_storeu_si512(to_scores, _mm512_maskz_compress_epi16(take, scores));
}

/// Writes the keys of one word whose bit in `hits` is set, and up to 32 more behind them.
inline void add_hits(int32_t first_cell, const int16_t* scores, uint64_t hits, int32_t* to_cells,
                     int16_t* to_scores) {
  const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int i = 0; i < 64; i += 32) {
    const auto take = static_cast<uint32_t>(hits >> i);
    const __m512i cells = _mm512_add_epi32(_mm512_set1_epi32(first_cell + i), count);
    compress(cells, _mm512_add_epi32(cells, _mm512_set1_epi32(16)), _mm512_loadu_si512(scores + i),
             take, to_cells, to_scores);
    to_cells += __builtin_popcount(take);
    to_scores += __builtin_popcount(take);
  }
}

/// The lowest `n` bits that are set.
inline uint32_t lowest_bits(uint32_t bits, int64_t n) {
  return n >= 32 ? bits : _pdep_u32((1u << n) - 1u, bits);
}

inline void keep(int threshold, int64_t ties, Candidates& candidates) {
  const __m512i limit = _mm512_set1_epi16(static_cast<int16_t>(threshold));
  int64_t kept = 0;
  for (int64_t i = 0; i < candidates.count; i += 32) {
    const int64_t left = candidates.count - i;
    const uint32_t in = left >= 32 ? ~0u : (1u << left) - 1u;
    const __m512i scores = _mm512_loadu_si512(candidates.scores + i);
    const __m512i low = _mm512_loadu_si512(candidates.cells + i);
    const __m512i high = _mm512_loadu_si512(candidates.cells + i + 16);
    const uint32_t tied = lowest_bits(in & _mm512_cmpeq_epi16_mask(scores, limit), ties);
    const uint32_t take = tied | (in & _mm512_cmpgt_epi16_mask(scores, limit));
    compress(low, high, scores, take, candidates.cells + kept, candidates.scores + kept);
    kept += __builtin_popcount(take);
    ties -= __builtin_popcount(tied);
  }
  candidates.count = kept;
}

}  // namespace hata::cpu::avx512
