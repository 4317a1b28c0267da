// encode, key_norms and key_lengths of the level in use against the scalar reference, bit for bit.
#include <cmath>
#include <limits>

#include "core/reference.h"
#include "hata/encode.h"
#include "kernel_test.h"

namespace hata {
namespace {

using test::Random;
using test::Rows;

constexpr int kHeadDims[] = {64, 80, 96, 128, 192, 256};

void expect_codes(const std::vector<float>& w, int head_dim, int rbit, const Rows& x, DType type,
                  int64_t n) {
  const size_t words = static_cast<size_t>(n) * static_cast<size_t>(rbit) / 64;
  std::vector<uint64_t> got(words), expected(words);
  encode(w.data(), head_dim, rbit, x.data(), type, x.stride(), n, got.data());
  reference::encode(w.data(), head_dim, rbit, x.data(), type, x.stride(), n, expected.data());
  EXPECT_EQ(got, expected) << "head_dim " << head_dim << ", rbit " << rbit << ", n " << n;
}

TEST(Encode, EqualsReferenceForAllShapes) {
  Random random(1);
  for (const int head_dim : kHeadDims) {
    for (const int rbit : {64, 128, 256}) {
      const std::vector<float> w = random.normals(static_cast<size_t>(head_dim) * rbit);
      for (const DType type : {DType::f16, DType::f32}) {
        const size_t stride = static_cast<size_t>(head_dim) * dtype_size(type) + 12;
        const Rows x(13, head_dim, type, stride, 4, random);
        for (const int64_t n : {1, 2, 3, 4, 5, 6, 7, 13}) {
          expect_codes(w, head_dim, rbit, x, type, n);
        }
      }
    }
  }
}

// Sums near 0 are where another order of additions, or another rounding, changes the bit.
TEST(Encode, EqualsReferenceWhereSumsCancel) {
  Random random(2);
  const int head_dim = 128, rbit = 128;
  std::vector<float> w = random.normals(static_cast<size_t>(head_dim) * rbit);
  for (int i = 0; i < head_dim / 2; ++i) {
    for (int j = 0; j < rbit; ++j) w[(head_dim - 1 - i) * rbit + j] = -w[i * rbit + j];
  }
  Rows x(64, head_dim, DType::f32, 512, 0, random);
  for (int64_t v = 0; v < 64; ++v) {
    for (int i = 0; i < head_dim / 2; ++i) {
      const float value = random.normal();
      x.set(v, i, value);
      x.set(v, head_dim - 1 - i, value);
    }
  }
  expect_codes(w, head_dim, rbit, x, DType::f32, 64);
}

TEST(Encode, EqualsReferenceForSpecialValues) {
  Random random(3);
  const float special[] = {std::numeric_limits<float>::quiet_NaN(),
                           std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity(),
                           std::numeric_limits<float>::denorm_min(),
                           -1e-40f,
                           0x1p-24f,
                           -0.0f,
                           65504.0f,
                           3e38f};
  for (const DType type : {DType::f16, DType::f32}) {
    const std::vector<float> w = random.normals(64 * 128);
    Rows x(32, 64, type, 256, 0, random);
    for (int64_t v = 0; v < 32; ++v) {
      for (int i = 0; i < 64; ++i) {
        if (v >= 9) x.set(v, i, 0.0f);
        if (v >= 18 || random.chance(0.1)) x.set(v, i, special[v % 9]);
      }
    }
    expect_codes(w, 64, 128, x, type, 32);
  }
}

TEST(Encode, NanGivesZeroBits) {
  Random random(4);
  Rows x(1, 64, DType::f32, 256, 0, random);
  x.set(0, 5, std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> w = random.normals(64 * 64);
  uint64_t code = ~uint64_t{0};
  encode(w.data(), 64, 64, x.data(), DType::f32, 256, 1, &code);
  EXPECT_EQ(code, 0u);
}

TEST(KeyLengths, EqualReference) {
  Random random(5);
  for (const int head_dim : kHeadDims) {
    for (const DType type : {DType::f16, DType::f32}) {
      const int64_t n = 150;
      const size_t stride = static_cast<size_t>(head_dim) * dtype_size(type) + 4;
      Rows x(n, head_dim, type, stride, 8, random);
      for (int64_t v = 0; v < n; ++v) {
        const float factor = std::exp(random.normal());
        for (int i = 0; i < head_dim; ++i)
          x.set(v, i, v % 10 == 0 ? 0.0f : factor * random.normal());
      }
      x.set(3, 1, std::numeric_limits<float>::quiet_NaN());
      x.set(4, 1, std::numeric_limits<float>::infinity());
      std::vector<float> norms(n), expected_norms(n);
      key_norms(head_dim, x.data(), type, stride, n, norms.data());
      reference::key_norms(head_dim, x.data(), type, stride, n, expected_norms.data());
      for (int64_t v = 0; v < n; ++v) {
        if (v == 3) continue;  // NaN
        EXPECT_EQ(norms[v], expected_norms[v]);
      }
      std::vector<uint8_t> lengths(n), expected(n);
      const float inv_unit = 8.0f / std::sqrt(static_cast<float>(head_dim));
      key_lengths(head_dim, x.data(), type, stride, n, inv_unit, lengths.data());
      reference::key_lengths(head_dim, x.data(), type, stride, n, inv_unit, expected.data());
      EXPECT_EQ(lengths, expected) << "head_dim " << head_dim;
      EXPECT_EQ(lengths[0], 1);   // a zero key
      EXPECT_EQ(lengths[3], 1);   // NaN
      EXPECT_EQ(lengths[4], 15);  // infinity
    }
  }
}

TEST(Dots, EqualReference) {
  Random random(9);
  for (const int head_dim : kHeadDims) {
    for (const DType type : {DType::f16, DType::f32}) {
      const std::vector<float> q = random.normals(static_cast<size_t>(head_dim));
      const size_t stride = static_cast<size_t>(head_dim) * dtype_size(type) + 12;
      const Rows x(21, head_dim, type, stride, 4, random);
      std::vector<float> got(21), expected(21);
      dots(q.data(), head_dim, x.data(), type, x.stride(), 21, got.data());
      reference::dots(q.data(), head_dim, x.data(), type, x.stride(), 21, expected.data());
      EXPECT_EQ(got, expected) << "head_dim " << head_dim << ", " << dtype_name(type);
    }
  }
}

}  // namespace
}  // namespace hata
