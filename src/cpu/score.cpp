#include "hata/score.h"

#include <bit>

#include "cpu/kernels.h"

namespace hata {
namespace {

using cpu::ScorePlan;

/// One word of the plan: 64 counters, bit-sliced (plane p holds bit p of each).
struct Counters {
  static constexpr int kPlanes = 9;  // counts to 128 and a sign
  uint64_t plane[kPlanes] = {};

  void add(uint64_t bits) {
    for (uint64_t& p : plane) {
      const uint64_t carry = p & bits;
      p ^= bits;
      bits = carry;
    }
  }

  void subtract(int constant) {
    uint64_t borrow = 0;
    for (int p = 0; p < kPlanes; ++p) {
      const uint64_t bits = (constant >> p & 1) != 0 ? ~uint64_t{0} : 0;
      const uint64_t next = (~plane[p] & (bits | borrow)) | (bits & borrow);
      plane[p] ^= bits ^ borrow;
      borrow = next;
    }
  }
};

/// Sets word w of the plan's majority and planes: with c the counts of set query bits and h the
/// upper half of the group, the key's bit agrees with the majority if it is 1 where c - h >= 0,
/// and u = (|G - 2c| - odd) / 2 is c - h there, else h - c - odd.
void plan_word(const uint64_t* query, int group, int w, ScorePlan& plan) {
  const int odd = group % 2;
  Counters counts;
  for (int g = 0; g < group; ++g) counts.add(query[g * plan.words + w]);
  counts.subtract((group + odd) / 2);
  const uint64_t negative = counts.plane[Counters::kPlanes - 1];
  plan.majority[w] = ~negative;
  for (uint64_t& p : counts.plane) p ^= negative;  // -x - 1 where x was negative
  if (odd == 0) counts.add(negative);              // -x
  if (odd != 0) plan.planes[0][w] = ~uint64_t{0};
  for (int p = odd; p < plan.n_planes; ++p) {
    plan.planes[p][w] = counts.plane[p - odd];
    plan.base += std::popcount(plan.planes[p][w]) << (p - odd);
  }
}

ScorePlan make_plan(const uint64_t* query, int group, int rbit) {
  const int odd = group % 2;
  ScorePlan plan;
  plan.words = rbit / kCodeWordBits;
  plan.n_planes = odd + static_cast<int>(std::bit_width(static_cast<unsigned>(group / 2)));
  plan.shift = 1 - odd;
  plan.base = odd * rbit / 2;
  plan.narrow = 15 * group * rbit / 2 <= INT16_MAX;
  for (int w = 0; w < plan.words; ++w) plan_word(query, group, w, plan);
  return plan;
}

}  // namespace

void score(const uint64_t* query, int group, int rbit, const uint64_t* keys, const uint8_t* lengths,
           int64_t n, int16_t* scores) {
  cpu::kernels().score(make_plan(query, group, rbit), keys, lengths, n, scores);
}

void score_squares(const uint64_t* query, int group, int rbit, const uint64_t* keys,
                   const uint8_t* lengths, int64_t n, int16_t* scores) {
  cpu::kernels().score_squares(query, group, rbit / kCodeWordBits, keys, lengths, n, scores);
}

}  // namespace hata
