// The CUDA step against the scalar reference: codes, lengths and selected sets bit for bit,
// attention within a bound; over shapes, layouts, ragged and masked rows, and data that strains the
// choice.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <numeric>
#include <optional>
#include <random>
#include <string>

#include "core/f16.h"
#include "core/reference.h"
#include "cuda/params.h"
#include "cuda/tuning.h"
#include "hata/cuda.h"
#include "hata/encode.h"
#include "hata/score.h"

namespace hata::cuda {
namespace {

enum class Data {
  normal,
  tail,     ///< the nearest keys are the last ones, more of them than the budget
  page,     ///< all mass in one run of 64 cells
  equal,    ///< all keys alike: every score ties
  sorted,   ///< scores fall from the first cell to the last
  rising,   ///< and rise
  extreme,  ///< infinities, NaN, zeros, subnormals and the largest numbers among the keys
};

struct Case {
  std::string name;
  int n_q_heads = 32, n_kv_heads = 8, head_dim = 128, rbit = 128;
  std::vector<int> n = {4096};  ///< cells by row
  int budget = 256;
  hata_cuda_type type = HATA_CUDA_F16;
  hata_cuda_type q_type = HATA_CUDA_F32;
  Data data = Data::normal;
  int page_size = 0;
  bool lengths = true;
  int sink = 1, recent = 32;
  bool masked = false;  ///< a bit per cell which may be chosen, and which must be
  bool shared = false;  ///< all rows read sequence 0
  bool ragged_budgets = false;
  bool query_weights = false;
  bool key_means = false;
  bool encode_last = true;
  float softcap = 0.0f;
  bool sinks = false, alibi = false;
  hata_cuda_mode mode = HATA_CUDA_SPARSE;
  hata_cuda_score score = HATA_CUDA_SUM;
  size_t offset = 0;  ///< bytes from the start of a buffer to the cache
  int n_blocks = 0;   ///< of a cluster; 0: as planned
  int n_warps = 0;    ///< of a block; 0: as planned
  int fused = -1;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

template <class T>
class Buffer {
 public:
  explicit Buffer(const std::vector<T>& from) : n_(from.size()) {
    EXPECT_EQ(cudaSuccess, cudaMalloc(&data_, std::max<size_t>(n_ * sizeof(T), 16)));
    EXPECT_EQ(cudaSuccess, cudaMemcpy(data_, from.data(), n_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  Buffer(size_t n, int byte) : n_(n) {
    EXPECT_EQ(cudaSuccess, cudaMalloc(&data_, std::max<size_t>(n_ * sizeof(T), 16)));
    EXPECT_EQ(cudaSuccess, cudaMemset(data_, byte, n_ * sizeof(T)));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
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

float bf16_to_f32(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// A q8_0 cache is made of f16 numbers.
uint16_t narrow(float x, hata_cuda_type type) {
  if (type != HATA_CUDA_BF16) return f32_to_f16(x);
  const auto bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float widen(uint16_t x, hata_cuda_type type) {
  return type == HATA_CUDA_BF16 ? bf16_to_f32(x) : f16_to_f32(x);
}

/// ggml's block_q8_0.
struct Q8Block {
  static constexpr int kElements = 32;

  /// As ggml makes it; of numbers that are none the scale is none, either.
  explicit Q8Block(const float* x) {
    float most = 0.0f, odd = 0.0f;
    for (int i = 0; i < kElements; ++i) {
      if (std::isfinite(x[i])) {
        most = std::max(most, std::abs(x[i]));
      } else {
        odd = x[i];
      }
    }
    const float d = most / 127.0f;
    scale = f32_to_f16(odd == 0.0f ? d : odd);
    for (int i = 0; i < kElements; ++i) {
      const bool number = std::isfinite(x[i]) && d > 0.0f;
      q[i] = number ? static_cast<int8_t>(std::round(x[i] / d)) : int8_t{0};
    }
  }
  float operator[](int i) const { return f16_to_f32(scale) * static_cast<float>(q[i]); }

  uint16_t scale;
  int8_t q[kElements];
};
static_assert(sizeof(Q8Block) == 34);

/// Keys or values as they lie in the cache, and as f32.
struct Rows {
  Rows(const std::vector<uint16_t>& from, hata_cuda_type type) {
    for (const uint16_t x : from) wide.push_back(widen(x, type));
    if (type != HATA_CUDA_Q8_0) {
      bytes.resize(from.size() * sizeof(uint16_t));
      std::memcpy(bytes.data(), from.data(), bytes.size());
      return;
    }
    bytes.resize(from.size() / Q8Block::kElements * sizeof(Q8Block));
    for (size_t at = 0; at < from.size(); at += Q8Block::kElements) {
      const Q8Block block(&wide[at]);
      for (int i = 0; i < Q8Block::kElements; ++i) wide[at + static_cast<size_t>(i)] = block[i];
      std::memcpy(&bytes[at / Q8Block::kElements * sizeof(Q8Block)], &block, sizeof(block));
    }
  }

  std::vector<std::byte> bytes;
  std::vector<float> wide;
};

/// All of a case on the host, as the reference sees it: keys [sequence][cell][head][d] as f32.
struct Problem {
  explicit Problem(const Case& test) : c(test), group(c.n_q_heads / c.n_kv_heads) {
    n_seqs = c.shared ? 1 : static_cast<int>(c.n.size());
    max_n = *std::max_element(c.n.begin(), c.n.end());
    capacity = (max_n + 255) / 256 * 256;
    page = c.page_size > 0 ? c.page_size : capacity;
    n_pages = capacity / page;
    table.resize(static_cast<size_t>(n_seqs * n_pages));
    std::iota(table.begin(), table.end(), 0);
    if (c.page_size > 0) std::shuffle(table.begin(), table.end(), random);
    fill_projection();
    fill_queries();
    fill_cache();
    key_rows.emplace(keys, c.type);
    value_rows.emplace(values, c.type);
    if (c.masked) fill_masks();
    for (int r = 0; r < n_rows(); ++r) {
      budgets.push_back(c.ragged_budgets ? std::max(1, c.budget - 37 * r) : c.budget);
    }
    std::normal_distribution<float> normal;
    for (int h = 0; h < c.n_q_heads; ++h) {
      sinks.push_back(2.0f * normal(random));
      slopes.push_back(
          std::exp2(-8.0f * static_cast<float>(h + 1) / static_cast<float>(c.n_q_heads)));
    }
    for (int r = 0; r < n_rows(); ++r) {
      for (int cell = 0; cell < capacity; ++cell) {
        bias.push_back(
            f32_to_f16(static_cast<float>(cell - c.n[static_cast<size_t>(r)] + 1) / 64.0f));
      }
    }
  }

  int n_rows() const { return static_cast<int>(c.n.size()); }
  int sequence(int row) const { return c.shared ? 0 : row; }
  /// Index of a row of head_dim elements.
  size_t at(int seq, int cell, int head) const {
    const auto in = static_cast<size_t>(table[static_cast<size_t>(seq * n_pages + cell / page)]);
    return ((in * static_cast<size_t>(page) + static_cast<size_t>(cell % page)) *
                static_cast<size_t>(c.n_kv_heads) +
            static_cast<size_t>(head)) *
           static_cast<size_t>(c.head_dim);
  }
  /// Index of a code: [page or sequence][head][cell].
  size_t slot(int seq, int cell, int head) const {
    const auto in = static_cast<size_t>(table[static_cast<size_t>(seq * n_pages + cell / page)]);
    return (in * static_cast<size_t>(c.n_kv_heads) + static_cast<size_t>(head)) *
               static_cast<size_t>(page) +
           static_cast<size_t>(cell % page);
  }
  const float* w(bool of_query, int head) const {
    const auto& from = of_query && c.query_weights ? query_projection : projection;
    return from.data() + static_cast<size_t>(head) * c.head_dim * c.rbit;
  }
  const float* query(int row, int q_head) const {
    return q.data() +
           (static_cast<size_t>(row) * c.n_q_heads + static_cast<size_t>(q_head)) * c.head_dim;
  }
  bool bit(const std::vector<uint32_t>& bits, int row, int cell) const {
    return bits[static_cast<size_t>(row) * (capacity / 32) + cell / 32] >> (cell % 32) & 1;
  }
  bool is_valid(int row, int cell) const {
    return cell < c.n[static_cast<size_t>(row)] && (!c.masked || bit(valid, row, cell));
  }
  bool is_forced(int row, int cell) const {
    if (c.masked) return bit(forced, row, cell);
    return cell < c.sink || cell >= c.n[static_cast<size_t>(row)] - c.recent;
  }

  void fill_projection() {
    std::normal_distribution<float> normal;
    for (auto* to : {&projection, &query_projection}) {
      to->resize(static_cast<size_t>(c.n_kv_heads) * c.head_dim * c.rbit);
      for (float& x : *to) x = normal(random);
    }
    means.resize(static_cast<size_t>(c.n_kv_heads) * c.head_dim);
    for (float& x : means) x = 0.3f * normal(random);
    inv_units.assign(static_cast<size_t>(c.n_kv_heads),
                     8.0f / std::sqrt(static_cast<float>(c.head_dim)));
  }
  void fill_queries() {
    std::normal_distribution<float> normal;
    q.resize(static_cast<size_t>(n_rows()) * c.n_q_heads * c.head_dim);
    for (float& x : q) {
      x = normal(random);
      if (c.q_type != HATA_CUDA_F32) x = widen(narrow(x, c.q_type), c.q_type);
    }
  }
  void fill_cache() {
    std::normal_distribution<float> normal;
    const size_t n = static_cast<size_t>(n_seqs) * capacity * c.n_kv_heads * c.head_dim;
    keys.resize(n);
    values.resize(n);
    for (uint16_t& x : keys) x = narrow(normal(random), c.type);
    for (uint16_t& x : values) x = narrow(normal(random), c.type);
    for (int s = 0; s < n_seqs; ++s) {
      const int count = c.shared ? max_n : c.n[static_cast<size_t>(s)];
      for (int cell = 0; cell < count; ++cell) {
        for (int h = 0; h < c.n_kv_heads; ++h) shape_key(s, cell, h, count);
      }
    }
  }
  // What the case's kind of data makes of a key.
  void shape_key(int s, int cell, int head, int n) {
    std::normal_distribution<float> normal;
    uint16_t* key = keys.data() + at(s, cell, head);
    const float* near = query(s, head * group);
    const auto mix = [&](float share) {
      for (int i = 0; i < c.head_dim; ++i) {
        key[i] = narrow(share * near[i] + (1.0f - share) * normal(random), c.type);
      }
    };
    switch (c.data) {
      case Data::tail:
        if (cell >= n - 2 * c.budget) mix(0.8f);
        break;
      case Data::page:
        if (cell / 64 == n / 128) mix(0.9f);
        break;
      case Data::equal:
        for (int i = 0; i < c.head_dim; ++i) key[i] = narrow(near[i], c.type);
        break;
      case Data::sorted:
        mix(1.0f - static_cast<float>(cell) / static_cast<float>(n));
        break;
      case Data::rising:
        mix(static_cast<float>(cell) / static_cast<float>(n));
        break;
      case Data::extreme:
        if (cell % 7 == 0) std::fill_n(key, c.head_dim, uint16_t{0});
        if (cell % 7 == 1) key[cell % c.head_dim] = narrow(6e4f, c.type);
        if (cell % 7 == 2) std::fill_n(key, c.head_dim, uint16_t{1});
        if (cell % 501 == 3) key[3] = narrow(std::nanf(""), c.type);
        if (cell % 503 == 4) key[4] = narrow(INFINITY, c.type);
        break;
      default:
        break;
    }
  }
  void fill_masks() {
    const size_t words = static_cast<size_t>(n_rows()) * (capacity / 32);
    valid.assign(words, 0);
    forced.assign(words, 0);
    for (int r = 0; r < n_rows(); ++r) {
      for (int cell = 0; cell < c.n[static_cast<size_t>(r)]; ++cell) {
        if (random() % 3 == 0) continue;
        const size_t word = static_cast<size_t>(r) * (capacity / 32) + cell / 32;
        valid[word] |= 1u << (cell % 32);
        if (random() % 200 == 0) forced[word] |= 1u << (cell % 32);
      }
    }
  }

  const Case& c;
  int group;
  int n_seqs = 0, max_n = 0, capacity = 0, page = 0, n_pages = 0;
  std::mt19937 random{11};
  std::vector<float> projection, query_projection, means, inv_units, q, sinks, slopes;
  std::vector<uint16_t> keys, values, bias;  ///< before they are quantised, if they are
  std::optional<Rows> key_rows, value_rows;
  std::vector<int32_t> table, budgets;
  std::vector<uint32_t> valid, forced;
};

/// What the reference makes of a KV head of a row.
struct Expected {
  std::vector<uint64_t> codes;
  std::vector<uint8_t> lengths;
  std::vector<int32_t> cells;
};

Expected expect(const Problem& p, int row, int head) {
  const Case& c = p.c;
  const int n = c.n[static_cast<size_t>(row)], d = c.head_dim, words = c.rbit / 64;
  const int padded = (n + 63) / 64 * 64;
  Expected e;
  e.codes.assign(static_cast<size_t>(padded) * words, 0);
  std::vector<uint8_t> each(static_cast<size_t>(padded), 8);
  std::vector<float> key(static_cast<size_t>(d)), centred(key);
  for (int cell = 0; cell < n; ++cell) {
    const float* from = p.key_rows->wide.data() + p.at(p.sequence(row), cell, head);
    for (int i = 0; i < d; ++i) {
      key[static_cast<size_t>(i)] = from[i];
      centred[static_cast<size_t>(i)] =
          key[static_cast<size_t>(i)] -
          (c.key_means ? p.means[static_cast<size_t>(head * d + i)] : 0.0f);
    }
    encode(p.w(false, head), d, c.rbit, centred.data(), DType::f32, 0, 1,
           &e.codes[static_cast<size_t>(cell) * words]);
    if (c.lengths) {
      key_lengths(d, key.data(), DType::f32, 0, 1, p.inv_units[static_cast<size_t>(head)],
                  &each[static_cast<size_t>(cell)]);
    }
  }
  e.lengths.assign(static_cast<size_t>(padded) / 2, 0);
  for (int i = 0; i < padded; ++i)
    e.lengths[static_cast<size_t>(i / 2)] |=
        static_cast<uint8_t>(each[static_cast<size_t>(i)] << (i % 2 * 4));
  std::vector<uint64_t> query(static_cast<size_t>(p.group * words));
  for (int g = 0; g < p.group; ++g) {
    encode(p.w(true, head), d, c.rbit, p.query(row, head * p.group + g), DType::f32, 0, 1,
           &query[static_cast<size_t>(g * words)]);
  }
  std::vector<int16_t> scores(static_cast<size_t>(padded));
  const auto score = c.score == HATA_CUDA_SQUARES ? reference::score_squares : reference::score;
  score(query.data(), p.group, c.rbit, e.codes.data(), e.lengths.data(), padded, scores.data());
  std::vector<uint64_t> valid(static_cast<size_t>(padded) / 64, 0);
  for (int cell = 0; cell < n; ++cell) {
    if (p.is_valid(row, cell)) valid[static_cast<size_t>(cell / 64)] |= uint64_t{1} << (cell % 64);
    if (p.is_forced(row, cell)) scores[static_cast<size_t>(cell)] = INT16_MAX;
  }
  e.cells =
      reference::select(scores.data(), valid.data(), padded, p.budgets[static_cast<size_t>(row)]);
  return e;
}

/// The attention of one KV head's queries over `cells`, in double precision.
std::vector<double> attention(const Problem& p, int row, int head, std::vector<int32_t> cells) {
  const Case& c = p.c;
  const int d = c.head_dim;
  const size_t n = cells.size();
  std::vector<float> keys(n * d), values(n * d);
  std::vector<float> bias(static_cast<size_t>(p.group) * n, 0.0f);
  for (size_t j = 0; j < n; ++j) {
    const size_t from = p.at(p.sequence(row), cells[j], head);
    for (int i = 0; i < d; ++i) {
      keys[j * d + i] = p.key_rows->wide[from + i];
      values[j * d + i] = p.value_rows->wide[from + i];
    }
    for (int g = 0; g < p.group && c.alibi; ++g) {
      bias[static_cast<size_t>(g) * n + j] =
          p.slopes[static_cast<size_t>(head * p.group + g)] *
          f16_to_f32(p.bias[static_cast<size_t>(row) * p.capacity + cells[j]]);
    }
  }
  AttendArgs args{};
  args.heads = p.group;
  args.head_dim = d;
  args.q = p.query(row, head * p.group);
  args.q_stride = static_cast<size_t>(d);
  args.keys = {reinterpret_cast<const std::byte*>(keys.data()), DType::f32, d * sizeof(float), 0};
  args.values = {reinterpret_cast<const std::byte*>(values.data()), DType::f32, d * sizeof(float),
                 0};
  args.count = static_cast<int64_t>(n);
  args.params.scale = 1.0f / std::sqrt(static_cast<float>(d));
  args.params.softcap = c.softcap;
  args.bias = bias.data();
  args.bias_stride = n;
  std::vector<double> out(static_cast<size_t>(p.group) * d);
  reference::attend(args, c.sinks ? p.sinks.data() + head * p.group : nullptr, out.data());
  return out;
}

/// Counts of what was compared, printed at the end.
struct Counts {
  int64_t codes = 0, lists = 0, keys = 0, heads = 0;
  double worst = 0.0;
  ~Counts() {
    if (lists + heads == 0) return;
    std::cout << "compared " << codes << " codes, " << lists << " selected sets (" << keys
              << " keys), the attention of " << heads << " query heads (largest relative error "
              << worst << ")\n";
  }
} counts;

class StepTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (hata_cuda_available() != HATA_CUDA_OK) GTEST_SKIP() << "no GPU: " << hata_cuda_error();
  }
  void TearDown() override { tuning() = {}; }
};

TEST_P(StepTest, EqualsTheReference) {
  const Case& c = GetParam();
  const Problem p(c);
  tuning().n_blocks = c.n_blocks;
  tuning().n_warps = c.n_warps;
  tuning().fused = c.fused;
  // Behind the start of the buffers, where rows of q8_0 that start on 2 bytes may lie.
  std::vector<std::byte> key_bytes(c.offset), value_bytes(c.offset);
  key_bytes.insert(key_bytes.end(), p.key_rows->bytes.begin(), p.key_rows->bytes.end());
  value_bytes.insert(value_bytes.end(), p.value_rows->bytes.begin(), p.value_rows->bytes.end());
  const Buffer<std::byte> keys(key_bytes), values(value_bytes);
  const Buffer<uint16_t> bias(p.bias);
  const Buffer<float> projection(p.projection), query_projection(p.query_projection),
      means(p.means), inv_units(p.inv_units), sinks(p.sinks), slopes(p.slopes);
  const Buffer<int32_t> table(p.table), budgets(p.budgets);
  const Buffer<int32_t> n_kv(c.n);
  const Buffer<int32_t> sequences(std::vector<int32_t>(c.n.size(), 0));
  const Buffer<uint32_t> valid(p.valid), forced(p.forced);
  const size_t slots = static_cast<size_t>(p.n_seqs) * p.n_pages * c.n_kv_heads * p.page;
  const Buffer<uint32_t> codes(slots * c.rbit / 32, 0xab);
  const Buffer<uint8_t> lengths(slots / 2, 0xcd);
  std::vector<uint16_t> narrow_q;
  for (const float x : p.q)
    narrow_q.push_back(narrow(x, c.q_type == HATA_CUDA_BF16 ? c.q_type : HATA_CUDA_F16));
  const Buffer<float> q32(p.q);
  const Buffer<uint16_t> q16(narrow_q);
  const Buffer<float> out(p.q.size(), 0xff);
  const Buffer<int32_t> selected(static_cast<size_t>(p.n_rows()) * c.n_kv_heads * c.budget, 0xff);
  const Buffer<int32_t> n_selected(static_cast<size_t>(p.n_rows()) * c.n_kv_heads, 0xff);

  hata_cuda_step step{};
  step.shape = {c.n_q_heads, c.n_kv_heads, c.head_dim, c.rbit};
  step.cache.keys = keys.get() + c.offset;
  step.cache.values = values.get() + c.offset;
  step.cache.type = c.type;
  step.cache.head_stride = c.type == HATA_CUDA_Q8_0
                               ? c.head_dim / Q8Block::kElements * int64_t{sizeof(Q8Block)}
                               : c.head_dim * int64_t{2};
  step.cache.cell_stride = step.cache.head_stride * c.n_kv_heads;
  step.cache.seq_stride = step.cache.cell_stride * p.capacity;
  if (c.page_size > 0) {
    step.cache.block_table = table.get();
    step.cache.table_stride = p.n_pages;
    step.cache.page_size = c.page_size;
    step.cache.page_stride = step.cache.cell_stride * c.page_size;
  }
  step.codes = {codes.get(), c.lengths ? lengths.get() : nullptr, p.capacity};
  step.projection = {projection.get(), c.query_weights ? query_projection.get() : nullptr,
                     inv_units.get(), c.key_means ? means.get() : nullptr};
  step.mode = c.mode;
  step.n_rows = p.n_rows();
  step.q = c.q_type == HATA_CUDA_F32 ? static_cast<const void*>(q32.get()) : q16.get();
  step.q_type = c.q_type;
  step.q_head_stride = step.out_head_stride = c.head_dim;
  step.q_row_stride = step.out_row_stride = int64_t{c.head_dim} * c.n_q_heads;
  step.out = out.get();
  step.sequences = c.shared ? sequences.get() : nullptr;
  step.n_kv = n_kv.get();
  step.max_n_kv = p.max_n;
  step.score = c.score;
  step.budgets = c.ragged_budgets ? budgets.get() : nullptr;
  step.budget = c.budget;
  step.sink = c.sink;
  step.recent = c.recent;
  step.valid = c.masked ? valid.get() : nullptr;
  step.forced = c.masked ? forced.get() : nullptr;
  step.bit_stride = p.capacity / 32;
  step.encode_last = c.encode_last ? 1 : 0;
  step.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  step.softcap = c.softcap;
  step.sinks = c.sinks ? sinks.get() : nullptr;
  step.slopes = c.alibi ? slopes.get() : nullptr;
  step.bias = c.alibi ? bias.get() : nullptr;
  step.bias_stride = p.capacity;
  step.selected = selected.get();
  step.n_selected = n_selected.get();
  const size_t size = hata_cuda_workspace_size(&step);
  ASSERT_GT(size, 0u) << hata_cuda_error();
  const Buffer<std::byte> workspace(size, 0);
  for (int s = 0; s < p.n_seqs; ++s) {
    const int n = c.shared ? p.max_n : c.n[static_cast<size_t>(s)];
    hata_cuda_encode encode{
        step.shape, step.cache, step.codes, step.projection, s, 0, n - (c.encode_last ? 1 : 0),
        nullptr};
    ASSERT_EQ(HATA_CUDA_OK, hata_cuda_encode_keys(&encode, nullptr)) << hata_cuda_error();
  }
  ASSERT_EQ(HATA_CUDA_OK, hata_cuda_decode(&step, workspace.get(), size, nullptr))
      << hata_cuda_error();
  ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());
  // Again: what the first left in the workspace must do no harm.
  ASSERT_EQ(HATA_CUDA_OK, hata_cuda_decode(&step, workspace.get(), size, nullptr))
      << hata_cuda_error();
  ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());

  const auto got_codes = codes.read();
  const auto got_lengths = lengths.read();
  const auto got_selected = selected.read();
  const auto got_n = n_selected.read();
  const auto got_out = out.read();
  // Queries and weights are rounded to the cache's type, and with q8_0 keys and values to f16.
  const double bound = c.type == HATA_CUDA_BF16 ? 1e-2 : c.type == HATA_CUDA_Q8_0 ? 3e-3 : 2e-3;
  for (int row = 0; row < p.n_rows(); ++row) {
    const int n = c.n[static_cast<size_t>(row)];
    for (int head = 0; head < c.n_kv_heads; ++head) {
      SCOPED_TRACE("row " + std::to_string(row) + ", KV head " + std::to_string(head));
      const Expected e = expect(p, row, head);
      for (int cell = 0; cell < n; ++cell) {
        const size_t slot = p.slot(p.sequence(row), cell, head);
        ASSERT_EQ(0, std::memcmp(&got_codes[slot * c.rbit / 32],
                                 &e.codes[static_cast<size_t>(cell) * c.rbit / 64], c.rbit / 8))
            << "code of cell " << cell;
        if (!c.lengths) continue;
        ASSERT_EQ(e.lengths[static_cast<size_t>(cell / 2)] >> (cell % 2 * 4) & 15,
                  got_lengths[slot / 2] >> (slot % 2 * 4) & 15)
            << "length of cell " << cell;
      }
      counts.codes += n;
      std::vector<int32_t> cells = e.cells;
      if (c.mode == HATA_CUDA_SPARSE) {
        const size_t pair = static_cast<size_t>(row * c.n_kv_heads + head);
        ASSERT_EQ(static_cast<int>(cells.size()), got_n[pair]);
        std::vector<int32_t> got(
            got_selected.begin() + static_cast<int64_t>(pair) * c.budget,
            got_selected.begin() + static_cast<int64_t>(pair) * c.budget + got_n[pair]);
        std::sort(got.begin(), got.end());
        ASSERT_EQ(cells, got);
        ++counts.lists;
        counts.keys += got_n[pair];
      } else {
        cells.clear();
        for (int cell = 0; cell < n; ++cell) {
          if (p.is_valid(row, cell)) cells.push_back(cell);
        }
      }
      if (c.data == Data::extreme) continue;  // no number to compare
      const auto want = attention(p, row, head, cells);
      for (int g = 0; g < p.group; ++g) {
        double difference = 0.0, norm = 0.0;
        for (int i = 0; i < c.head_dim; ++i) {
          const double w = want[static_cast<size_t>(g * c.head_dim + i)];
          const double x = got_out[static_cast<size_t>(
              ((row * c.n_q_heads) + head * p.group + g) * c.head_dim + i)];
          difference += (x - w) * (x - w);
          norm += w * w;
        }
        const double error = norm > 0.0 ? std::sqrt(difference / norm) : std::sqrt(difference);
        ASSERT_LE(error, bound) << "query head " << g << " of the group";
        counts.worst = std::max(counts.worst, error);
        ++counts.heads;
      }
    }
  }
}

// Cases of every type of cache; `add` takes one.
template <class Add>
void add_cells(const Add& add, std::initializer_list<int> all) {
  for (const int n : all) {
    add({.name = "cells" + std::to_string(n),
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .n = {n},
         .budget = 64});
  }
}
template <class Add>
void add_budgets(const Add& add, std::initializer_list<int> all) {
  for (const int budget : all) {
    add({.name = "budget" + std::to_string(budget),
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .n = {3000},
         .budget = budget,
         .sink = 0,
         .recent = 0});
  }
}
template <class Add>
void add_pages(const Add& add, std::initializer_list<int> all, int head_dim,
               const std::string& of_dim) {
  for (const int page : all) {
    const std::string name = "page" + std::to_string(page) + of_dim;
    for (const hata_cuda_mode mode : {HATA_CUDA_SPARSE, HATA_CUDA_DENSE}) {
      add({.name = (mode == HATA_CUDA_DENSE ? "dense_" : "") + name,
           .n_q_heads = 8,
           .n_kv_heads = 2,
           .head_dim = head_dim,
           .n = {4000, 1, 333},
           .page_size = page,
           .mode = mode});
    }
  }
}
template <class Add>
void add_batches(const Add& add) {
  add({.name = "batch", .n = {4096, 4095, 33, 8000, 1, 129, 5000, 2048}, .budget = 128});
  add({.name = "long", .n_q_heads = 8, .n_kv_heads = 2, .n = {131072}, .budget = 2048});
  add({.name = "ragged_budgets",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .n = {5000, 3000, 4000},
       .ragged_budgets = true});
}

// Cases of f16 caches and both score rules.
constexpr Data kAllData[] = {Data::normal, Data::tail,   Data::page,   Data::equal,
                             Data::sorted, Data::rising, Data::extreme};
template <class Add>
void add_half_blocks(const Add& add, std::initializer_list<int> groups) {
  for (const Data data : kAllData) {
    add({.name = "data" + std::to_string(static_cast<int>(data)) + "_half_blocks",
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .n = {12288, 9001},
         .budget = 300,
         .data = data,
         .n_warps = kHalfWarps});
  }
  for (const int group : groups) {
    for (const int d : {64, 128}) {
      if (group == 8 && d == 128) continue;  // too much for half a multiprocessor
      add({.name = "half_blocks_group" + std::to_string(group) + "_d" + std::to_string(d),
           .n_q_heads = 2 * group,
           .n_kv_heads = 2,
           .head_dim = d,
           .n = {2345, 700, 20000},
           .budget = group % 2 != 0 || group == 8 ? 100 : 900,
           .n_warps = kHalfWarps});
    }
  }
}
template <class Add>
void add_ties_and_one_block(const Add& add) {
  add({.name = "paper_order_ties",
       .n_q_heads = 2,
       .n_kv_heads = 2,
       .head_dim = 64,
       .rbit = 64,
       .n = {20000},
       .budget = 777,
       .lengths = false,
       .sink = 0,
       .recent = 0});
  add({.name = "long_one_block",
       .n_q_heads = 4,
       .n_kv_heads = 1,
       .n = {100000},
       .budget = 1563,
       .n_blocks = 1});
}
template <class Add>
void add_bf16(const Add& add, int d) {
  add({.name = "bf16_d" + std::to_string(d),
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .head_dim = d,
       .n = {2500},
       .type = HATA_CUDA_BF16,
       .q_type = HATA_CUDA_BF16});
}

void add_q8_0(std::vector<Case>& all) {
  const auto add = [&](Case c) {
    c.name = "q8_0_" + c.name;
    c.type = HATA_CUDA_Q8_0;
    all.push_back(std::move(c));
  };
  for (const int d : {64, 96, 128, 256}) {
    const std::string of_d = "_d" + std::to_string(d);
    for (const int rbit : {64, 128, 256}) {
      add({.name = "shape" + of_d + "_r" + std::to_string(rbit),
           .n_q_heads = 8,
           .n_kv_heads = 2,
           .head_dim = d,
           .rbit = rbit,
           .n = {3001}});
    }
    for (const int group : {1, 3, 8, 9, 16}) {
      add({.name = "group" + std::to_string(group) + of_d,
           .n_q_heads = 3 * group,
           .n_kv_heads = 3,
           .head_dim = d,
           .n = {2100, 40}});
    }
    for (const size_t offset : {2, 4, 8}) {
      add({.name = "offset" + std::to_string(offset) + of_d,
           .n_q_heads = 8,
           .n_kv_heads = 2,
           .head_dim = d,
           .n = {1500},
           .offset = offset});
    }
    add_pages(add, {16, 64, 256}, d, of_d);
    for (const bool last : {true, false}) {
      add({.name = std::string(last ? "dense" : "dense_all_encoded") + of_d,
           .n_q_heads = 8,
           .n_kv_heads = 2,
           .head_dim = d,
           .n = {3001, 17, 1},
           .encode_last = last,
           .mode = HATA_CUDA_DENSE});
    }
    add({.name = "dense_group16" + of_d,
         .n_q_heads = 16,
         .n_kv_heads = 1,
         .head_dim = d,
         .n = {3001, 500},
         .mode = HATA_CUDA_DENSE});
    add({.name = "masked" + of_d,
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .head_dim = d,
         .n = {5000, 3000, 100},
         .masked = true});
    add({.name = "dense_masked" + of_d,
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .head_dim = d,
         .n = {5000, 3000},
         .masked = true,
         .mode = HATA_CUDA_DENSE});
    add({.name = "drafts" + of_d,
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .head_dim = d,
         .n = {6000, 5999, 5998, 5997},
         .shared = true,
         .encode_last = false});
    add({.name = "extreme" + of_d,
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .head_dim = d,
         .n = {4096, 2001},
         .data = Data::extreme});
  }
  for (const Data data : {Data::tail, Data::page, Data::equal, Data::sorted, Data::rising}) {
    add({.name = "data" + std::to_string(static_cast<int>(data)),
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .n = {12288, 9001},
         .budget = 300,
         .data = data});
  }
  add_cells(add, {1, 2, 31, 128, 129, 1025});
  add_budgets(add, {1, 17, 1000, 5000});
  add_batches(add);
  add({.name = "dense_batch",
       .n = {4096, 4095, 33, 8000, 1, 129, 5000, 2048},
       .mode = HATA_CUDA_DENSE});
  add({.name = "dense_long",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .n = {131072},
       .mode = HATA_CUDA_DENSE});
  add({.name = "paper_order", .n_q_heads = 8, .n_kv_heads = 2, .lengths = false});
  add({.name = "query_weights_and_means",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .query_weights = true,
       .key_means = true});
  for (const hata_cuda_mode mode : {HATA_CUDA_SPARSE, HATA_CUDA_DENSE}) {
    add({.name = mode == HATA_CUDA_DENSE ? "all_extras_dense" : "all_extras",
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .softcap = 3.0f,
         .sinks = true,
         .alibi = true,
         .mode = mode});
  }
  add({.name = "bf16_queries", .n_q_heads = 8, .n_kv_heads = 2, .q_type = HATA_CUDA_BF16});
}

void add_squares(std::vector<Case>& all) {
  const auto add = [&](Case c) {
    c.name = "squares_" + c.name;
    c.score = HATA_CUDA_SQUARES;
    all.push_back(std::move(c));
  };
  for (const int rbit : {64, 128, 256}) {
    for (const int group : {1, 2, 3, 4, 5, 8, 9, 16}) {
      for (const bool lengths : {true, false}) {
        add({.name = "group" + std::to_string(group) + "_r" + std::to_string(rbit) +
                     (lengths ? "" : "_no_lengths"),
             .n_q_heads = 2 * group,
             .n_kv_heads = 2,
             .rbit = rbit,
             .n = {2345, 700},
             .budget = 200,
             .lengths = lengths});
      }
    }
    // All keys are the first head's query: the highest level there is, and of ties.
    add({.name = "equal_r" + std::to_string(rbit),
         .n_q_heads = 16,
         .n_kv_heads = 1,
         .rbit = rbit,
         .n = {3000},
         .data = Data::equal});
  }
  for (const Data data : kAllData) {
    const std::string name = "data" + std::to_string(static_cast<int>(data));
    for (const int blocks : {1, 4, 8}) {
      add({.name = name + "_c" + std::to_string(blocks),
           .n_q_heads = 8,
           .n_kv_heads = 2,
           .n = {12288, 9001},
           .budget = 300,
           .data = data,
           .n_blocks = blocks,
           .fused = blocks == 4 ? 0 : 1});
    }
  }
  add_half_blocks(add, {1, 4, 7});
  for (const int d : {64, 80, 96, 128, 256}) {
    add_bf16(add, d);
    if (d == 80) continue;
    add({.name = "q8_0_d" + std::to_string(d),
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .head_dim = d,
         .n = {2500},
         .type = HATA_CUDA_Q8_0});
  }
  for (const int page : {16, 64}) {
    for (const int n_warps : {0, kHalfWarps}) {
      add({.name = (n_warps > 0 ? "half_blocks_page" : "page") + std::to_string(page),
           .n_q_heads = 8,
           .n_kv_heads = 2,
           .n = {4000, 1, 333},
           .page_size = page,
           .n_warps = n_warps});
    }
  }
  add_cells(add, {1, 2, 127, 129, 1025});
  add_budgets(add, {1, 17, 1000, 2999, 5000});
  add_batches(add);
  add_ties_and_one_block(add);
  // With one head half of all keys score 0, and so many are chosen that some of these are.
  add({.name = "one_head_many_at_0",
       .n_q_heads = 2,
       .n_kv_heads = 2,
       .n = {20000, 3000},
       .budget = 15000,
       .lengths = false,
       .sink = 0,
       .recent = 0});
  for (const int rbit : {128, 256}) {
    add({.name = "masked_r" + std::to_string(rbit),
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .rbit = rbit,
         .n = {5000, 3000, 100},
         .masked = true,
         .query_weights = true,
         .key_means = true});
  }
  add({.name = "drafts",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .n = {6000, 5999, 5998, 5997},
       .shared = true,
       .encode_last = false});
  add({.name = "dense", .n_q_heads = 8, .n_kv_heads = 2, .n = {3001}, .mode = HATA_CUDA_DENSE});
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](Case c) { all.push_back(std::move(c)); };
  for (const int d : {64, 80, 96, 128, 256}) {
    for (const int rbit : {64, 128, 256}) {
      add({.name = "shape_d" + std::to_string(d) + "_r" + std::to_string(rbit),
           .n_q_heads = 8,
           .n_kv_heads = 2,
           .head_dim = d,
           .rbit = rbit,
           .n = {3001}});
    }
    add_bf16(add, d);
    add({.name = "dense_d" + std::to_string(d),
         .n_q_heads = 8,
         .n_kv_heads = 2,
         .head_dim = d,
         .n = {3001, 17},
         .mode = HATA_CUDA_DENSE});
    add({.name = "group16_d" + std::to_string(d),
         .n_q_heads = 16,
         .n_kv_heads = 1,
         .head_dim = d,
         .n = {2100}});
  }
  for (int group = 1; group <= 16; ++group) {
    add({.name = "group" + std::to_string(group),
         .n_q_heads = 2 * group,
         .n_kv_heads = 2,
         .n = {2345, 700}});
  }
  for (const Data data : kAllData) {
    for (const int blocks : {1, 2, 4, 8}) {
      for (const int fused : {0, 1}) {
        add({.name = "data" + std::to_string(static_cast<int>(data)) + "_c" +
                     std::to_string(blocks) + (fused != 0 ? "_fused" : "_apart"),
             .n_q_heads = 8,
             .n_kv_heads = 2,
             .n = {12288, 9001},
             .budget = 300,
             .data = data,
             .n_blocks = blocks,
             .fused = fused});
      }
    }
  }
  add_half_blocks(add, {1, 2, 3, 4, 5, 6, 7, 8});
  add({.name = "half_blocks_planned",
       .n_q_heads = 64,
       .n_kv_heads = 32,
       .n = {1500, 1, 3000, 2222, 700},
       .budget = 64});
  add({.name = "half_blocks_page64",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .n = {4000, 1, 333},
       .page_size = 64,
       .n_warps = kHalfWarps});
  add({.name = "half_blocks_extras",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .n = {5000, 3000, 100},
       .masked = true,
       .query_weights = true,
       .key_means = true,
       .sinks = true,
       .n_warps = kHalfWarps});
  for (const int rbit : {64, 256}) {
    add({.name = "dense_r" + std::to_string(rbit),
         .n_q_heads = 32,
         .n_kv_heads = 16,
         .rbit = rbit,
         .n = {500, 333, 1, 128, 64, 3, 444, 512, 100},
         .key_means = true,
         .mode = HATA_CUDA_DENSE});
  }
  add_pages(add, {16, 32, 64, 128, 256}, 128, "");
  add_cells(add, {1, 2, 31, 127, 128, 129, 1024, 1025});
  add_budgets(add, {1, 2, 16, 17, 1000, 2999, 3000, 5000});
  add_batches(add);
  add_ties_and_one_block(add);
  add({.name = "mha", .n_q_heads = 32, .n_kv_heads = 32, .n = {3000, 5000}});
  add({.name = "many_pairs",
       .n_q_heads = 64,
       .n_kv_heads = 64,
       .n = {700, 900, 1100, 500, 640, 64},
       .budget = 100});
  add({.name = "large_budget_one_block",
       .n_q_heads = 4,
       .n_kv_heads = 1,
       .n = {60000},
       .budget = 30000,
       .n_blocks = 1});
  add({.name = "paper_order",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .lengths = false,
       .sink = 0,
       .recent = 0});
  add({.name = "masked", .n_q_heads = 8, .n_kv_heads = 2, .n = {5000, 3000, 100}, .masked = true});
  add({.name = "masked_shared_rows",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .n = {5000, 4999, 4998, 4000},
       .masked = true,
       .shared = true,
       .encode_last = false});
  add({.name = "dense_masked",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .n = {5000, 3000},
       .masked = true,
       .mode = HATA_CUDA_DENSE});
  add({.name = "drafts",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .n = {6000, 5999, 5998, 5997, 5996, 5995, 5994, 5993},
       .shared = true,
       .encode_last = false});
  add({.name = "query_weights", .n_q_heads = 8, .n_kv_heads = 2, .query_weights = true});
  add({.name = "key_means", .n_q_heads = 8, .n_kv_heads = 2, .key_means = true});
  add({.name = "query_weights_and_means_r256",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .rbit = 256,
       .query_weights = true,
       .key_means = true});
  add({.name = "softcap", .n_q_heads = 8, .n_kv_heads = 2, .softcap = 3.0f});
  add({.name = "sinks", .n_q_heads = 8, .n_kv_heads = 2, .n = {4000, 1}, .sinks = true});
  add({.name = "alibi", .n_q_heads = 8, .n_kv_heads = 2, .alibi = true});
  add({.name = "all_extras_apart",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .softcap = 3.0f,
       .sinks = true,
       .alibi = true,
       .fused = 0});
  add({.name = "all_extras_dense",
       .n_q_heads = 8,
       .n_kv_heads = 2,
       .softcap = 3.0f,
       .sinks = true,
       .alibi = true,
       .mode = HATA_CUDA_DENSE});
  add({.name = "f16_queries", .n_q_heads = 8, .n_kv_heads = 2, .q_type = HATA_CUDA_F16});
  add_q8_0(all);
  add_squares(all);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Grid, StepTest, ::testing::ValuesIn(cases()),
                         [](const ::testing::TestParamInfo<Case>& at) { return at.param.name; });

// Refused before a device is asked for, with the field, its value and what is wanted.
TEST(StepErrors, NameTheField) {
  alignas(16) static std::byte memory[64];
  hata_cuda_step good{};
  good.shape = {8, 2, 128, 128};
  good.cache.keys = good.cache.values = memory;
  good.cache.type = HATA_CUDA_Q8_0;
  good.cache.head_stride = 136;
  good.cache.cell_stride = 272;
  good.cache.seq_stride = 272 * 128;
  good.codes = {reinterpret_cast<uint32_t*>(memory), nullptr, 128};
  good.projection.keys = reinterpret_cast<const float*>(memory);
  good.n_rows = 1;
  good.q = good.out = memory;
  good.max_n_kv = 128;
  good.budget = 16;
  const auto refusal = [&](const std::function<void(hata_cuda_step&)>& change) {
    hata_cuda_step step = good;
    change(step);
    EXPECT_EQ(HATA_CUDA_BAD_ARGUMENT, hata_cuda_decode(&step, memory, sizeof(memory), nullptr));
    EXPECT_EQ(0u, hata_cuda_workspace_size(&step));
    return std::string(hata_cuda_error());
  };
  EXPECT_EQ(refusal([](auto& s) { s.shape.head_dim = 80; }),
            "shape.head_dim is 80; want 64, 96, 128 or 256: blocks of HATA_CUDA_Q8_0 are of 32");
  const std::string blocks =
      "; want a multiple of 2 bytes (blocks of HATA_CUDA_Q8_0 start with an f16)";
  EXPECT_EQ(refusal([](auto& s) { s.cache.cell_stride = 273; }),
            "cache.cell_stride is 273" + blocks);
  EXPECT_EQ(refusal([](auto& s) { s.cache.head_stride = 137; }),
            "cache.head_stride is 137" + blocks);
  EXPECT_EQ(refusal([](auto& s) { s.cache.seq_stride = 1; }), "cache.seq_stride is 1" + blocks);
  EXPECT_EQ(refusal([](auto& s) {
              s.cache.block_table = reinterpret_cast<const int32_t*>(memory);
              s.cache.page_size = 16;
              s.cache.page_stride = 4353;
            }),
            "cache.page_stride is 4353" + blocks);
  EXPECT_NE(refusal([](auto& s) { s.cache.values = memory + 1; }).find("cache.values is "),
            std::string::npos);
  EXPECT_EQ(refusal([](auto& s) { s.cache.type = HATA_CUDA_F16, s.cache.head_stride = 264; }),
            "cache.head_stride is 264; want a multiple of 16 bytes (rows are read by 16)");
  EXPECT_EQ(refusal([](auto& s) { s.cache.type = HATA_CUDA_F32; }),
            "cache.type is 0; want HATA_CUDA_F16, HATA_CUDA_BF16 or HATA_CUDA_Q8_0");
  EXPECT_EQ(refusal([](auto& s) { s.q_type = HATA_CUDA_Q8_0; }),
            "q_type is 3; want HATA_CUDA_F32, HATA_CUDA_F16 or HATA_CUDA_BF16");
  EXPECT_EQ(refusal([](auto& s) { s.out_type = HATA_CUDA_Q8_0; }),
            "out_type is 3; want HATA_CUDA_F32, HATA_CUDA_F16 or HATA_CUDA_BF16");
  const int unknown = 2;  // as C may pass it
  EXPECT_EQ(refusal([&](auto& s) { std::memcpy(&s.score, &unknown, sizeof(s.score)); }),
            "score is 2; want HATA_CUDA_SUM or HATA_CUDA_SQUARES");
}

}  // namespace
}  // namespace hata::cuda
