#include "learn/soft_codes.h"

#include <cmath>

#include "learn/blas.h"
#include "learn/vector_math.h"

namespace hata::learn {
namespace {

// x[i] times scale, [n][rbit]
void scale_rows(const std::vector<float>& x, const std::vector<float>& scale, int rbit,
                std::vector<float>& out) {
  out.resize(x.size());
  for (size_t i = 0; i < x.size(); i += static_cast<size_t>(rbit)) {
    const float factor = scale[i / static_cast<size_t>(rbit)];
    for (size_t j = i; j < i + static_cast<size_t>(rbit); ++j) out[j] = x[j] * factor;
  }
}

}  // namespace

void SoftCodes::encode(const float* of, int64_t count, const Parameters& p,
                       const std::vector<float>& w, double sharpness, bool hold_rms) {
  vectors = of;
  n = count;
  soft.resize(static_cast<size_t>(n * p.rbit));
  slope.resize(static_cast<size_t>(n));
  multiply(n, p.rbit, p.head_dim, {vectors, p.head_dim}, {w.data(), p.rbit}, 0.0f, soft.data());
  for (int64_t i = 0; i < n; ++i) {
    float* x = soft.data() + i * p.rbit;
    float& factor = slope[static_cast<size_t>(i)];
    if (!hold_rms) {
      const float rms = std::sqrt(sum_of_squares(x, p.rbit) / static_cast<float>(p.rbit));
      factor = rms > 0.0f ? static_cast<float>(sharpness) / rms : 0.0f;
    }
    tanh_all(x, p.rbit, factor);
  }
}

void SoftCodes::apply_scale(int rbit) { scale_rows(soft, scale, rbit, scaled); }

void SoftCodes::add_gradient(const Parameters& p, std::vector<float>& of_scaled,
                             std::vector<float>& gradient) const {
  scale_rows(of_scaled, scale, p.rbit, of_scaled);
  for (int64_t i = 0; i < n; ++i) {
    through_tanh(of_scaled.data() + i * p.rbit, soft.data() + i * p.rbit, p.rbit,
                 slope[static_cast<size_t>(i)]);
  }
  multiply(p.head_dim, p.rbit, n, {vectors, p.head_dim, true}, {of_scaled.data(), p.rbit}, 1.0f,
           gradient.data());
}

}  // namespace hata::learn
