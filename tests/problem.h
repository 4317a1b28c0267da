// A cache of random keys and values with a few query rows over it, for tests of whole steps.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "core/f16.h"
#include "core/reference.h"
#include "hata/decode.h"
#include "hata/simd.h"

namespace hata::test {

inline constexpr uint16_t kMinusInfinity = 0xfc00;
inline constexpr float kTolerance =
    1e-5f;  // of the largest |value|, for f32 sums of up to 4096 keys

class Problem {
 public:
  Problem(HeadShape shape, int64_t n_kv, int n_rows, unsigned seed)
      : shape_(shape), n_kv_(n_kv), rng_(seed) {
    const size_t row = static_cast<size_t>(shape.n_kv_heads) * shape.head_dim;
    keys_.resize(row * static_cast<size_t>(n_kv));
    values_.resize(keys_.size());
    for (auto& x : keys_) x = f32_to_f16(normal_(rng_));
    for (auto& x : values_) x = f32_to_f16(normal_(rng_));
    const size_t q_size = static_cast<size_t>(shape.n_q_heads) * shape.head_dim;
    q_.resize(q_size * static_cast<size_t>(n_rows));
    for (auto& x : q_) x = normal_(rng_);
    out_.assign(q_.size(), NAN);
    masks_.assign(static_cast<size_t>(n_rows), std::vector<uint16_t>(static_cast<size_t>(n_kv), 0));
    for (int r = 0; r < n_rows; ++r) {
      rows_.push_back({.q = q_.data() + r * q_size,
                       .q_head_stride = static_cast<size_t>(shape.head_dim),
                       .out = out_.data() + r * q_size,
                       .out_head_stride = static_cast<size_t>(shape.head_dim),
                       .mask = masks_[static_cast<size_t>(r)].data()});
    }
  }

  Step step() const {
    const auto view = [&](const std::vector<uint16_t>& data) {
      const size_t head_stride = size_t{2} * shape_.head_dim;
      return CacheView{.data = reinterpret_cast<const std::byte*>(data.data()),
                       .type = DType::f16,
                       .cell_stride = head_stride * shape_.n_kv_heads,
                       .head_stride = head_stride};
    };
    return {.shape = shape_,
            .params = {.scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
                       .softcap = 0.0f,
                       .max_bias = 0.0f,
                       .sinks = nullptr},
            .keys = view(keys_),
            .values = view(values_),
            .n_kv = n_kv_,
            .first_cell = 0,
            .rows = rows_};
  }

  void mask_out(int row, int64_t cell) {
    masks_[static_cast<size_t>(row)][static_cast<size_t>(cell)] = kMinusInfinity;
  }
  void punch_holes(int row, unsigned one_in) {
    for (int64_t cell = 0; cell < n_kv_; ++cell) {
      if (rng_() % one_in == 0) mask_out(row, cell);
    }
  }
  void new_key(int64_t cell) {
    const auto row = static_cast<size_t>(shape_.n_kv_heads * shape_.head_dim);
    for (size_t i = 0; i < row; ++i)
      keys_[static_cast<size_t>(cell) * row + i] = f32_to_f16(normal_(rng_));
  }

  void clear(int64_t cell) {
    const auto row = static_cast<size_t>(shape_.n_kv_heads * shape_.head_dim);
    std::fill_n(keys_.begin() + cell * static_cast<int64_t>(row), row, uint16_t{0});
    std::fill_n(values_.begin() + cell * static_cast<int64_t>(row), row, uint16_t{0});
  }
  void copy(int64_t to, int64_t from) {
    const auto row = static_cast<int64_t>(shape_.n_kv_heads * shape_.head_dim);
    for (auto* cells : {&keys_, &values_}) {
      std::copy_n(cells->begin() + from * row, row, cells->begin() + to * row);
    }
  }
  // Leaves the keys no more than n dimensions, which are none of the axes.
  void flatten_keys(int n) {
    const auto d = static_cast<size_t>(shape_.head_dim);
    std::vector<float> directions(static_cast<size_t>(n) * d);
    for (float& x : directions) x = normal_(rng_);
    for (size_t at = 0; at < keys_.size(); at += d) {
      std::vector<float> key(d, 0.0f);
      for (int j = 0; j < n; ++j) {
        const float weight = normal_(rng_) / static_cast<float>(n);
        for (size_t i = 0; i < d; ++i)
          key[i] += weight * directions[static_cast<size_t>(j) * d + i];
      }
      for (size_t i = 0; i < d; ++i) keys_[at + i] = f32_to_f16(key[i]);
    }
  }

  std::vector<uint64_t> valid(int row) const {
    std::vector<uint64_t> words(static_cast<size_t>((n_kv_ + 63) / 64), 0);
    for (int64_t cell = 0; cell < n_kv_; ++cell) {
      const bool is_valid = masks_[static_cast<size_t>(row)][static_cast<size_t>(cell)] == 0;
      words[static_cast<size_t>(cell / 64)] |= static_cast<uint64_t>(is_valid) << (cell % 64);
    }
    return words;
  }

  // Checks the output of a row against double-precision attention over `cells` (all where null).
  void expect_output(int row, int head, const std::vector<int32_t>* cells) const {
    const int group = shape_.group();
    const size_t d = static_cast<size_t>(shape_.head_dim);
    const Step s = step();
    const std::vector<float> slopes(static_cast<size_t>(group), 1.0f);
    const AttendArgs args{.heads = group,
                          .head_dim = shape_.head_dim,
                          .q = rows_[static_cast<size_t>(row)].q + head * group * d,
                          .q_stride = d,
                          .keys = s.keys,
                          .values = s.values,
                          .kv_head = head,
                          .cells = cells == nullptr ? nullptr : cells->data(),
                          .first_cell = 0,
                          .count = cells == nullptr ? n_kv_ : static_cast<int64_t>(cells->size()),
                          .mask = masks_[static_cast<size_t>(row)].data(),
                          .slopes = slopes.data(),
                          .params = s.params,
                          .scratch = nullptr};
    std::vector<double> want(static_cast<size_t>(group) * d);
    reference::attend(args, nullptr, want.data());
    const float* got = rows_[static_cast<size_t>(row)].out + head * group * d;
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 5 * kTolerance) << i;
  }

  const HeadShape& shape() const { return shape_; }
  const std::vector<float>& out() const { return out_; }

 private:
  HeadShape shape_;
  int64_t n_kv_;
  std::mt19937 rng_;
  std::normal_distribution<float> normal_;
  std::vector<uint16_t> keys_, values_;
  std::vector<float> q_, out_;
  std::vector<std::vector<uint16_t>> masks_;
  std::vector<Row> rows_;
};

// A step of the level that the environment variable HATA_TEST_SIMD names.
class StepTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* wanted = std::getenv("HATA_TEST_SIMD");
    if (wanted == nullptr) return;
    for (const SimdLevel level : available_simd()) {
      if (std::string(simd_name(level)) == wanted) return force_simd(level);
    }
    GTEST_SKIP() << "this CPU has no " << wanted;
  }

  static void run(Decoder& decoder, const Problem& problem, LayerCache* cache,
                  const SparseRule& rule, int threads) {
    Team team(threads);
    const Step step = problem.step();
    team.run([&](const Worker& worker) { decoder.step(step, cache, rule, worker); });
  }

  static SparseRule rule(const char* budget) {
    return {.budget = Budget::parse(budget), .min_ctx = 1};
  }
};

}  // namespace hata::test
