// attend of the level in use against softmax in double precision. Tolerance: 1e-5 of the largest
// |value|, the error of f32 sums (f16 keys and values are exact in f32).
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/reference.h"
#include "hata/attend.h"
#include "kernel_test.h"

namespace hata {
namespace {

using test::Random;
using test::Rows;

constexpr int kHeadDims[] = {64, 80, 96, 128, 192, 256};
constexpr double kTolerance = 1e-5;

/// A cache of one KV head, queries for it, and what attend gives.
struct Case {
  int heads;
  int head_dim;
  int64_t n;
  std::vector<float> q;
  Rows keys;
  Rows values;
  AttendArgs args{};
  std::vector<float> max, sum, acc, out;

  Case(int h, int d, int64_t cells, DType k_type, DType v_type, Random& random)
      : heads(h),
        head_dim(d),
        n(cells),
        q(random.normals(static_cast<size_t>(h) * (d + 4))),
        keys(cells, d, k_type, static_cast<size_t>(d) * dtype_size(k_type) + 20, 4, random),
        values(cells, d, v_type, static_cast<size_t>(d) * dtype_size(v_type) + 36, 12, random) {
    args.heads = h;
    args.head_dim = d;
    args.q = q.data();
    args.q_stride = static_cast<size_t>(d) + 4;
    args.keys = {keys.data(), k_type, keys.stride(), 0};
    args.values = {values.data(), v_type, values.stride(), 0};
    args.count = cells;
    args.params.scale = 1.0f / std::sqrt(static_cast<float>(d));
  }

  Partial begin() {
    max.resize(heads);
    sum.resize(heads);
    acc.resize(static_cast<size_t>(heads) * head_dim);
    const Partial partial{max.data(), sum.data(), acc.data()};
    attend_begin(partial, heads, head_dim);
    return partial;
  }

  void finish(const Partial& partial, const float* sinks) {
    out.assign(static_cast<size_t>(heads) * head_dim, -1.0f);
    attend_finish(partial, heads, head_dim, sinks, out.data(), static_cast<size_t>(head_dim));
  }

  void expect_reference(const float* sinks, const std::string& what) {
    std::vector<double> expected(out.size());
    reference::attend(args, sinks, expected.data());
    double error = 0.0, largest = 0.0;
    for (int64_t c = 0; c < n; ++c) {
      for (int i = 0; i < head_dim; ++i) {
        const float v = reference::element(args.values.row(c, 0), args.values.type, i);
        if (std::isfinite(v)) largest = std::max(largest, std::fabs(static_cast<double>(v)));
      }
    }
    for (size_t i = 0; i < out.size(); ++i) {
      const double difference = std::fabs(static_cast<double>(out[i]) - expected[i]);
      error = std::isnan(difference) ? 1e30 : std::max(error, difference);
    }
    EXPECT_LE(error, kTolerance * largest)
        << what << ": head_dim " << head_dim << ", heads " << heads << ", count " << args.count;
  }

  void check(const std::string& what, const float* sinks = nullptr) {
    const Partial partial = begin();
    attend(args, partial);
    finish(partial, sinks);
    expect_reference(sinks, what);
  }
};

std::vector<int32_t> some_cells(int64_t n, double share, Random& random) {
  std::vector<int32_t> cells;
  for (int32_t c = 0; c < n; ++c) {
    if (random.chance(share)) cells.push_back(c);
  }
  return cells;
}

void set_cells(AttendArgs& args, const std::vector<int32_t>& cells) {
  args.cells = cells.data();
  args.count = static_cast<int64_t>(cells.size());
}

TEST(Attend, EqualsReferenceForAllShapes) {
  Random random(1);
  for (const int head_dim : kHeadDims) {
    for (const int heads : {1, 2, 3, 4, 5, 7, 8, 12, 16, 71}) {
      for (const DType type : {DType::f16, DType::f32}) {
        Case c(heads, head_dim, 150, type, type, random);
        c.check("all cells");
        const std::vector<int32_t> cells = some_cells(150, 0.4, random);
        set_cells(c.args, cells);
        c.check("a list");
      }
    }
  }
}

TEST(Attend, EqualsReferenceForAllCounts) {
  Random random(2);
  Case c(4, 128, 300, DType::f16, DType::f16, random);
  for (int64_t count = 1; count <= 300; count += count < 140 ? 1 : 37) {
    c.args.first_cell = 300 - count;
    c.args.count = count;
    c.check("count");
  }
}

TEST(Attend, KeysAndValuesOfDifferentTypes) {
  Random random(3);
  Case(3, 96, 100, DType::f16, DType::f32, random).check("f16, f32");
  Case(3, 96, 100, DType::f32, DType::f16, random).check("f32, f16");
}

TEST(Attend, MaskExcludesCells) {
  Random random(4);
  for (const double share : {0.9, 0.3, 0.02}) {
    Case c(5, 128, 500, DType::f16, DType::f16, random);
    std::vector<uint16_t> mask(500);
    for (int64_t cell = 0; cell < 500; ++cell) {
      if (random.chance(share)) continue;
      mask[cell] = kF16NegInf;
      // What an excluded cell holds must not matter.
      c.keys.set(cell, 1, std::numeric_limits<float>::quiet_NaN());
      c.values.set(cell, 2, std::numeric_limits<float>::infinity());
    }
    c.args.mask = mask.data();
    c.check("mask");
    const std::vector<int32_t> cells = some_cells(500, 0.5, random);
    set_cells(c.args, cells);
    c.check("mask and a list");
  }
}

TEST(Attend, BiasOfEachHeadAndKey) {
  Random random(11);
  for (const int heads : {1, 3, 4, 7, 12}) {
    Case c(heads, 96, 300, DType::f16, DType::f16, random);
    const std::vector<int32_t> cells = some_cells(300, 0.6, random);
    set_cells(c.args, cells);
    std::vector<uint16_t> mask(300, 0);
    for (int cell = 0; cell < 300; cell += 9) mask[cell] = kF16NegInf;
    c.args.bias_stride = cells.size() + 5;
    std::vector<float> bias = random.normals(heads * c.args.bias_stride);
    for (size_t i = 0; i < bias.size(); i += 3) bias[i] = -std::numeric_limits<float>::infinity();
    if (heads > 1) {  // a head that attends to nothing
      std::fill_n(bias.begin(), c.args.bias_stride, -std::numeric_limits<float>::infinity());
    }
    c.args.bias = bias.data();
    c.check("bias");
    c.args.mask = mask.data();
    c.check("bias and mask");
  }
}

TEST(Attend, ZeroBiasChangesNoBit) {
  Random random(12);
  Case c(7, 128, 200, DType::f16, DType::f16, random);
  c.check("none");
  const std::vector<float> without = c.out;
  const std::vector<float> bias(7 * 200, 0.0f);
  c.args.bias = bias.data();
  c.args.bias_stride = 200;
  c.check("zero");
  EXPECT_EQ(c.out, without);
}

TEST(Attend, AlibiSoftcapAndSinks) {
  Random random(5);
  for (const int heads : {1, 3, 4, 8, 12}) {
    Case c(heads, 80, 200, DType::f16, DType::f16, random);
    std::vector<uint16_t> mask;
    for (int cell = 0; cell < 200; ++cell) {
      mask.push_back(cell % 7 == 0 ? kF16NegInf : f32_to_f16(static_cast<float>(cell - 199)));
    }
    std::vector<float> slopes, sinks;
    for (int h = 0; h < heads; ++h) {
      slopes.push_back(alibi_slope(8.0f, heads, h));
      sinks.push_back(random.normal() * 3.0f);
    }
    c.args.mask = mask.data();
    c.check("additive mask");
    c.args.slopes = slopes.data();
    c.check("slopes");
    c.check("slopes and sinks", sinks.data());
    for (const float cap : {0.5f, 30.0f, 50.0f}) {
      c.args.params.softcap = cap;
      c.check("softcap");
      c.check("softcap and sinks", sinks.data());
    }
  }
}

TEST(Attend, LargeAndSmallLogits) {
  Random random(6);
  for (const float scale : {1e-4f, 1.0f, 8.0f}) {
    for (const float softcap : {0.0f, 20.0f}) {
      Case c(4, 64, 300, DType::f32, DType::f32, random);
      // Products of small integers are exact in f32, so that large logits are too.
      for (float& x : c.q) x = static_cast<float>(random.below(5) - 2);
      for (int64_t cell = 0; cell < 300; ++cell) {
        for (int i = 0; i < 64; ++i) c.keys.set(cell, i, static_cast<float>(random.below(5) - 2));
      }
      c.args.params.scale = scale;
      c.args.params.softcap = softcap;
      c.check("scale");
    }
  }
}

TEST(Attend, PartsMergeToTheWhole) {
  Random random(7);
  for (const int parts : {2, 3, 7}) {
    Case c(4, 128, 700, DType::f16, DType::f16, random);
    const std::vector<float> sinks = random.normals(4);
    const Partial whole = c.begin();
    for (int p = 0; p < parts; ++p) {
      std::vector<float> max(4), sum(4), acc(4 * 128);
      const Partial part{max.data(), sum.data(), acc.data()};
      attend_begin(part, 4, 128);
      AttendArgs args = c.args;
      args.first_cell = 700 * p / parts;
      args.count = p == 1 ? 0 : 700 * (p + 1) / parts - args.first_cell;  // one part is empty
      attend(args, part);
      attend_merge(whole, part, 4, 128);
    }
    c.finish(whole, sinks.data());
    std::vector<int32_t> cells;
    for (int32_t cell = 0; cell < 700; ++cell) {
      if (cell < 700 / parts || cell >= 700 * 2 / parts) cells.push_back(cell);
    }
    set_cells(c.args, cells);
    c.expect_reference(sinks.data(), "merged");
  }
}

TEST(Attend, CallsFoldIntoOnePartial) {
  Random random(8);
  Case c(7, 192, 400, DType::f16, DType::f16, random);
  const Partial partial = c.begin();
  for (int64_t first = 0; first < 400; first += 90) {
    AttendArgs args = c.args;
    args.first_cell = first;
    args.count = std::min<int64_t>(90, 400 - first);
    attend(args, partial);
  }
  c.finish(partial, nullptr);
  c.expect_reference(nullptr, "folded");
}

TEST(Attend, SecondKvHead) {
  Random random(9);
  Case c(2, 64, 100, DType::f16, DType::f16, random);
  const Rows keys(100, 128, DType::f16, 256, 0, random);
  const Rows values(100, 128, DType::f16, 256, 0, random);
  c.args.keys = {keys.data(), DType::f16, 256, 128};
  c.args.values = {values.data(), DType::f16, 256, 128};
  c.args.kv_head = 1;
  c.check("KV head 1");
}

TEST(Attend, NoKeyGivesZeros) {
  Random random(10);
  Case c(3, 64, 100, DType::f16, DType::f16, random);
  const std::vector<uint16_t> mask(100, kF16NegInf);
  const std::vector<float> sinks = random.normals(3);
  c.args.mask = mask.data();
  for (const float* s : {static_cast<const float*>(nullptr), sinks.data()}) {
    const Partial partial = c.begin();
    attend(c.args, partial);
    attend_merge(partial, partial, 3, 64);
    c.finish(partial, s);
    for (const float value : c.out) EXPECT_EQ(value, 0.0f);
  }
}

TEST(AlibiSlope, FollowsTheFormula) {
  EXPECT_EQ(alibi_slope(0.0f, 12, 3), 1.0f);
  for (int h = 0; h < 8; ++h) {
    EXPECT_FLOAT_EQ(alibi_slope(8.0f, 8, h), std::pow(2.0f, -static_cast<float>(h + 1)));
  }
  // 12 heads: 8 regular ones, then every second one of 16.
  EXPECT_FLOAT_EQ(alibi_slope(8.0f, 12, 7), std::pow(2.0f, -8.0f));
  EXPECT_FLOAT_EQ(alibi_slope(8.0f, 12, 8), std::pow(2.0f, -0.5f));
  EXPECT_FLOAT_EQ(alibi_slope(8.0f, 12, 11), std::pow(2.0f, -3.5f));
}

}  // namespace
}  // namespace hata
