// CodeStore: after an update, every cell's code, length and 4-bit key are those of the key in that
// cell.

#include "index/code_store.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>

#include "core/f16.h"

namespace hata {
namespace {

constexpr HeadShape kShape{.n_q_heads = 6, .n_kv_heads = 3, .head_dim = 64};

struct Cache {
  explicit Cache(int64_t n_cells)
      : keys(static_cast<size_t>(n_cells) * kShape.n_kv_heads * kShape.head_dim) {}
  CacheView view() const {
    return {.data = reinterpret_cast<const std::byte*>(keys.data()),
            .type = DType::f16,
            .cell_stride = size_t{2} * kShape.n_kv_heads * kShape.head_dim,
            .head_stride = size_t{2} * kShape.head_dim};
  }
  void fill(int64_t cell, std::mt19937& rng) {
    std::normal_distribution<float> normal;
    const auto row = static_cast<size_t>(kShape.n_kv_heads * kShape.head_dim);
    for (size_t i = 0; i < row; ++i)
      keys[static_cast<size_t>(cell) * row + i] = f32_to_f16(normal(rng));
  }
  std::vector<uint16_t> keys;
};

CodeStore make_store(int64_t n_cells,
                     const CodeStore::Extras& extras = {.lengths = true, .q4_keys = true}) {
  const LayerWeights weights{random_projection(1, 0, kShape.n_kv_heads, kShape.head_dim, 128), {}};
  return CodeStore(std::make_shared<LayerWeights>(weights), kShape, n_cells, extras);
}

void update(CodeStore& store, const Cache& cache, const std::vector<int32_t>& cells, int threads) {
  Team team(threads);
  team.run([&](const Worker& worker) { store.update(cache.view(), cache.view(), cells, worker); });
}

TEST(CodeStore, RandomWritesLeaveNothingStale) {
  constexpr int64_t kCells = 2048;
  std::mt19937 rng(3);
  Cache cache(kCells);
  CodeStore store = make_store(kCells);
  for (int round = 0; round < 30; ++round) {
    std::set<int32_t> cells;
    if (round % 3 == 0) {  // a prefill: neighbours
      const auto first = static_cast<int32_t>(rng() % 1024);
      for (int32_t c = first; c < first + 1000; ++c) cells.insert(c);
    } else {
      for (int i = 0; i < 300; ++i) cells.insert(static_cast<int32_t>(rng() % kCells));
    }
    for (const int32_t cell : cells) cache.fill(cell, rng);
    for (const int32_t cell : cells) EXPECT_FALSE(store.matches(cache.view(), cell));
    update(store, cache, {cells.begin(), cells.end()}, 1 + round % 3);
    for (const int32_t cell : cells) ASSERT_TRUE(store.matches(cache.view(), cell)) << cell;
  }
}

TEST(CodeStore, CodesDoNotDependOnThreads) {
  constexpr int64_t kCells = 1000;
  std::mt19937 rng(4);
  Cache cache(kCells);
  for (int64_t cell = 0; cell < kCells; ++cell) cache.fill(cell, rng);
  std::vector<int32_t> all(kCells);
  std::iota(all.begin(), all.end(), 0);
  CodeStore one = make_store(kCells);
  CodeStore four = make_store(kCells);
  update(one, cache, all, 1);
  update(four, cache, all, 4);
  for (int head = 0; head < kShape.n_kv_heads; ++head) {
    EXPECT_TRUE(
        std::equal(one.codes(head, 0), one.codes(head, 0) + 2 * kCells, four.codes(head, 0)));
    EXPECT_TRUE(
        std::equal(one.lengths(head, 0), one.lengths(head, 0) + kCells / 2, four.lengths(head, 0)));
    EXPECT_TRUE(std::equal(one.q4_keys(head, 0), one.q4_keys(head, 0) + 40 * kCells,
                           four.q4_keys(head, 0)));
  }
}

TEST(CodeStore, MeanLengthIsEight) {
  constexpr int64_t kCells = 512;
  std::mt19937 rng(5);
  Cache cache(kCells);
  for (int64_t cell = 100; cell < kCells; ++cell) cache.fill(cell, rng);  // 0..99 unused: zeros
  std::vector<int32_t> all(kCells);
  std::iota(all.begin(), all.end(), 0);
  CodeStore store = make_store(kCells);
  update(store, cache, all, 2);
  double sum = 0.0;
  for (int64_t cell = 100; cell < kCells; ++cell) {
    sum += *store.lengths(0, cell / 2 * 2) >> (cell % 2 * 4) & 15;
  }
  EXPECT_NEAR(sum / (kCells - 100), 8.0, 0.1);
  EXPECT_EQ(*store.lengths(0, 0), 0x11) << "a key without length has the least weight";
}

TEST(CodeStore, KeepsWhatIsAskedFor) {
  constexpr int64_t kCells = 1000;  // memory for 1024
  const CodeStore codes = make_store(kCells, {});
  const CodeStore lengths = make_store(kCells, {.lengths = true});
  const CodeStore q4 = make_store(kCells, {.q4_keys = true});
  EXPECT_EQ(codes.lengths(0, 0), nullptr);
  EXPECT_EQ(codes.q4_keys(0, 0), nullptr);
  EXPECT_EQ(lengths.bytes() - codes.bytes(), 3u * 1024 / 2);
  EXPECT_EQ(q4.bytes() - codes.bytes(), 3u * 1024 * 40);
  EXPECT_EQ(q4.q4_keys(1, 5), q4.q4_keys(0, 0) + (1024 + 5) * 40);
}

}  // namespace
}  // namespace hata
