// The vectors of the stages on AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/kernels.h"

namespace hata::cpu::avx2 {

constexpr int kLanes = 8;

struct F32 {
  __m256 v;

  static F32 all(float x) { return {_mm256_set1_ps(x)}; }
  static F32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static F32 load(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};

inline F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
inline F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
/// a * b + c, rounded once.
inline F32 fused(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline F32 muladd(F32 a, F32 b, F32 c) { return fused(a, b, c); }
inline F32 round(F32 a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// a * 2^n for integral n in [-126, 127].
inline F32 scale2(F32 a, F32 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return a * F32{_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))};
}
/// `a` where x >= limit, else 0.
inline F32 where_at_least(F32 x, F32 limit, F32 a) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.v, limit.v, _CMP_GE_OQ), a.v)};
}
/// `a` where x >= limit, else b.
inline F32 choose_at_least(F32 x, F32 limit, F32 a, F32 b) {
  return {_mm256_blendv_ps(b.v, a.v, _mm256_cmp_ps(x.v, limit.v, _CMP_GE_OQ))};
}
inline float max_lane(F32 a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
inline F32 abs(F32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline F32 copysign(F32 a, F32 sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(bit, a.v), _mm256_and_ps(bit, sign.v))};
}
/// Bit l: lane l is > 0 (a NaN is not).
inline uint32_t positive(F32 a) {
  const __m256 is = _mm256_cmp_ps(a.v, _mm256_setzero_ps(), _CMP_GT_OQ);
  return static_cast<uint32_t>(_mm256_movemask_ps(is));
}
/// Lane l is p[l % R]; reads kLanes floats.
template <int R>
F32 repeat(const float* p) {
  const __m256i index = _mm256_setr_epi32(0, 1 % R, 2 % R, 3 % R, 4 % R, 5 % R, 6 % R, 7 % R);
  return {_mm256_permutevar8x32_ps(_mm256_loadu_ps(p), index)};
}
/// Lane l is the sum over the lanes of a[l]: adds and transposes by halves.
inline F32 sum_each(const F32 (&a)[kLanes]) {
  const __m256 a01 = _mm256_hadd_ps(a[0].v, a[1].v);
  const __m256 a23 = _mm256_hadd_ps(a[2].v, a[3].v);
  const __m256 a45 = _mm256_hadd_ps(a[4].v, a[5].v);
  const __m256 a67 = _mm256_hadd_ps(a[6].v, a[7].v);
  const __m256 a03 = _mm256_hadd_ps(a01, a23);
  const __m256 a47 = _mm256_hadd_ps(a45, a67);
  return {_mm256_add_ps(_mm256_permute2f128_ps(a03, a47, 0x20),
                        _mm256_permute2f128_ps(a03, a47, 0x31))};
}
/// Rows become columns: lane l of a[i] and lane i of a[l] change places.
inline void transpose(F32 (&a)[kLanes]) {
  __m256 b[kLanes];
  for (int i = 0; i < kLanes; i += 2) {  // pairs of rows, within 128 bits
    b[i] = _mm256_unpacklo_ps(a[i].v, a[i + 1].v);
    b[i + 1] = _mm256_unpackhi_ps(a[i].v, a[i + 1].v);
  }
  __m256 c[kLanes];
  for (int i = 0; i < kLanes; i += 4) {  // four rows: c[i + j] has column 4 q + j in 128-bit lane q
    for (int half = 0; half < 2; ++half) {
      const __m256d x = _mm256_castps_pd(b[i + half]), y = _mm256_castps_pd(b[i + half + 2]);
      c[i + 2 * half] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
      c[i + 2 * half + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
    }
  }
  for (int j = 0; j < 4; ++j) {
    a[j].v = _mm256_permute2f128_ps(c[j], c[4 + j], 0x20);
    a[4 + j].v = _mm256_permute2f128_ps(c[j], c[4 + j], 0x31);
  }
}
inline float half_to_float(uint16_t half) { return _cvtsh_ss(half); }
inline uint16_t float_to_half(float x) {
  return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// encode: this many vectors of bits times this many keys are in registers.
constexpr int kEncodeBits = 4;
constexpr int kEncodeKeys = 3;
// attend: vectors of a value's elements per query head in registers.
constexpr int kValueVecs = 2;
// prefill: this many query vectors times this many vectors of keys (or of values) in registers.
constexpr int kBlockRows = 6;
constexpr int kBlockVecs = 2;

// score: keys a step.
constexpr int kScoreKeys = 16;

struct I16 {
  __m256i v;
  static I16 all(int16_t x) { return {_mm256_set1_epi16(x)}; }
  void store(int16_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
};

/// Counts bits by table look-ups of nibbles, four planes at a time: the table of plane p holds
/// popcount << p, and a byte's sum stays below 8 * 15.
template <int Words, int N>
class Planes {
 public:
  Planes() = default;
  explicit Planes(const ScorePlan& plan) : majority_(pattern(plan.majority)) {
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int p = 0; p < N; ++p) {
      const __m256i plane = pattern(plan.planes[p]);
      low_[p] = _mm256_and_si256(plane, nibble);
      high_[p] = _mm256_and_si256(_mm256_srli_epi16(plane, 4), nibble);
    }
  }

  /// Per key the sum over the planes of 2^p * popcount.
  I16 sums(const uint64_t* keys) const {
    __m256i quads[Words];  // four vectors of 64-bit sums each, 16 bits a sum
    for (int i = 0; i < Words; ++i) {
      quads[i] = count(keys + i * 16);
      for (int f = 1; f < 4; ++f) {
        const __m256i part = count(keys + i * 16 + f * 4);
        quads[i] = _mm256_or_si256(quads[i], _mm256_slli_epi64(part, 16 * f));
      }
    }
    return in_order(quads);
  }

 private:
  /// One key's words, again and again.
  static __m256i pattern(const uint64_t* words) {
    uint64_t w[4];
    for (int i = 0; i < 4; ++i) w[i] = words[i % Words];
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  }

  static __m256i table(int shift) {
    const __m256i bits = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                          2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    return _mm256_slli_epi16(bits, shift);  // entries are at most 32: none spills over
  }

  /// Sums of the 64-bit words of one vector.
  __m256i count(const uint64_t* keys) const {
    const __m256i differ =
        _mm256_xor_si256(_mm256_load_si256(reinterpret_cast<const __m256i*>(keys)), majority_);
    const __m256i high = _mm256_srli_epi16(differ, 4);
    __m256i total = _mm256_setzero_si256();
    for (int first = 0; first < N; first += 4) {
      __m256i bytes = _mm256_setzero_si256();
      for (int p = first; p < N && p < first + 4; ++p) {
        const __m256i lut = table(p - first);
        const __m256i l = _mm256_shuffle_epi8(lut, _mm256_and_si256(differ, low_[p]));
        const __m256i h = _mm256_shuffle_epi8(lut, _mm256_and_si256(high, high_[p]));
        bytes = _mm256_add_epi8(bytes, _mm256_add_epi8(l, h));
      }
      const __m256i words = _mm256_sad_epu8(bytes, _mm256_setzero_si256());
      total = _mm256_add_epi64(total, _mm256_slli_epi64(words, first));
    }
    return total;
  }

  static I16 in_order(const __m256i (&quads)[Words]) {
    if constexpr (Words == 1) {
      // 64-bit lane l, field f: key 4 f + l.
      const __m256i pairs = _mm256_shuffle_epi8(
          quads[0], _mm256_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15, 0, 1, 8,
                                     9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
      const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
      return {_mm256_permutevar8x32_epi32(pairs, order)};
    } else {
      // Both words of a pair of lanes; 128-bit lane t, 16 bits i: key 2 i + t of two-word codes.
      const __m256i first = add_pairs(quads[0], quads[1]);
      if constexpr (Words == 2) {
        const __m128i even = _mm256_castsi256_si128(first);
        const __m128i odd = _mm256_extracti128_si256(first, 1);
        return {_mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd))};
      } else {
        const __m256i second = add_pairs(quads[2], quads[3]);
        return {_mm256_add_epi16(_mm256_permute2x128_si256(first, second, 0x20),
                                 _mm256_permute2x128_si256(first, second, 0x31))};
      }
    }
  }

  static __m256i add_pairs(__m256i a, __m256i b) {
    return _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
  }

  __m256i majority_;
  __m256i low_[N];
  __m256i high_[N];
};

inline I16 half_distance(const ScorePlan& plan, I16 sums) {
  const __m256i total = _mm256_slli_epi16(sums.v, plan.shift);
  return {_mm256_sub_epi16(_mm256_set1_epi16(static_cast<int16_t>(plan.base)), total)};
}
inline I16 load_lengths(const uint8_t* p) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256i both = _mm256_or_si256(bytes, _mm256_slli_epi32(bytes, 12));
  return {_mm256_and_si256(both, _mm256_set1_epi16(15))};
}
/// (length * half) >> 3 where the product fits 16 bits.
inline I16 weigh_narrow(I16 length, I16 half) {
  return {_mm256_srai_epi16(_mm256_mullo_epi16(length.v, half.v), 3)};
}
/// The same where it does not; the result does.
inline I16 weigh_wide(I16 length, I16 half) {
  const __m256i low = _mm256_mullo_epi16(length.v, half.v);
  const __m256i high = _mm256_mulhi_epi16(length.v, half.v);
  return {_mm256_or_si256(_mm256_slli_epi16(high, 13), _mm256_srli_epi16(low, 3))};
}

/// max(0, limit - a), of numbers that are not negative.
inline I16 below(int16_t limit, I16 a) {
  return {_mm256_subs_epu16(_mm256_set1_epi16(limit), a.v)};
}

/// Sums of squares in 32 bits, as unpacking 16-bit numbers parts them.
struct Squares {
  __m256i low, high;

  static Squares zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  /// Adds a^2 + b^2.
  void add(I16 a, I16 b) {
    const __m256i l = _mm256_unpacklo_epi16(a.v, b.v), h = _mm256_unpackhi_epi16(a.v, b.v);
    low = _mm256_add_epi32(low, _mm256_madd_epi16(l, l));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(h, h));
  }
  /// score_level(length * sum).
  I16 levels(I16 length) const {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i steps = _mm256_packs_epi32(steps_of(low, _mm256_unpacklo_epi16(length.v, zero)),
                                             steps_of(high, _mm256_unpackhi_epi16(length.v, zero)));
    return {_mm256_subs_epu16(steps, _mm256_set1_epi16((127 + kLevelFloor) << 6))};
  }

 private:
  static __m256i steps_of(__m256i sums, __m256i lengths) {
    const __m256 x = _mm256_cvtepi32_ps(_mm256_mullo_epi32(sums, lengths));
    return _mm256_srli_epi32(_mm256_castps_si256(x), 17);
  }
};

// q4: a vector holds two heads' four blocks of a quad.
/// Lane 4 h + b over both vectors: the sum of number * (2 u - 15). half: there are two rows.
inline void q4_sums(const uint8_t* rows, bool half, const Q4Query& query, F32 (&out)[2]) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i low[2], high[2];  // two rows each
  for (int i = 0; i < 2; ++i) {
    const __m256i bytes = i == 1 && half
                              ? _mm256_setzero_si256()
                              : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows) + i);
    low[i] = _mm256_and_si256(bytes, nibble);
    high[i] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
  }
  __m256i sum[kQ4Heads];  // the blocks' even rows, and their odd ones
  for (int h = 0; h < kQ4Heads; ++h) {
    const auto* q = reinterpret_cast<const __m256i*>(query.numbers[h]);
    const __m256i first = _mm256_add_epi16(_mm256_maddubs_epi16(low[0], _mm256_load_si256(q)),
                                           _mm256_maddubs_epi16(high[0], _mm256_load_si256(q + 2)));
    const __m256i last = _mm256_add_epi16(_mm256_maddubs_epi16(low[1], _mm256_load_si256(q + 1)),
                                          _mm256_maddubs_epi16(high[1], _mm256_load_si256(q + 3)));
    // Their sum is below 2^14.
    sum[h] = _mm256_madd_epi16(_mm256_add_epi16(first, last), _mm256_set1_epi16(1));
  }
  for (int i = 0; i < 2; ++i) {
    const __m256i a = sum[2 * i], b = sum[2 * i + 1];
    const __m256i sums = _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                                          _mm256_permute2x128_si256(a, b, 0x31));
    const __m256i offsets = _mm256_load_si256(reinterpret_cast<const __m256i*>(query.offsets) + i);
    out[i] = {_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_add_epi32(sums, sums), offsets))};
  }
}
/// Lane 4 h + b: the scale of block b.
inline F32 q4_scales(const uint8_t* p) {
  const __m128 scales = _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_set_m128(scales, scales)};
}
/// Each head's blocks, added up: (0 + 2) + (1 + 3).
inline void q4_fold(const F32 (&sum)[2], float* out) {
  const __m256d a = _mm256_castps_pd(sum[0].v), b = _mm256_castps_pd(sum[1].v);
  const __m256 pairs = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                                     _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  const __m256 all = _mm256_add_ps(pairs, _mm256_movehdup_ps(pairs));  // lanes 0, 2, 4, 6
  const __m128 even = _mm256_castps256_ps128(all);                     // heads 0 and 2
  const __m128 odd = _mm256_extractf128_ps(all, 1);                    // 1 and 3
  _mm_storeu_ps(out, _mm_movelh_ps(_mm_unpacklo_ps(even, odd), _mm_unpackhi_ps(even, odd)));
}

/// Bit i: scores[i] > threshold, for 64 scores.
inline uint64_t above(const int16_t* scores, int threshold) {
  const __m256i limit = _mm256_set1_epi16(static_cast<int16_t>(threshold));
  const __m256i* p = reinterpret_cast<const __m256i*>(scores);
  uint64_t bits = 0;
  for (int i = 0; i < 2; ++i) {
    const __m256i a = _mm256_cmpgt_epi16(_mm256_loadu_si256(p + 2 * i), limit);
    const __m256i b = _mm256_cmpgt_epi16(_mm256_loadu_si256(p + 2 * i + 1), limit);
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
    bits |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(bytes))) << 32 * i;
  }
  return bits;
}

}  // namespace hata::cpu::avx2
