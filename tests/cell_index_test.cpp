// CellIndex against a model so simple that it is right: a stamp and a flag per cell, sorted.

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "hata/index.h"

namespace hata {
namespace {

struct Model {
  explicit Model(int64_t n) : stamps(static_cast<size_t>(n), 0), stale(stamps.size(), true) {}

  void write(int64_t cell) {
    stamps[static_cast<size_t>(cell)] = ++clock;
    stale[static_cast<size_t>(cell)] = true;
  }
  std::vector<int32_t> last(int64_t first, const std::vector<uint64_t>& valid, int n,
                            bool newest) const {
    std::vector<int32_t> cells;
    for (size_t i = 0; i < valid.size() * 64; ++i) {
      if (valid[i / 64] >> (i % 64) & 1) cells.push_back(static_cast<int32_t>(i));
    }
    const auto key = [&](int32_t cell) {
      return std::pair(stamps[static_cast<size_t>(first + cell)], cell);
    };
    std::sort(cells.begin(), cells.end(),
              [&](int32_t a, int32_t b) { return newest ? key(a) > key(b) : key(a) < key(b); });
    if (cells.size() > static_cast<size_t>(n)) cells.resize(static_cast<size_t>(n));
    std::sort(cells.begin(), cells.end());
    return cells;
  }

  std::vector<uint64_t> stamps;
  std::vector<bool> stale;
  uint64_t clock = 0;
};

void expect_equal(const CellIndex& index, const Model& model, std::mt19937_64& rng) {
  const int64_t n = index.n_cells();
  std::vector<int32_t> stale;
  const int64_t begin = static_cast<int64_t>(rng() % static_cast<uint64_t>(n));
  const int64_t end = begin + static_cast<int64_t>(rng() % static_cast<uint64_t>(n - begin + 1));
  index.stale(begin, end, stale);
  std::vector<int32_t> expected;
  for (int64_t cell = begin; cell < end; ++cell) {
    if (model.stale[static_cast<size_t>(cell)]) expected.push_back(static_cast<int32_t>(cell));
  }
  ASSERT_EQ(stale, expected);
  ASSERT_EQ(index.any_stale(begin, end), !expected.empty());

  const int64_t first = begin / 64 * 64;
  std::vector<uint64_t> valid(static_cast<size_t>((n - first) / 64));
  for (auto& word : valid) word = rng() % 4 == 0 ? 0 : rng() & rng();
  const int count = static_cast<int>(rng() % 80);
  std::vector<int32_t> cells(80);
  for (const bool newest : {true, false}) {
    const int got = newest ? index.newest(first, valid, count, cells.data())
                           : index.oldest(first, valid, count, cells.data());
    const std::vector<int32_t> want = model.last(first, valid, count, newest);
    ASSERT_EQ(std::vector(cells.begin(), cells.begin() + got), want)
        << (newest ? "newest" : "oldest");
  }
}

TEST(CellIndex, RandomEventsMatchTheModel) {
  std::mt19937_64 rng(7);
  for (const int64_t n : {64, 256, 1024}) {
    CellIndex index(n);
    Model model(n);
    const auto cell = [&] { return static_cast<int64_t>(rng() % static_cast<uint64_t>(n)); };
    for (int event = 0; event < 2000; ++event) {
      int64_t begin = cell();
      int64_t end = cell();
      if (begin > end) std::swap(begin, end);
      switch (rng() % 8) {
        case 0: {  // a restore, a copy between sequences, a clear
          index.written(begin, end);
          for (int64_t c = begin; c < end; ++c) model.write(c);
          break;
        }
        case 1: {  // a context shift
          index.changed(begin, end);
          std::fill(model.stale.begin() + begin, model.stale.begin() + end, true);
          break;
        }
        case 2: {  // a step brings the view up to date
          index.refreshed(begin, end);
          std::fill(model.stale.begin() + begin, model.stale.begin() + end, false);
          break;
        }
        default: {  // a decode step of a few sequences, or a prefill
          std::vector<int64_t> cells(1 + rng() % 40);
          for (auto& c : cells) c = cell();
          index.written(cells);
          for (const int64_t c : cells) model.write(c);
        }
      }
      ASSERT_NO_FATAL_FAILURE(expect_equal(index, model, rng)) << "event " << event << " n " << n;
    }
  }
}

TEST(CellIndex, NewIndexHoldsEveryCellStale) {
  const CellIndex index(100);
  std::vector<int32_t> cells;
  index.stale(0, 100, cells);
  std::vector<int32_t> all(100);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(cells, all);
  EXPECT_FALSE(index.any_stale(40, 40));
}

}  // namespace
}  // namespace hata
