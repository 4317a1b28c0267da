#include "learn/optimizer.h"

#include <cmath>

namespace hata::learn {
namespace {

// Calls fn(parameter, its gradient, its number) for all parameters.
template <class Fn>
void for_each(const Parameters& gradient, Parameters& parameters, Fn&& fn) {
  size_t n = 0;
  for (const auto part : {&Parameters::w, &Parameters::log_scale, &Parameters::w_query}) {
    std::vector<float>& x = parameters.*part;
    for (size_t i = 0; i < x.size(); ++i) fn(x[i], (gradient.*part)[i], n++);
  }
}

size_t count(const Parameters& parameters) {
  return parameters.w.size() + parameters.log_scale.size() + parameters.w_query.size();
}

}  // namespace

void Adam::step(const Parameters& gradient, double rate, Parameters& parameters) {
  mean_.resize(count(parameters));
  square_.resize(count(parameters));
  ++n_;
  const double correction1 = 1 - std::pow(beta1_, static_cast<double>(n_));
  const double correction2 = 1 - std::pow(beta2_, static_cast<double>(n_));
  const auto b1 = static_cast<float>(beta1_), b2 = static_cast<float>(beta2_);
  const auto size = static_cast<float>(rate / correction1);
  const auto inverse2 = static_cast<float>(1 / correction2);
  const auto faster = static_cast<float>(scale_rate_);
  for_each(gradient, parameters, [&](float& w, float g, size_t i) {
    mean_[i] = b1 * mean_[i] + (1 - b1) * g;
    square_[i] = b2 * square_[i] + (1 - b2) * g * g;
    const size_t after_w = i - parameters.w.size();  // wraps before it
    const float rate_of = after_w < parameters.log_scale.size() ? faster : 1.0f;
    w -= rate_of * size * mean_[i] / (std::sqrt(square_[i] * inverse2) + 1e-8f);
  });
}

void Sgd::step(const Parameters& gradient, double rate, Parameters& parameters) {
  velocity_.resize(count(parameters));
  const auto momentum = static_cast<float>(momentum_), decay = static_cast<float>(decay_);
  const auto size = static_cast<float>(rate);
  for_each(gradient, parameters, [&](float& w, float g, size_t i) {
    velocity_[i] = momentum * velocity_[i] + g + decay * w;
    w -= size * velocity_[i];
  });
}

}  // namespace hata::learn
