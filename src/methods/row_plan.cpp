#include "methods/row_plan.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hata {
namespace {

constexpr uint16_t kMinusInfinity = 0xfc00;

// Bit i: cell i of 64 is valid. Two loops that compilers turn into vector code: compare to bytes,
// then gather the lowest bits of 8 bytes by one multiplication.
uint64_t valid_word(const uint16_t* mask) {
  uint8_t is_valid[64];
  for (int i = 0; i < 64; ++i) is_valid[i] = mask[i] != kMinusInfinity ? 1 : 0;
  uint64_t word = 0;
  for (int i = 0; i < 8; ++i) {
    uint64_t bytes;
    std::memcpy(&bytes, is_valid + 8 * i, 8);
    word |= (bytes * 0x0102040810204080u >> 56) << (8 * i);
  }
  return word;
}

}  // namespace

int64_t valid_cells(const uint16_t* mask, int64_t n, uint64_t* words) {
  int64_t count = 0;
  for (int64_t first = 0; first < n; first += 64) {
    const int64_t in_word = std::min<int64_t>(64, n - first);
    uint64_t word = 0;
    if (mask == nullptr) {
      word = in_word == 64 ? ~uint64_t{0} : (uint64_t{1} << in_word) - 1;
    } else if (in_word == 64) {
      word = valid_word(mask + first);
    } else {
      for (int64_t i = 0; i < in_word; ++i) {
        word |= static_cast<uint64_t>(mask[first + i] != kMinusInfinity) << i;
      }
    }
    words[first / 64] = word;
    count += std::popcount(word);
  }
  return count;
}

}  // namespace hata
