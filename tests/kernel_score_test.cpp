// The score rules of the level in use against the scalar reference, bit for bit.
#include <algorithm>

#include "core/reference.h"
#include "hata/score.h"
#include "kernel_test.h"

namespace hata {
namespace {

using test::AlignedVector;
using test::Random;

struct Case {
  int group;
  int rbit;
  int64_t n;
  std::vector<uint64_t> query;
  AlignedVector<uint64_t> keys;
  std::vector<uint8_t> lengths;

  Case(int g, int r, int64_t count, Random& random)
      : group(g), rbit(r), n(count), query(size(g)), keys(size(count)) {
    for (uint64_t& word : query) word = random.bits();
    for (uint64_t& word : keys) word = random.bits();
    for (int64_t i = 0; i < n / 2; ++i) lengths.push_back(static_cast<uint8_t>(random.bits()));
  }

  size_t words() const { return static_cast<size_t>(rbit / 64); }
  size_t size(int64_t rows) const { return static_cast<size_t>(rows) * words(); }

  void expect_equal(const uint8_t* lens) const {
    std::vector<int16_t> got(static_cast<size_t>(n)), expected(got);
    score(query.data(), group, rbit, keys.data(), lens, n, got.data());
    reference::score(query.data(), group, rbit, keys.data(), lens, n, expected.data());
    EXPECT_EQ(got, expected) << "group " << group << ", rbit " << rbit << ", n " << n
                             << (lens != nullptr ? ", lengths" : "");
    for (const int16_t s : got) EXPECT_LE(std::abs(s), max_score(group, rbit));

    score_squares(query.data(), group, rbit, keys.data(), lens, n, got.data());
    reference::score_squares(query.data(), group, rbit, keys.data(), lens, n, expected.data());
    EXPECT_EQ(got, expected) << "squares, group " << group << ", rbit " << rbit << ", n " << n
                             << (lens != nullptr ? ", lengths" : "");
    for (const int16_t s : got) EXPECT_TRUE(s >= 0 && s <= max_level(group, rbit)) << s;
  }
  void expect_equal() const {
    expect_equal(nullptr);
    expect_equal(lengths.data());
  }
};

TEST(Score, EqualsReferenceForAllGroupsAndCodes) {
  Random random(1);
  for (int group = 1; group <= kMaxGroup; ++group) {
    for (const int rbit : {64, 128, 256}) Case(group, rbit, 192, random).expect_equal();
  }
}

TEST(Score, EqualsReferenceOnManyKeys) {
  Random random(2);
  for (const int group : {1, 4, 8}) Case(group, 128, 64 * 257, random).expect_equal();
}

// Query heads that agree, and keys equal to them or opposite: the largest scores there are.
TEST(Score, EqualsReferenceAtTheBounds) {
  Random random(3);
  for (const int group : {1, 2, 3, 4, 5, 7, 8, 12, 16, 71, 127, 128}) {
    for (const int rbit : {64, 128, 256}) {
      Case c(group, rbit, 128, random);
      for (int g = 1; g < group; ++g) {
        std::copy_n(c.query.begin(), c.words(), c.query.begin() + c.size(g));
      }
      for (int64_t i = 0; i < c.n; ++i) {
        for (size_t w = 0; w < c.words(); ++w) {
          if (i % 3 == 0) c.keys[c.size(i) + w] = c.query[w];
          if (i % 3 == 1) c.keys[c.size(i) + w] = ~c.query[w];
        }
      }
      c.expect_equal();
      std::fill(c.lengths.begin(), c.lengths.end(), 0xff);
      c.expect_equal();
      std::vector<int16_t> squares(static_cast<size_t>(c.n));
      score_squares(c.query.data(), group, rbit, c.keys.data(), c.lengths.data(), c.n,
                    squares.data());
      EXPECT_EQ(squares[0], max_level(group, rbit));
      EXPECT_EQ(squares[1], 0);
    }
  }
}

// Heads that all but agree on a skewed code: few planes carry all.
TEST(Score, EqualsReferenceForSkewedCodes) {
  Random random(4);
  for (const int group : {2, 3, 4, 5, 7, 8, 12, 16, 71}) {
    Case c(group, 128, 256, random);
    for (uint64_t& word : c.query) word = random.bits() & random.bits() & random.bits();
    for (uint64_t& word : c.keys) word = random.bits() | random.bits() | random.bits();
    c.expect_equal();
  }
}

TEST(Score, EvenLengthsGiveThePapersOrder) {
  Random random(5);
  const Case c(4, 128, 640, random);
  std::vector<int16_t> plain(640), eights(640);
  const std::vector<uint8_t> lengths(320, 0x88);
  score(c.query.data(), 4, 128, c.keys.data(), nullptr, 640, plain.data());
  score(c.query.data(), 4, 128, c.keys.data(), lengths.data(), 640, eights.data());
  EXPECT_EQ(plain, eights);
  score_squares(c.query.data(), 4, 128, c.keys.data(), nullptr, 640, plain.data());
  score_squares(c.query.data(), 4, 128, c.keys.data(), lengths.data(), 640, eights.data());
  EXPECT_EQ(plain, eights);
}

TEST(Score, LevelsRiseWithoutEnd) {
  EXPECT_EQ(score_level(0), 0);
  EXPECT_EQ(score_level(1 << kLevelFloor), 0);
  EXPECT_EQ(score_level(65), 1);
  EXPECT_EQ(score_level(1 << (kLevelFloor + 5)), 5 * 64);
  const int largest = 15 * kMaxGroup * 128 * 128;
  int last = 0;
  for (int x = 0; x <= largest; x = x < 100000 ? x + 1 : x + 97) {
    const int level = score_level(x);
    ASSERT_GE(level, last) << x;
    ASSERT_LE(level - last, 1) << x;
    last = level;
  }
  EXPECT_EQ(score_level(largest), max_level(kMaxGroup, 256));
  static_assert(max_level(kMaxGroup, 256) < INT16_MAX);
}

// One head of four has the code of key 0, from which the others are far (0 and 44 bits); key 1 is a
// little nearer to each than chance (30 of 64 bits).
TEST(Score, SquaresHearAHeadThatASumOutvotes) {
  const uint64_t others = (uint64_t{1} << 44) - 1;
  const std::vector<uint64_t> query = {0, others, others, others};
  AlignedVector<uint64_t> keys(64);
  keys[1] = ((uint64_t{1} << 22) - 1) | (uint64_t{0xff} << 44);
  std::vector<int16_t> sum(64), squares(64);
  score(query.data(), 4, 64, keys.data(), nullptr, 64, sum.data());
  score_squares(query.data(), 4, 64, keys.data(), nullptr, 64, squares.data());
  EXPECT_LT(sum[0], sum[1]);
  EXPECT_GT(squares[0], squares[1]);
}

}  // namespace
}  // namespace hata
