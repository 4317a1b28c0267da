#include "cpu/rank.h"

#include "cpu/kernels.h"

namespace hata {

void to_floats(const void* row, DType type, int n, float* out) {
  cpu::kernels().to_floats(row, type, n, out);
}

void channel_dots(const ChannelArgs& args) { cpu::kernels().channel_dots(args); }

uint64_t floats_above(const float* x, float threshold) {
  return cpu::kernels().floats_above(x, threshold);
}

int64_t count_floats_above(const float* x, int64_t n, float threshold) {
  return cpu::kernels().count_floats_above(x, n, threshold);
}

float exp_all(float* x, int64_t n, float max) { return cpu::kernels().exp_all(x, n, max); }

void count_equal(const uint16_t* hashes, uint16_t hash, int64_t n, uint16_t* counts) {
  cpu::kernels().count_equal(hashes, hash, n, counts);
}

}  // namespace hata
