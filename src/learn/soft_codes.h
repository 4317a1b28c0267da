// Codes that gradients go through: h(x) = tanh(b x W / rms(x W)). Gradients do not go through rms.
#pragma once

#include <vector>

#include "learn/row.h"

namespace hata::learn {

struct SoftCodes {
  const float* vectors = nullptr;  // [n][head_dim]
  int64_t n = 0;
  std::vector<float> soft;    // h [n][rbit]
  std::vector<float> slope;   // [n]: b / rms
  std::vector<float> scale;   // [n]: what the estimate has of a vector besides
  std::vector<float> scaled;  // h times scale

  /// hold_rms: it stays as the last call found it.
  void encode(const float* of, int64_t count, const Parameters& p, const std::vector<float>& w,
              double sharpness, bool hold_rms);
  /// From `scale`.
  void apply_scale(int rbit);
  /// Adds to the gradient of w what the gradient of `scaled` is; the latter is used up.
  void add_gradient(const Parameters& p, std::vector<float>& of_scaled,
                    std::vector<float>& gradient) const;
};

}  // namespace hata::learn
