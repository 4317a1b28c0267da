// Steps along a gradient.
#pragma once

#include <cstdint>

#include "learn/row.h"

namespace hata::learn {

/// Adam (Kingma and Ba 2014), without weight decay; scale_rate: how much faster log_scale goes.
class Adam {
 public:
  Adam(double beta1, double beta2, double scale_rate)
      : beta1_(beta1), beta2_(beta2), scale_rate_(scale_rate) {}
  void step(const Parameters& gradient, double rate, Parameters& parameters);

 private:
  double beta1_, beta2_, scale_rate_;
  int64_t n_ = 0;
  std::vector<float> mean_, square_;
};

/// Gradient descent with momentum: v = momentum v + g + decay w; w -= rate v.
class Sgd {
 public:
  Sgd(double momentum, double decay) : momentum_(momentum), decay_(decay) {}
  void step(const Parameters& gradient, double rate, Parameters& parameters);

 private:
  double momentum_, decay_;
  std::vector<float> velocity_;
};

}  // namespace hata::learn
