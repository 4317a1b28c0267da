// Stage 2, score: how near each key is to a group of queries, as a small integer.
#pragma once

#include <bit>
#include <cstdint>

#include "hata/types.h"

namespace hata {

/// How the distances of a group's query heads become one score: score() or score_squares().
enum class ScoreRule { sum, squares };

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

/// Sums of squares up to this power of two all score 0: of keys that nobody would choose.
constexpr int kLevelFloor = 6;

/// A logarithm of x in 64 steps an octave, linear within each: the exponent and six bits of the
/// mantissa of x as a float.
constexpr int score_level(int x) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(x));
  const int level = static_cast<int>(bits >> 17) - ((127 + kLevelFloor) << 6);
  return level > 0 ? level : 0;
}

/// No score of squares exceeds it; none is negative.
constexpr int max_level(int group, int rbit) {
  return score_level(15 * group * (rbit / 2) * (rbit / 2));
}

/// The rule of squares, with shapes as above:
///   e(g, i)   = max(0, rbit / 2 - popcount(query[g] xor keys[i]))    (agreement beyond chance)
///   scores[i] = score_level(lengths[i] * sum over g of e(g, i)^2)
/// In a sum of distances a head that needs a key alone is outvoted by heads that do not: their
/// chance disagreement weighs as much as its agreement. Squares let what one head is sure of count.
void score_squares(const uint64_t* query, int group, int rbit, const uint64_t* keys,
                   const uint8_t* lengths, int64_t n, int16_t* scores);

}  // namespace hata
