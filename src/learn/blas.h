// Matrix products, by OpenBLAS. Each call runs on the thread that calls it: heads are trained side
// by side, and the result does not depend on how many threads there are.
#pragma once

#include <cstdint>

namespace hata::learn {

/// A row-major matrix, or its transpose, as a factor of a product.
struct Factor {
  const float* data;
  int64_t stride;  ///< floats from one row to the next, as stored
  bool transposed = false;
};

/// c[m][n] = a[m][k] * b[k][n] + beta * c; all row-major, c's rows n floats apart.
void multiply(int64_t m, int64_t n, int64_t k, Factor a, Factor b, float beta, float* c);

}  // namespace hata::learn
