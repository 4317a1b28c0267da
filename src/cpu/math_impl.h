// exp and tanh over the vectors of one instruction set; included after them.
#pragma once

namespace hata::cpu::HATA_ISA {
namespace {

constexpr float kLowest = -__builtin_inff();
constexpr uint16_t kNegInf16 = 0xfc00;

/// e^x - 1 = scale * p + (scale - 1) with p = e^r - 1 of a small r; relative error below 2^-22.
struct ExpParts {
  F32 scale, p;
};

/// For x in [-87, 0].
inline ExpParts exp_parts(F32 x) {
  const F32 n = round(x * F32::all(1.44269504f));
  const F32 r = muladd(n, F32::all(2.12194440e-4f), muladd(n, F32::all(-0.693359375f), x));
  F32 p = F32::all(1.0f / 5040);
  p = muladd(p, r, F32::all(1.0f / 720));
  p = muladd(p, r, F32::all(1.0f / 120));
  p = muladd(p, r, F32::all(1.0f / 24));
  p = muladd(p, r, F32::all(1.0f / 6));
  p = muladd(p, r, F32::all(0.5f));
  return {scale2(F32::all(1.0f), n), muladd(p, r * r, r)};
}

/// e^x for x <= 0; 0 below -87.
inline F32 exp_negative(F32 x) {
  const F32 limit = F32::all(-87.0f);
  const ExpParts e = exp_parts(max(x, limit));
  return where_at_least(x, limit, muladd(e.scale, e.p, e.scale));
}

inline F32 tanh(F32 x) {
  const ExpParts e = exp_parts(max(abs(x) * F32::all(-2.0f), F32::all(-87.0f)));
  const F32 expm1 = muladd(e.scale, e.p, e.scale - F32::all(1.0f));
  return copysign(expm1 / (expm1 + F32::all(2.0f)), x);
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
