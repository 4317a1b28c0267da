// TopK of the level in use against a full sort: the same set, ties to the lowest cell, whatever
// the tiles and the ranges of the threads.
#include <algorithm>
#include <chrono>
#include <functional>

#include "core/reference.h"
#include "hata/select.h"
#include "kernel_test.h"

namespace hata {
namespace {

using test::Random;

constexpr int kBound = 480;

struct Scores {
  const char* name;
  std::function<int(int64_t i, int64_t n, Random&)> at;
};

const Scores kScores[] = {
    {"random", [](int64_t, int64_t, Random& r) { return static_cast<int>(r.below(961)) - 480; }},
    {"normal",
     [](int64_t, int64_t, Random& r) {
       return std::clamp(static_cast<int>(r.normal() * 40.0f), -480, 480);
     }},
    {"few values", [](int64_t, int64_t, Random& r) { return static_cast<int>(r.below(3)); }},
    {"all equal", [](int64_t, int64_t, Random&) { return 7; }},
    {"all lowest", [](int64_t, int64_t, Random&) { return -480; }},
    {"all highest", [](int64_t, int64_t, Random&) { return 480; }},
    {"ascending",
     [](int64_t i, int64_t n, Random&) { return static_cast<int>(i * 960 / n) - 480; }},
    {"descending",
     [](int64_t i, int64_t n, Random&) { return 480 - static_cast<int>(i * 960 / n); }},
    {"skewed",
     [](int64_t i, int64_t, Random& r) {
       return i % 1000 < 20 ? 400 + static_cast<int>(r.below(80)) : -300;
     }},
};

std::vector<int16_t> make_scores(const Scores& kind, int64_t n, Random& random) {
  std::vector<int16_t> scores;
  for (int64_t i = 0; i < n; ++i) scores.push_back(static_cast<int16_t>(kind.at(i, n, random)));
  return scores;
}

/// Pushes the cells [begin, end) in tiles of random sizes.
void push_tiles(TopK& top, const std::vector<int16_t>& scores, const std::vector<uint64_t>& valid,
                int64_t begin, int64_t end, Random& random) {
  while (begin < end) {
    const int64_t tile = std::min(end - begin, 64 * (1 + random.below(40)));
    top.push(begin, scores.data() + begin, valid.data() + begin / 64, tile);
    begin += tile;
  }
}

void expect_top(const TopK& top, const std::vector<int16_t>& scores,
                const std::vector<uint64_t>& valid, int64_t k, const std::string& what) {
  const std::vector<int32_t> expected =
      reference::select(scores.data(), valid.data(), static_cast<int64_t>(scores.size()), k);
  const std::vector<int32_t> got(top.cells().begin(), top.cells().end());
  EXPECT_EQ(got, expected) << what << ", k " << k;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(top.scores()[i], scores[static_cast<size_t>(got[i])]);
  }
}

TEST(TopK, EqualsFullSort) {
  Random random(1);
  TopK top;
  const int64_t n = 64 * 150;
  for (const Scores& kind : kScores) {
    const std::vector<int16_t> scores = make_scores(kind, n, random);
    for (const double share : {1.0, 0.5, 0.02, 0.0}) {
      const std::vector<uint64_t> valid = random.valid(n, share);
      for (const int64_t k : {1, 2, 31, 32, 64, 512, 2048, 9599, 9600, 20000}) {
        top.reset(k, kBound);
        push_tiles(top, scores, valid, 0, n, random);
        top.prune();
        expect_top(top, scores, valid, k, kind.name);
      }
    }
  }
}

TEST(TopK, SplitRangesMergeToTheSameSet) {
  Random random(2);
  const int64_t words = 150;
  for (const Scores& kind : kScores) {
    const std::vector<int16_t> scores = make_scores(kind, words * 64, random);
    const std::vector<uint64_t> valid = random.valid(words * 64, 0.7);
    for (const int64_t k : {1, 40, 512, 3000, 9600}) {
      for (const int parts : {2, 3, 8}) {
        std::vector<TopK> tops(static_cast<size_t>(parts));
        int64_t begin = 0;
        for (int p = 0; p < parts; ++p) {
          const int64_t end = p + 1 == parts ? words : begin + random.below(words - begin + 1);
          tops[p].reset(k, kBound);
          push_tiles(tops[p], scores, valid, begin * 64, end * 64, random);
          if (random.chance(0.5)) tops[p].prune();
          begin = end;
        }
        for (int p = 1; p < parts; ++p) tops[0].append(tops[p]);
        tops[0].prune();
        expect_top(tops[0], scores, valid, k, kind.name);
      }
    }
  }
}

TEST(TopK, NothingValidAndNothingWanted) {
  TopK top;
  const std::vector<int16_t> scores(256, 3);
  const std::vector<uint64_t> none(4, 0), all(4, ~uint64_t{0});
  top.reset(10, kBound);
  top.push(0, scores.data(), none.data(), 256);
  top.prune();
  EXPECT_TRUE(top.cells().empty());
  top.reset(0, kBound);
  top.push(0, scores.data(), all.data(), 256);
  top.prune();
  EXPECT_TRUE(top.cells().empty());
}

TEST(TopK, LargestBound) {
  Random random(3);
  const int bound = 30720;
  std::vector<int16_t> scores;
  for (int i = 0; i < 64 * 3000; ++i) {
    scores.push_back(static_cast<int16_t>(random.below(2 * bound + 1) - bound));
  }
  const std::vector<uint64_t> valid = random.valid(64 * 3000, 1.0);
  TopK top;
  top.reset(100, bound);
  push_tiles(top, scores, valid, 0, 64 * 3000, random);
  top.prune();
  expect_top(top, scores, valid, 100, "largest bound");
}

// Every key enters the buffer; a selection that were not linear would take minutes here.
TEST(TopK, AscendingScoresStayLinear) {
  const int64_t n = int64_t{1} << 21;
  std::vector<int16_t> scores;
  for (int64_t i = 0; i < n; ++i) scores.push_back(static_cast<int16_t>(i * 960 / n - 480));
  const std::vector<uint64_t> valid(static_cast<size_t>(n / 64), ~uint64_t{0});
  TopK top;
  const auto start = std::chrono::steady_clock::now();
  top.reset(512, kBound);
  top.push(0, scores.data(), valid.data(), n);
  top.prune();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 2.0);
  expect_top(top, scores, valid, 512, "ascending");
}

}  // namespace
}  // namespace hata
