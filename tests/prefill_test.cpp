// Prefill of the level in use against softmax in double precision. Tolerance: 2e-5 of the largest
// |value|, the error of f32 sums (f16 keys and values are exact in f32).
#include "methods/prefill.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/reference.h"
#include "kernel_test.h"

namespace hata {
namespace {

using test::Random;
using test::Rows;

constexpr double kTolerance = 2e-5;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// One step of many rows, all buffers with gaps and at odd addresses.
struct Problem {
  HeadShape shape;
  int n_rows;
  int64_t n_kv;
  size_t q_stride, row_stride;
  std::vector<float> q, out, sinks;
  Rows keys, values;
  std::vector<uint16_t> mask;  // [row][n_kv]
  std::vector<Row> rows;
  Step step;

  Problem(int group, int kv_heads, int head_dim, int rows_, int64_t cells, DType type,
          Random& random)
      : shape{group * kv_heads, kv_heads, head_dim},
        n_rows(rows_),
        n_kv(cells),
        q_stride(static_cast<size_t>(head_dim) + 4),
        row_stride(q_stride * static_cast<size_t>(shape.n_q_heads) + 12),
        q(random.normals(row_stride * static_cast<size_t>(rows_))),
        out(q.size(), kNaN),
        keys(cells, kv_heads * head_dim, type, cell_bytes(type) + 20, 4, random),
        values(cells, kv_heads * head_dim, type, cell_bytes(type) + 36, 12, random),
        mask(static_cast<size_t>(rows_ * cells), 0) {
    const auto head_bytes = static_cast<size_t>(head_dim) * dtype_size(type);
    step.shape = shape;
    step.params.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    step.keys = {keys.data(), type, keys.stride(), head_bytes};
    step.values = {values.data(), type, values.stride(), head_bytes};
    step.n_kv = cells;
    for (int r = 0; r < n_rows; ++r) {
      rows.push_back({.q = q.data() + static_cast<size_t>(r) * row_stride,
                      .q_head_stride = q_stride,
                      .out = out.data() + static_cast<size_t>(r) * row_stride,
                      .out_head_stride = q_stride,
                      .mask = mask_of(r)});
    }
    step.rows = rows;
  }

  size_t cell_bytes(DType type) const {
    return static_cast<size_t>(shape.n_kv_heads * shape.head_dim) * dtype_size(type);
  }
  uint16_t* mask_of(int row) { return mask.data() + static_cast<size_t>(row) * n_kv; }

  /// Row r sees the cells first(r) .. last(r), the others not.
  template <class First, class Last>
  void see(First&& first, Last&& last) {
    for (int r = 0; r < n_rows; ++r) {
      for (int64_t c = 0; c < n_kv; ++c) {
        mask_of(r)[c] = c >= first(r) && c <= last(r) ? uint16_t{0} : kF16NegInf;
      }
    }
  }
  /// As in a prefill of the last n_rows cells.
  void see_causal() {
    see([](int) { return 0; }, [this](int r) { return n_kv - n_rows + r; });
  }
  void see_some(double share, Random& random) {
    for (uint16_t& m : mask) m = random.chance(share) ? uint16_t{0} : kF16NegInf;
  }

  void run(int n_threads = 1) {
    Team team(n_threads);
    Prefill prefill;
    team.run([&](const Worker& worker) { prefill.step(step, worker); });
  }

  void expect_reference(const std::string& what) {
    double largest = 0.0;
    for (int64_t c = 0; c < n_kv; ++c) {
      for (int i = 0; i < shape.n_kv_heads * shape.head_dim; ++i) {
        const float v = reference::element(step.values.row(c, 0), step.values.type, i);
        if (std::isfinite(v)) largest = std::max(largest, std::fabs(static_cast<double>(v)));
      }
    }
    double error = 0.0;
    for (int r = 0; r < n_rows; ++r) {
      for (int h = 0; h < shape.n_kv_heads; ++h) error = std::max(error, error_of(r, h));
    }
    EXPECT_LE(error, kTolerance * largest)
        << what << ": head_dim " << shape.head_dim << ", group " << shape.group() << ", rows "
        << n_rows << ", n_kv " << n_kv;
  }

  /// Infinite where one result is NaN and the other is not.
  double error_of(int r, int kv_head) {
    const auto group = static_cast<size_t>(shape.group());
    const size_t first = static_cast<size_t>(kv_head) * group;
    std::vector<float> slopes;
    for (size_t h = first; h < first + group; ++h) {
      slopes.push_back(alibi_slope(step.params.max_bias, shape.n_q_heads, static_cast<int>(h)));
    }
    const AttendArgs args{.heads = shape.group(),
                          .head_dim = shape.head_dim,
                          .q = rows[static_cast<size_t>(r)].q + first * q_stride,
                          .q_stride = q_stride,
                          .keys = step.keys,
                          .values = step.values,
                          .kv_head = kv_head,
                          .cells = nullptr,
                          .first_cell = 0,
                          .count = n_kv,
                          .mask = rows[static_cast<size_t>(r)].mask,
                          .slopes = slopes.data(),
                          .params = step.params,
                          .scratch = nullptr};
    std::vector<double> expected(group * static_cast<size_t>(shape.head_dim));
    reference::attend(args, step.params.sinks == nullptr ? nullptr : step.params.sinks + first,
                      expected.data());
    double error = 0.0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const size_t d = static_cast<size_t>(shape.head_dim);
      const float* got = rows[static_cast<size_t>(r)].out + (first + i / d) * q_stride;
      const auto value = static_cast<double>(got[i % d]);
      if (std::isnan(value) && std::isnan(expected[i])) continue;
      const double difference = std::fabs(value - expected[i]);
      error = std::isnan(difference) ? 1e300 : std::max(error, difference);
    }
    return error;
  }

  void check(const std::string& what) {
    std::fill(out.begin(), out.end(), kNaN);
    run();
    expect_reference(what);
  }
};

TEST(Prefill, EqualsReferenceForAllShapes) {
  Random random(1);
  for (const int head_dim : {64, 80, 96, 112, 128, 192, 256}) {
    for (const int group : {1, 3, 4, 7, 16}) {
      const int rows = head_dim == 128 ? 33 : 9;
      Problem p(group, 2, head_dim, rows, 300, DType::f16, random);
      p.check("no mask");
      p.see_causal();
      p.check("causal");
    }
  }
}

TEST(Prefill, EqualsReferenceForAllRowsAndLengths) {
  Random random(2);
  for (const int rows : {1, 2, 5, 9, 24, 33, 100}) {
    Problem p(2, 1, 64, rows, 256, DType::f16, random);
    p.see_causal();
    p.check("rows");
  }
  for (int64_t n_kv = 33; n_kv < 200; n_kv += n_kv < 70 ? 1 : 29) {
    Problem p(2, 1, 64, 33, n_kv, DType::f16, random);
    p.see_causal();
    p.check("length");
    for (Row& row : p.rows) row.mask = nullptr;
    p.check("length, no mask");
  }
}

TEST(Prefill, ManyRows) {
  Random random(3);
  Problem p(4, 1, 64, 512, 640, DType::f16, random);
  p.see_causal();
  p.run(2);
  p.expect_reference("512 rows");
}

TEST(Prefill, LargeGroup) {
  Random random(4);
  Problem p(kMaxGroup, 1, 64, 9, 130, DType::f16, random);
  p.see_causal();
  p.check("group");
}

TEST(Prefill, KeysAndValuesOfAnyType) {
  Random random(5);
  Problem p(4, 2, 96, 20, 200, DType::f32, random);
  p.check("f32");
  const Rows halves(200, 2 * 96, DType::f16, 400, 0, random);
  const CacheView f16{halves.data(), DType::f16, 400, 192};
  const CacheView f32 = p.step.keys;
  p.step.keys = f16;
  p.check("f16, f32");
  p.step.keys = f32;
  p.step.values = f16;
  p.check("f32, f16");
}

TEST(Prefill, Masks) {
  Random random(6);
  Problem p(4, 2, 128, 33, 500, DType::f16, random);
  for (const double share : {0.9, 0.3, 0.01}) {
    p.see_some(share, random);
    p.check("random mask");
  }
  p.see([](int r) { return 300 + r; }, [](int r) { return 400 + r; });
  p.check("sliding window");
  p.see([](int r) { return r % 2 * 250; }, [](int r) { return r % 2 * 250 + 249; });
  p.check("two sequences");
  p.see_causal();
  std::fill_n(p.mask_of(7), 500, kF16NegInf);
  std::fill_n(p.mask_of(32), 500, kF16NegInf);
  p.check("rows that see nothing");
  for (int h = 0; h < p.shape.n_q_heads; ++h) {
    for (int i = 0; i < 128; ++i) EXPECT_EQ(p.rows[7].out[h * p.q_stride + i], 0.0f);
  }
}

TEST(Prefill, SoftcapAlibiAndSinks) {
  Random random(7);
  for (const int heads : {1, 3, 4}) {
    Problem p(heads, 2, 80, 20, 200, DType::f16, random);
    p.see_causal();
    for (int r = 0; r < p.n_rows; ++r) {
      for (int64_t c = 0; c < p.n_kv; ++c) {
        if (p.mask_of(r)[c] == 0) p.mask_of(r)[c] = f32_to_f16(static_cast<float>(c - 199));
      }
    }
    for (int h = 0; h < p.shape.n_q_heads; ++h) p.sinks.push_back(random.normal() * 3.0f);
    p.check("additive mask");
    for (const float softcap : {0.0f, 0.5f, 30.0f}) {
      for (const float max_bias : {0.0f, 8.0f}) {
        for (float* sinks : {static_cast<float*>(nullptr), p.sinks.data()}) {
          p.step.params.softcap = softcap;
          p.step.params.max_bias = max_bias;
          p.step.params.sinks = sinks;
          p.check("softcap " + std::to_string(softcap) + ", bias " + std::to_string(max_bias));
        }
      }
    }
  }
}

// What no row sees, and what some rows do not see, must not reach them.
TEST(Prefill, MaskedCellsMayHoldAnything) {
  Random random(8);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const int64_t n_kv : {256, 200}) {
    Problem p(3, 1, 80, 40, n_kv, DType::f16, random);
    p.see_causal();
    const int64_t seen_by_last = n_kv - 1, seen_by_none = 10, seen_by_many = n_kv - 30;
    for (int r = 0; r < 40; ++r) p.mask_of(r)[seen_by_none] = kF16NegInf;
    for (const int64_t cell : {seen_by_none, seen_by_last}) {
      p.keys.set(cell, 1, kNaN);
      p.keys.set(cell, 2, infinity);
    }
    for (const int64_t cell : {seen_by_none, seen_by_many, seen_by_last}) {
      p.values.set(cell, 2, cell == seen_by_none ? -infinity : kNaN);
    }
    p.run();
    for (int r = 0; r < 39; ++r) {
      EXPECT_LE(p.error_of(r, 0), 1e-4) << r;
      EXPECT_EQ(std::isnan(p.rows[static_cast<size_t>(r)].out[2]), r >= 10) << r;
      EXPECT_FALSE(std::isnan(p.rows[static_cast<size_t>(r)].out[3])) << r;
    }
  }
}

TEST(Prefill, LargeAndSmallLogits) {
  Random random(9);
  for (const float scale : {1e-4f, 1.0f, 8.0f}) {
    for (const float softcap : {0.0f, 20.0f}) {
      // Products of small integers are exact in f32, so that large logits are too.
      Problem p(4, 1, 64, 12, 150, DType::f16, random);
      for (float& x : p.q) x = static_cast<float>(random.below(5) - 2);
      for (int64_t cell = 0; cell < 150; ++cell) {
        for (int i = 0; i < 64; ++i) p.keys.set(cell, i, static_cast<float>(random.below(5) - 2));
      }
      p.step.params.scale = scale;
      p.step.params.softcap = softcap;
      p.check("scale");
    }
  }
}

TEST(Prefill, ExtremesOfF16) {
  Random random(10);
  Problem p(2, 1, 64, 10, 100, DType::f16, random);
  for (int64_t cell = 0; cell < 100; ++cell) {
    for (int i = 0; i < 64; ++i) {
      p.keys.set(cell, i, i == 0 && cell == 3 ? 65504.0f : i == 0 ? 6e-8f : 0.0f);
      p.values.set(cell, i, cell == 4 ? -65504.0f : cell == 5 ? 6e-8f : 65504.0f);
    }
  }
  for (float& x : p.q) x = 1e-3f;
  p.check("extremes");
}

TEST(Prefill, TheSameForAnyNumberOfThreads) {
  Random random(11);
  Problem p(3, 2, 96, 77, 400, DType::f16, random);
  p.see_causal();
  p.run(1);
  const std::vector<float> one = p.out;
  for (int n_threads = 2; n_threads <= 5; ++n_threads) {
    std::fill(p.out.begin(), p.out.end(), kNaN);
    p.run(n_threads);
    for (int r = 0; r < p.n_rows; ++r) {
      for (int h = 0; h < p.shape.n_q_heads; ++h) {
        const size_t at = static_cast<size_t>(r) * p.row_stride + h * p.q_stride;
        ASSERT_EQ(std::memcmp(&one[at], &p.out[at], 96 * sizeof(float)), 0) << n_threads;
      }
    }
  }
}

// The steps of one prefill, with growing and shrinking memory.
TEST(Prefill, StepsOfManyShapesInTurn) {
  Random random(12);
  Team team(2);
  Prefill prefill;
  for (const int rows : {9, 64, 12}) {
    for (const int head_dim : {128, 64}) {
      Problem p(4, 2, head_dim, rows, 130, DType::f16, random);
      p.see_causal();
      team.run([&](const Worker& worker) { prefill.step(p.step, worker); });
      p.expect_reference("in turn");
    }
  }
  EXPECT_EQ(prefill.counters().steps, 6);
  EXPECT_EQ(prefill.counters().rows, 2 * (9 + 64 + 12));
  EXPECT_GT(prefill.counters().ns, 0);
}

}  // namespace
}  // namespace hata
