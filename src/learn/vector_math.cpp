#include "learn/vector_math.h"

#include <bit>

// The compiler makes a version per instruction set of these plain loops. Sums run in 16 lanes, so
// that each version adds in the same order.
#if defined(__x86_64__) && defined(__GNUC__)
#define HATA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define HATA_CLONES
#endif

namespace hata::learn {
namespace {

constexpr int kLanes = 16;

// e^x for x <= 88; relative error below 1e-6.
inline float exp_of(float x) {
  const float limited = x < -87.0f ? -87.0f : x;
  const float shifted =
      limited * 1.44269504f + 12582912.0f;  // rounds to an integer in the low bits
  const float n = shifted - 12582912.0f;
  const float r = (limited - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const auto power = std::bit_cast<int32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<int32_t>(p) + power);
}

template <class T>
T total(const T (&lanes)[kLanes]) {
  T sum = 0;
  for (const T lane : lanes) sum += lane;
  return sum;
}

}  // namespace

HATA_CLONES void tanh_all(float* x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) {
    float y = 2.0f * factor * x[i];
    y = y > 40.0f ? 40.0f : y;
    const float e = exp_of(y);
    x[i] = (e - 1.0f) / (e + 1.0f);
  }
}

HATA_CLONES double exp_all(float* x, int64_t n, float max) {
  for (int64_t i = 0; i < n; ++i) x[i] = exp_of(x[i] - max);
  double sum = 0;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    // In pairs, by halves: 16, 8, 4, 2, 1.
    const float* lanes = x + i;
    float eight[8], four[4];
    for (int l = 0; l < 8; ++l) eight[l] = lanes[l] + lanes[l + 8];
    for (int l = 0; l < 4; ++l) four[l] = eight[l] + eight[l + 4];
    sum += static_cast<double>((four[0] + four[2]) + (four[1] + four[3]));
  }
  for (; i < n; ++i) sum += static_cast<double>(x[i]);
  return sum;
}

HATA_CLONES float max_of(const float* x, int64_t n) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = -__builtin_inff();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  }
  for (; i < n; ++i) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  float max = lanes[0];
  for (const float lane : lanes) max = lane > max ? lane : max;
  return max;
}

HATA_CLONES float sum_of_squares(const float* x, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += x[i + l] * x[i + l];
  }
  for (; i < n; ++i) lanes[0] += x[i] * x[i];
  return total(lanes);
}

HATA_CLONES void through_tanh(float* d, const float* h, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) d[i] *= (1.0f - h[i] * h[i]) * factor;
}

HATA_CLONES void difference(const float* p, double p_sum, float* z, double z_sum, int64_t n,
                            float weight) {
  const auto p_factor = static_cast<float>(static_cast<double>(weight) / p_sum);
  const auto z_factor = static_cast<float>(static_cast<double>(weight) / z_sum);
  for (int64_t i = 0; i < n; ++i) z[i] = z[i] * z_factor - p[i] * p_factor;
}

HATA_CLONES double dot(const float* a, const float* b, int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += static_cast<double>(a[i + l] * b[i + l]);
  }
  for (; i < n; ++i) lanes[0] += static_cast<double>(a[i] * b[i]);
  return total(lanes);
}

}  // namespace hata::learn
