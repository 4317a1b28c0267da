#include "random_cells.h"

#include <ggml.h>

#include <vector>

#include "core/random.h"

namespace hata::cli {
namespace {

// Drawing from a table is faster than making the numbers.
const std::vector<uint16_t>& normal_table() {
  static const std::vector<uint16_t> table = [] {
    Random random(1);
    std::vector<uint16_t> numbers(1 << 16);
    for (auto& x : numbers) x = ggml_fp32_to_fp16(random.quick_normal());
    return numbers;
  }();
  return table;
}

}  // namespace

void fill_normal(uint16_t* data, size_t n, uint64_t seed, Team& team) {
  const std::vector<uint16_t>& table = normal_table();
  team.run([&](const Worker& worker) {
    const size_t begin = n * worker.ith / worker.nth;
    const size_t end = n * (worker.ith + 1) / worker.nth;
    Random random(seed * 1024 + worker.ith);
    uint64_t u = 0;
    for (size_t i = begin; i < end; ++i, u >>= 16) {
      if ((i - begin) % 4 == 0) u = random.next();
      data[i] = table[u & 0xffff];
    }
  });
}

}  // namespace hata::cli
