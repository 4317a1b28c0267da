// Stage 2, score: how near each key is to a group of queries, as a small integer.
#pragma once

#include <cstdint>

#include "hata/types.h"

namespace hata {

/// Scores are compared as score >> kScoreShift. With lengths this merges neighbours that lose
/// nothing in accuracy; without them (every length 8, D even) it merges none.
constexpr int kScoreShift = 4;

/// |score >> kScoreShift| never exceeds 15 * group * rbit >> 4.
constexpr int max_score(int group, int rbit) { return (15 * group * rbit) >> kScoreShift; }

/// For the `n` keys of one KV head and the `group` query heads that read it:
///   D(i)      = group * rbit - 2 * sum over g of popcount(query[g] xor keys[i])
///   scores[i] = (lengths[i] * D(i)) >> kScoreShift      (larger is nearer)
/// query: [group][rbit/64] words. keys: [n][rbit/64] words, 64-byte aligned.
/// lengths: 4 bits a key, key i in the low nibble of byte i / 2 where i is even, else in the high
/// one; nullptr: all 8 (the paper's order, section 3.2). n is a multiple of 64; scores holds n.
void score(const uint64_t* query, int group, int rbit, const uint64_t* keys, const uint8_t* lengths,
           int64_t n, int16_t* scores);

}  // namespace hata
