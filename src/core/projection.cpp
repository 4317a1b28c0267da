// The random projection. Integers, additions, multiplications, divisions and roots of IEEE doubles
// only, in a fixed order: the same on every machine.
#include <cmath>
#include <string>
#include <vector>

#include "core/f16.h"
#include "core/random.h"
#include "hata/encode.h"

namespace hata {
namespace {

/// Makes the columns of m [rows][cols] orthonormal (modified Gram-Schmidt). The inner loops run
/// over columns, each with a sum of its own, so they vectorise in the order written.
void orthonormalise(std::vector<double>& m, int rows, int cols) {
  const auto row = [&](int i) { return m.data() + static_cast<size_t>(i) * cols; };
  std::vector<double> dots(static_cast<size_t>(cols));
  for (int j = 0; j < cols; ++j) {
    for (int k = j; k < cols; ++k) dots[k] = 0.0;
    for (int i = 0; i < rows; ++i) {
      const double* r = row(i);
      const double pivot = r[j];
      for (int k = j; k < cols; ++k) dots[k] += pivot * r[k];
    }
    const double norm = std::sqrt(dots[j]);
    for (int k = j + 1; k < cols; ++k) dots[k] /= norm;
    for (int i = 0; i < rows; ++i) {
      double* r = row(i);
      const double pivot = r[j] /= norm;
      for (int k = j + 1; k < cols; ++k) r[k] -= pivot * dots[k];
    }
  }
}

void fill_head(Random random, int head_dim, int rbit, float* w) {
  for (int first = 0; first < rbit; first += head_dim) {
    const int cols = rbit - first < head_dim ? rbit - first : head_dim;
    std::vector<double> block(static_cast<size_t>(head_dim) * cols);
    for (double& value : block) value = random.normal();
    orthonormalise(block, head_dim, cols);
    for (int i = 0; i < head_dim; ++i) {
      for (int j = 0; j < cols; ++j) {
        const auto value = static_cast<float>(block[static_cast<size_t>(i) * cols + j]);
        w[static_cast<size_t>(i) * rbit + first + j] = f16_to_f32(f32_to_f16(value));
      }
    }
  }
}

}  // namespace

Projection random_projection(uint64_t seed, int layer, int n_heads, int head_dim, int rbit) {
  check_shape({n_heads, n_heads, head_dim});
  if (rbit != 64 && rbit != 128 && rbit != 256) {
    throw Error("rbit is " + std::to_string(rbit) + "; supported: 64, 128, 256");
  }
  Projection projection{n_heads, head_dim, rbit, {}};
  projection.weights.resize(static_cast<size_t>(n_heads) * head_dim * rbit);
  Random seeds(seed);
  Random layer_seeds(seeds.next() + static_cast<uint64_t>(layer));
  for (int h = 0; h < n_heads; ++h) {
    float* w = projection.weights.data() + static_cast<size_t>(h) * head_dim * rbit;
    fill_head(Random(layer_seeds.next()), head_dim, rbit, w);
  }
  return projection;
}

}  // namespace hata
