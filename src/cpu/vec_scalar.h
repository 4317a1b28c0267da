// The vectors of the stages in plain C++: four lanes that a compiler may or may not vectorise.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/f16.h"
#include "cpu/kernels.h"

namespace hata::cpu::scalar {

constexpr int kLanes = 4;

struct F32 {
  float v[kLanes];

  template <class Fn>
  static F32 each(Fn&& fn) {
    F32 r;
    for (int l = 0; l < kLanes; ++l) r.v[l] = fn(l);
    return r;
  }
  static F32 all(float x) {
    return each([&](int) { return x; });
  }
  static F32 load(const float* p) {
    return each([&](int l) { return p[l]; });
  }
  static F32 load(const uint16_t* p) {
    return each([&](int l) { return f16_to_f32(p[l]); });
  }
  void store(float* p) const {
    for (int l = 0; l < kLanes; ++l) p[l] = v[l];
  }
};

inline F32 operator+(F32 a, F32 b) {
  return F32::each([&](int l) { return a.v[l] + b.v[l]; });
}
inline F32 operator-(F32 a, F32 b) {
  return F32::each([&](int l) { return a.v[l] - b.v[l]; });
}
inline F32 operator*(F32 a, F32 b) {
  return F32::each([&](int l) { return a.v[l] * b.v[l]; });
}
inline F32 operator/(F32 a, F32 b) {
  return F32::each([&](int l) { return a.v[l] / b.v[l]; });
}
inline F32 max(F32 a, F32 b) {
  return F32::each([&](int l) { return a.v[l] > b.v[l] ? a.v[l] : b.v[l]; });
}
/// a * b + c, rounded once: the codes depend on it.
inline F32 fused(F32 a, F32 b, F32 c) {
  return F32::each([&](int l) { return std::fma(a.v[l], b.v[l], c.v[l]); });
}
/// a * b + c where the rounding does not matter.
inline F32 muladd(F32 a, F32 b, F32 c) { return a * b + c; }
inline F32 round(F32 a) {
  return F32::each([&](int l) { return std::nearbyint(a.v[l]); });
}
/// a * 2^n for integral n in [-126, 127].
inline F32 scale2(F32 a, F32 n) {
  return F32::each([&](int l) { return std::ldexp(a.v[l], static_cast<int>(n.v[l])); });
}
/// `a` where x >= limit, else 0.
inline F32 where_at_least(F32 x, F32 limit, F32 a) {
  return F32::each([&](int l) { return x.v[l] >= limit.v[l] ? a.v[l] : 0.0f; });
}
/// `a` where x >= limit, else b.
inline F32 choose_at_least(F32 x, F32 limit, F32 a, F32 b) {
  return F32::each([&](int l) { return x.v[l] >= limit.v[l] ? a.v[l] : b.v[l]; });
}
inline float max_lane(F32 a) {
  float m = a.v[0];
  for (int l = 1; l < kLanes; ++l) m = a.v[l] > m ? a.v[l] : m;
  return m;
}
inline F32 abs(F32 a) {
  return F32::each([&](int l) { return std::fabs(a.v[l]); });
}
inline F32 copysign(F32 a, F32 sign) {
  return F32::each([&](int l) { return std::copysign(a.v[l], sign.v[l]); });
}
/// Bit l: lane l is > 0 (a NaN is not).
inline uint32_t positive(F32 a) {
  uint32_t bits = 0;
  for (int l = 0; l < kLanes; ++l) bits |= (a.v[l] > 0.0f ? 1u : 0u) << l;
  return bits;
}
/// Lane l is p[l % R].
template <int R>
F32 repeat(const float* p) {
  return F32::each([&](int l) { return p[l % R]; });
}
/// Lane l is the sum over the lanes of a[l].
inline F32 sum_each(const F32 (&a)[kLanes]) {
  return F32::each([&](int l) { return (a[l].v[0] + a[l].v[2]) + (a[l].v[1] + a[l].v[3]); });
}
/// Rows become columns: lane l of a[i] and lane i of a[l] change places.
inline void transpose(F32 (&a)[kLanes]) {
  F32 columns[kLanes];
  for (int i = 0; i < kLanes; ++i) columns[i] = F32::each([&](int l) { return a[l].v[i]; });
  for (int i = 0; i < kLanes; ++i) a[i] = columns[i];
}

inline float half_to_float(uint16_t half) { return f16_to_f32(half); }
inline uint16_t float_to_half(float x) { return f32_to_f16(x); }

// encode: this many vectors of bits times this many keys are in registers.
constexpr int kEncodeBits = 2;
constexpr int kEncodeKeys = 2;
// attend: vectors of a value's elements per query head in registers.
constexpr int kValueVecs = 2;
// prefill: this many query vectors times this many vectors of keys (or of values) in registers.
constexpr int kBlockRows = 2;
constexpr int kBlockVecs = 2;

// score: keys a step (two, as their lengths share a byte).
constexpr int kScoreKeys = 2;

struct I16 {
  int v[kScoreKeys];

  static I16 all(int x) { return {{x, x}}; }
  void store(int16_t* p) const {
    for (int i = 0; i < kScoreKeys; ++i) p[i] = static_cast<int16_t>(v[i]);
  }
};

template <int Words, int N>
class Planes {
 public:
  Planes() = default;
  explicit Planes(const ScorePlan& plan) {
    for (int w = 0; w < Words; ++w) {
      majority_[w] = plan.majority[w];
      for (int p = 0; p < N; ++p) planes_[p][w] = plan.planes[p][w];
    }
  }

  /// Per key the sum over the planes of 2^p * popcount.
  I16 sums(const uint64_t* keys) const {
    I16 result{};
    for (int i = 0; i < kScoreKeys; ++i) {
      for (int p = N - 1; p >= 0; --p) {
        result.v[i] *= 2;
        for (int w = 0; w < Words; ++w) {
          const uint64_t differ = keys[i * Words + w] ^ majority_[w];
          result.v[i] += __builtin_popcountll(differ & planes_[p][w]);
        }
      }
    }
    return result;
  }

 private:
  uint64_t majority_[Words];
  uint64_t planes_[N][Words];
};

inline I16 half_distance(const ScorePlan& plan, I16 sums) {
  return {{plan.base - (sums.v[0] << plan.shift), plan.base - (sums.v[1] << plan.shift)}};
}
inline I16 load_lengths(const uint8_t* p) { return {{*p & 15, *p >> 4}}; }
/// (length * half) >> 3.
inline I16 weigh_wide(I16 length, I16 half) {
  return {{length.v[0] * half.v[0] >> 3, length.v[1] * half.v[1] >> 3}};
}
inline I16 weigh_narrow(I16 length, I16 half) { return weigh_wide(length, half); }

/// max(0, limit - a).
inline I16 below(int limit, I16 a) {
  return {{a.v[0] < limit ? limit - a.v[0] : 0, a.v[1] < limit ? limit - a.v[1] : 0}};
}

struct Squares {
  int v[kScoreKeys];

  static Squares zero() { return {}; }
  /// Adds a^2 + b^2.
  void add(I16 a, I16 b) {
    for (int i = 0; i < kScoreKeys; ++i) v[i] += a.v[i] * a.v[i] + b.v[i] * b.v[i];
  }
  /// score_level(length * sum).
  I16 levels(I16 length) const {
    return {{score_level(length.v[0] * v[0]), score_level(length.v[1] * v[1])}};
  }
};

// q4: a vector holds one head's four blocks of a quad.
/// Of block b the sum of number * (2 u - 15). half: there are two rows.
inline void q4_sums(const uint8_t* rows, bool half, const Q4Query& query, F32 (&out)[4]) {
  for (int h = 0; h < 4; ++h) {
    int sums[4] = {};
    for (int i = 0; i < (half ? 32 : 64); ++i) {
      sums[i / 4 % 4] +=
          query.numbers[h][0][i] * (rows[i] & 15) + query.numbers[h][1][i] * (rows[i] >> 4);
    }
    out[h] = F32::each(
        [&](int b) { return static_cast<float>(2 * sums[b] - query.offsets[4 * h + b]); });
  }
}
/// Lane b: the scale of block b.
inline F32 q4_scales(const uint8_t* p) {
  return F32::each(
      [&](int b) { return f16_to_f32(static_cast<uint16_t>(p[2 * b] | p[2 * b + 1] << 8)); });
}
/// Each head's blocks, added up: (0 + 2) + (1 + 3).
inline void q4_fold(const F32 (&sum)[4], float* out) {
  for (int h = 0; h < 4; ++h) {
    out[h] = (sum[h].v[0] + sum[h].v[2]) + (sum[h].v[1] + sum[h].v[3]);
  }
}

/// Bit i: scores[i] > threshold, for 64 scores.
inline uint64_t above(const int16_t* scores, int threshold) {
  uint64_t bits = 0;
  for (int i = 0; i < 64; ++i) bits |= static_cast<uint64_t>(scores[i] > threshold) << i;
  return bits;
}

}  // namespace hata::cpu::scalar
