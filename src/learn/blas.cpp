#include "learn/blas.h"

#include <cblas.h>

namespace hata::learn {
namespace {

bool single_threaded() {
  openblas_set_num_threads(1);
  return true;
}

}  // namespace

void multiply(int64_t m, int64_t n, int64_t k, Factor a, Factor b, float beta, float* c) {
  [[maybe_unused]] static const bool once = single_threaded();
  cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans,
              b.transposed ? CblasTrans : CblasNoTrans, static_cast<int>(m), static_cast<int>(n),
              static_cast<int>(k), 1.0f, a.data, static_cast<int>(a.stride), b.data,
              static_cast<int>(b.stride), beta, c, static_cast<int>(n));
}

}  // namespace hata::learn
