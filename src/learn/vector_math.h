// Loops over floats that training spends its time in, besides matrix products.
#pragma once

#include <cstdint>

namespace hata::learn {

/// x[i] = tanh(factor * x[i])
void tanh_all(float* x, int64_t n, float factor);

/// x[i] = exp(x[i] - max); returns the sum.
double exp_all(float* x, int64_t n, float max);

float max_of(const float* x, int64_t n);
float sum_of_squares(const float* x, int64_t n);

/// d[i] *= (1 - h[i]^2) * factor: back through h = tanh(factor * x).
void through_tanh(float* d, const float* h, int64_t n, float factor);

/// p and z hold exponentials with these sums: the loss's part -sum p/P log(z/Z) comes from the
/// caller; here z becomes (z/Z - p/P) * weight, its gradient.
void difference(const float* p, double p_sum, float* z, double z_sum, int64_t n, float weight);

/// sum of a[i] * b[i]
double dot(const float* a, const float* b, int64_t n);

}  // namespace hata::learn
