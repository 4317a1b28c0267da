// Quest and Loki on the GPU against plain loops: what is stored beside the keys, and the chosen
// sets up to ties of float scores.
#include "cuda/rivals.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/f16.h"

namespace hata::cuda {
namespace {

float to_float(uint16_t x, hata_cuda_type type) {
  if (type == HATA_CUDA_F16) return f16_to_f32(x);
  return std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
}

uint16_t from_float(float x, hata_cuda_type type) {
  if (type == HATA_CUDA_F16) return f32_to_f16(x);
  const auto bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <class T>
class Buffer {
 public:
  explicit Buffer(size_t n) : n_(n) {
    EXPECT_EQ(cudaSuccess, cudaMalloc(&data_, std::max<size_t>(n * sizeof(T), 16)));
    EXPECT_EQ(cudaSuccess, cudaMemset(data_, 0, n * sizeof(T)));
  }
  explicit Buffer(const std::vector<T>& from) : Buffer(from.size()) {
    EXPECT_EQ(cudaSuccess, cudaMemcpy(data_, from.data(), n_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }
  T* get() const { return static_cast<T*>(data_); }
  std::vector<T> read() const {
    std::vector<T> out(n_);
    EXPECT_EQ(cudaSuccess, cudaMemcpy(out.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  void* data_ = nullptr;
  size_t n_;
};

struct Case {
  std::string name;
  int n_q_heads, n_kv_heads, head_dim;
  std::vector<int> n;  ///< by row
  int budget;
  hata_cuda_type type = HATA_CUDA_F16;
  int page_size = 0;  ///< of the cache; 0: contiguous
  int sink = 0;
  int recent = 0;
  bool equal = false;  ///< all keys alike, so that every score ties
  bool separate_only = false;
};

std::vector<Case> cases() {
  std::vector<Case> all = {
      {"one_cell", 8, 2, 128, {1}, 64},
      {"one_page", 8, 2, 128, {16, 13}, 64},
      {"fewer_than_budget", 8, 2, 128, {100, 511, 512}, 512},
      {"budget_below_a_page", 8, 2, 128, {5000}, 7},
      {"gqa", 32, 8, 128, {4096}, 512},
      {"ragged", 32, 8, 128, {4097, 1, 333, 20000}, 512},
      {"mha", 32, 32, 128, {5001, 5000}, 256},
      {"group_8", 16, 2, 128, {9000}, 200},
      {"head_64", 8, 4, 64, {7000, 6999}, 128},
      {"bf16", 32, 8, 128, {4096, 8000}, 128, HATA_CUDA_BF16},
      {"paged", 32, 8, 128, {4090, 70}, 512, HATA_CUDA_F16, 16},
      {"window", 8, 2, 128, {3000, 40}, 256, HATA_CUDA_F16, 0, 4, 32},
      {"ties", 8, 2, 128, {3000}, 256, HATA_CUDA_F16, 0, 0, 0, true},
      {"many_blocks", 4, 1, 128, {300000}, 4096},
      {"many_segments", 128, 128, 64, {3000, 2000, 1000}, 96},
  };
  Case beyond{"beyond_shared_memory", 4, 1, 64, {450000}, 4096};
  beyond.separate_only = true;
  all.push_back(beyond);
  return all;
}

/// A step with random queries and keys, on the device and here.
struct Problem {
  explicit Problem(const Case& c) : test(c) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    n_rows = static_cast<int>(c.n.size());
    max_n = *std::max_element(c.n.begin(), c.n.end());
    const int page = c.page_size > 0 ? c.page_size : 1;
    n_pages = (max_n + page - 1) / page;
    const size_t row = static_cast<size_t>(c.n_kv_heads) * static_cast<size_t>(c.head_dim);
    host.resize(static_cast<size_t>(n_rows) * static_cast<size_t>(n_pages * page) * row);
    for (auto& x : host) x = from_float(c.equal ? 0.5f : normal(random), c.type);
    q.resize(static_cast<size_t>(n_rows * c.n_q_heads * c.head_dim));
    for (auto& x : q) x = normal(random);
    table.resize(static_cast<size_t>(n_rows * n_pages));
    std::iota(table.begin(), table.end(), 0);
    if (c.page_size > 0) std::shuffle(table.begin(), table.end(), random);
    basis.resize(static_cast<size_t>(c.n_kv_heads * c.head_dim * 32));
    for (auto& x : basis) x = normal(random) / std::sqrt(static_cast<float>(c.head_dim));
  }

  /// Cell `cell` of sequence s: where its row of all heads starts.
  size_t cell_at(int s, int cell) const {
    const int page = test.page_size > 0 ? test.page_size : 1;
    const auto of = static_cast<size_t>(table[static_cast<size_t>(s * n_pages + cell / page)]);
    return (of * static_cast<size_t>(page) + static_cast<size_t>(cell % page)) *
           static_cast<size_t>(test.n_kv_heads * test.head_dim);
  }
  float key(int s, int cell, int head, int i) const {
    return to_float(host[cell_at(s, cell) + static_cast<size_t>(head * test.head_dim + i)],
                    test.type);
  }
  float query(int row, int head, int i) const {
    return q[static_cast<size_t>((row * test.n_q_heads + head) * test.head_dim + i)];
  }

  hata_cuda_step step(const Buffer<uint16_t>& keys, const Buffer<float>& queries,
                      const Buffer<int>& lengths, const Buffer<int>& pages) const {
    hata_cuda_step s{};
    s.shape = {test.n_q_heads, test.n_kv_heads, test.head_dim, 128};
    s.cache.keys = keys.get();
    s.cache.values = keys.get();
    s.cache.type = test.type;
    s.cache.cell_stride = int64_t{2} * test.n_kv_heads * test.head_dim;
    s.cache.head_stride = int64_t{2} * test.head_dim;
    s.cache.seq_stride = s.cache.cell_stride * n_pages;
    if (test.page_size > 0) {
      s.cache.block_table = pages.get();
      s.cache.table_stride = n_pages;
      s.cache.page_size = test.page_size;
      s.cache.page_stride = s.cache.cell_stride * test.page_size;
    }
    s.n_rows = n_rows;
    s.q = queries.get();
    s.q_type = HATA_CUDA_F32;
    s.q_row_stride = int64_t{test.n_q_heads} * test.head_dim;
    s.q_head_stride = test.head_dim;
    s.n_kv = lengths.get();
    s.max_n_kv = max_n;
    s.budget = test.budget;
    s.sink = test.sink;
    s.recent = test.recent;
    s.encode_last = 1;
    s.scale = 1.0f;
    return s;
  }

  Case test;
  int n_rows, max_n, n_pages;
  std::vector<uint16_t> host;
  std::vector<float> q, basis;
  std::vector<int> table;
};

/// The chosen ones of `scores` are `chosen`, but for scores as good as the worst chosen one.
void expect_best(const std::vector<double>& scores, const std::vector<bool>& chosen,
                 const std::string& where) {
  double best_left = -INFINITY;
  double worst_chosen = INFINITY;
  double largest = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isfinite(scores[i])) largest = std::max(largest, std::abs(scores[i]));
    if (chosen[i]) {
      worst_chosen = std::min(worst_chosen, scores[i]);
    } else {
      best_left = std::max(best_left, scores[i]);
    }
  }
  EXPECT_LE(best_left, worst_chosen + 1e-4 * largest) << where;
}

/// Marks the cells of a list; each one valid, none twice.
std::vector<bool> marked(const int32_t* list, int count, int n, const std::string& where) {
  std::vector<bool> marks(static_cast<size_t>(n));
  for (int i = 0; i < count; ++i) {
    if (list[i] < 0 || list[i] >= n || marks[static_cast<size_t>(list[i])]) {
      ADD_FAILURE() << where << ": place " << i << " of " << count << " holds cell " << list[i];
      return marks;
    }
    marks[static_cast<size_t>(list[i])] = true;
  }
  return marks;
}

class RivalsTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) GTEST_SKIP() << "no GPU: no CUDA device";
    cudaDeviceProp properties{};
    ASSERT_EQ(cudaSuccess, cudaGetDeviceProperties(&properties, 0));
    if (properties.major < 9) GTEST_SKIP() << "no GPU: the rivals need compute capability 9.0";
  }
};

std::vector<RivalPath> paths(const Case& c) {
  if (c.separate_only) return {RivalPath::automatic, RivalPath::separate};
  return {RivalPath::automatic, RivalPath::fused, RivalPath::separate};
}

TEST_P(RivalsTest, Quest) {
  const Problem p(GetParam());
  const Case& c = p.test;
  const Buffer<uint16_t> keys(p.host);
  const Buffer<float> queries(p.q);
  const Buffer<int> table(p.table);
  const Buffer<int> lengths(c.n);
  std::vector<int> before = c.n;
  for (int& n : before) --n;
  const Buffer<int> lengths_before(before);
  for (const int page : {16, 32}) {
    const int64_t page_count = (p.max_n + page - 1) / page + 3;
    for (const RivalPath path : paths(c)) {
      const std::string where = c.name + ", pages of " + std::to_string(page) + ", path " +
                                std::to_string(static_cast<int>(path));
      QuestPages pages{nullptr, page, page_count};
      hata_cuda_step step = p.step(keys, queries, lengths, table);
      const Buffer<uint16_t> store(quest_store_size(step, p.n_rows, pages) / 2);
      pages.bounds = store.get();
      step.n_kv = lengths_before.get();  // the step itself adds the last key
      ASSERT_EQ(HATA_CUDA_OK, quest_build(step, pages, nullptr)) << where;
      step.n_kv = lengths.get();
      const int64_t capacity = (std::max(c.budget, page) + 31) / 32 * 32;
      const Buffer<int32_t> lists(static_cast<size_t>(p.n_rows * c.n_kv_heads * capacity));
      const Buffer<int32_t> counts(static_cast<size_t>(p.n_rows * c.n_kv_heads));
      const size_t size = quest_workspace_size(step, pages);
      const Buffer<char> workspace(size);
      for (int again = 0; again < 2; ++again) {
        ASSERT_EQ(HATA_CUDA_OK, quest_select(step, pages, path, lists.get(), counts.get(), capacity,
                                             workspace.get(), size, nullptr));
      }
      ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize()) << where;

      const auto bounds = store.read();
      const auto list = lists.read();
      const auto count = counts.read();
      for (int row = 0; row < p.n_rows; ++row) {
        const int n = c.n[static_cast<size_t>(row)];
        const int n_pages = (n + page - 1) / page;
        for (int head = 0; head < c.n_kv_heads; ++head) {
          const std::string at =
              where + ", row " + std::to_string(row) + ", head " + std::to_string(head);
          std::vector<double> scores(static_cast<size_t>(n_pages));
          int wrong = 0;
          for (int k = 0; k < n_pages; ++k) {
            const uint16_t* of =
                bounds.data() +
                ((static_cast<int64_t>(row) * c.n_kv_heads + head) * page_count + k) * 2 *
                    c.head_dim;
            double score = 0;
            for (int i = 0; i < c.head_dim; ++i) {
              float least = INFINITY;
              float largest = -INFINITY;
              for (int cell = k * page; cell < std::min(n, (k + 1) * page); ++cell) {
                least = std::min(least, p.key(row, cell, head, i));
                largest = std::max(largest, p.key(row, cell, head, i));
              }
              wrong += to_float(of[i], c.type) != least;
              wrong += to_float(of[c.head_dim + i], c.type) != largest;
              const int group = c.n_q_heads / c.n_kv_heads;
              for (int g = 0; g < group; ++g) {
                const double q = p.query(row, head * group + g, i);
                score += std::max(q * least, q * largest);
              }
            }
            const bool always =
                k == n_pages - 1 || k * page < c.sink || (k + 1) * page > n - c.recent;
            scores[static_cast<size_t>(k)] = always ? INFINITY : score;
          }
          EXPECT_EQ(0, wrong) << at;
          const auto index = static_cast<size_t>(row * c.n_kv_heads + head);
          const int k = std::min(n_pages, std::max(1, c.budget / page));
          const int want = k * page - (n_pages * page - n);
          ASSERT_EQ(want, count[index]) << at;
          const auto marks =
              marked(list.data() + index * static_cast<size_t>(capacity), want, n, at);
          std::vector<bool> chosen(static_cast<size_t>(n_pages));
          int split = 0;
          for (int cell = 0; cell < n; ++cell) {
            if (cell % page == 0) {
              chosen[static_cast<size_t>(cell / page)] = marks[static_cast<size_t>(cell)];
            }
            split += marks[static_cast<size_t>(cell)] != chosen[static_cast<size_t>(cell / page)];
          }
          EXPECT_EQ(0, split) << at;
          EXPECT_TRUE(chosen.back()) << at;
          expect_best(scores, chosen, at);
        }
      }
    }
  }
}

TEST_P(RivalsTest, Loki) {
  const Problem p(GetParam());
  const Case& c = p.test;
  const Buffer<uint16_t> keys(p.host);
  const Buffer<float> queries(p.q);
  const Buffer<float> basis(p.basis);
  const Buffer<int> table(p.table);
  const Buffer<int> lengths(c.n);
  std::vector<int> before = c.n;
  for (int& n : before) --n;
  const Buffer<int> lengths_before(before);
  const int64_t key_capacity = p.max_n + 5;
  for (const RivalPath path : paths(c)) {
    const std::string where = c.name + ", path " + std::to_string(static_cast<int>(path));
    LokiKeys channels{nullptr, basis.get(), key_capacity};
    hata_cuda_step step = p.step(keys, queries, lengths, table);
    const Buffer<uint16_t> store(loki_store_size(step, p.n_rows, channels) / 2);
    channels.channels = store.get();
    step.n_kv = lengths_before.get();
    ASSERT_EQ(HATA_CUDA_OK, loki_build(step, channels, nullptr)) << where;
    step.n_kv = lengths.get();
    const int64_t capacity = c.budget;
    const Buffer<int32_t> lists(static_cast<size_t>(p.n_rows * c.n_kv_heads * capacity));
    const Buffer<int32_t> counts(static_cast<size_t>(p.n_rows * c.n_kv_heads));
    const size_t size = loki_workspace_size(step, channels);
    const Buffer<char> workspace(size);
    for (int again = 0; again < 2; ++again) {
      ASSERT_EQ(HATA_CUDA_OK, loki_select(step, channels, path, lists.get(), counts.get(), capacity,
                                          workspace.get(), size, nullptr));
    }
    ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize()) << where;

    const auto kept = store.read();
    const auto list = lists.read();
    const auto count = counts.read();
    for (int row = 0; row < p.n_rows; ++row) {
      const int n = c.n[static_cast<size_t>(row)];
      for (int head = 0; head < c.n_kv_heads; ++head) {
        const std::string at =
            where + ", row " + std::to_string(row) + ", head " + std::to_string(head);
        const auto project = [&](auto&& of, int channel) {
          double sum = 0;
          for (int i = 0; i < c.head_dim; ++i) {
            sum += static_cast<double>(of(i)) *
                   p.basis[static_cast<size_t>((head * c.head_dim + i) * 32 + channel)];
          }
          return sum;
        };
        const int group = c.n_q_heads / c.n_kv_heads;
        double q[32];
        for (int j = 0; j < 32; ++j) {
          q[j] = project(
              [&](int i) {
                double sum = 0;
                for (int g = 0; g < group; ++g) sum += p.query(row, head * group + g, i);
                return sum;
              },
              j);
        }
        std::vector<double> scores(static_cast<size_t>(n));
        double error = 0;
        for (int cell = 0; cell < n; ++cell) {
          const uint16_t* of =
              kept.data() +
              ((static_cast<int64_t>(row) * c.n_kv_heads + head) * key_capacity + cell) * 32;
          double score = 0;
          for (int j = 0; j < 32; ++j) {
            const double x = to_float(of[j], c.type);
            score += q[j] * x;
            if (cell % 97 == 0 || cell == n - 1) {
              const double want = project([&](int i) { return p.key(row, cell, head, i); }, j);
              error = std::max(error, std::abs(x - want) / (1 + std::abs(want)));
            }
          }
          const bool always = cell < c.sink || cell >= n - c.recent;
          scores[static_cast<size_t>(cell)] = always ? INFINITY : score;
        }
        EXPECT_LT(error, c.type == HATA_CUDA_F16 ? 1e-3 : 8e-3) << at;
        const auto index = static_cast<size_t>(row * c.n_kv_heads + head);
        const int want = std::min(n, c.budget);
        ASSERT_EQ(want, count[index]) << at;
        expect_best(scores,
                    marked(list.data() + index * static_cast<size_t>(capacity), want, n, at), at);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RivalsTest, testing::ValuesIn(cases()),
                         [](const auto& of) { return of.param.name; });

}  // namespace
}  // namespace hata::cuda
