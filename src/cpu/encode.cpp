#include "hata/encode.h"

#include <cmath>

#include "cpu/kernels.h"

namespace hata {

void encode(const float* w, int head_dim, int rbit, const void* x, DType type, size_t stride,
            int64_t n, uint64_t* codes) {
  cpu::kernels().encode(w, head_dim, rbit, x, type, stride, n, codes);
}

void key_norms(int head_dim, const void* x, DType type, size_t stride, int64_t n, float* norms) {
  cpu::kernels().key_norms(head_dim, x, type, stride, n, norms);
}

void dots(const float* q, int head_dim, const void* x, DType type, size_t stride, int64_t n,
          float* out) {
  cpu::kernels().dots(q, head_dim, x, type, stride, n, out);
}

void key_lengths(int head_dim, const void* x, DType type, size_t stride, int64_t n, float inv_unit,
                 uint8_t* lengths) {
  constexpr int64_t kBatch = 64;
  float norms[kBatch];
  for (int64_t v = 0; v < n; v += kBatch) {
    const int64_t batch = n - v < kBatch ? n - v : kBatch;
    const std::byte* rows = static_cast<const std::byte*>(x) + static_cast<size_t>(v) * stride;
    key_norms(head_dim, rows, type, stride, batch, norms);
    for (int64_t i = 0; i < batch; ++i) {
      const float length = std::floor(norms[i] * inv_unit + 0.5f);
      // The order of the comparisons makes a NaN 1.
      lengths[v + i] = length >= 15.0f ? 15 : length >= 1.0f ? static_cast<uint8_t>(length) : 1;
    }
  }
}

}  // namespace hata
