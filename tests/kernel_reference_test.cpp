// What the reference itself rests on: half precision, shapes, the random projection.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/f16.h"
#include "core/reference.h"
#include "hata/encode.h"
#include "hata/score.h"

namespace hata {
namespace {

/// The value by the definition of the format.
double f16_value(uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

TEST(F16, WideningFollowsTheFormat) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float wide = f16_to_f32(static_cast<uint16_t>(half));
    if ((half & 0x7fff) < 0x7c00) {
      EXPECT_EQ(static_cast<double>(wide), f16_value(static_cast<uint16_t>(half)));
      EXPECT_EQ(std::signbit(wide), (half & 0x8000) != 0);
    } else {
      EXPECT_EQ(std::isnan(wide), (half & 0x3ff) != 0);
      EXPECT_EQ(std::isinf(wide), (half & 0x3ff) == 0);
    }
  }
}

TEST(F16, NarrowingIsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    EXPECT_EQ(f32_to_f16(f16_to_f32(half)), half);
    const float low = f16_to_f32(half);
    const float high = bits + 1 == 0x7c00 ? 65536.0f : f16_to_f32(static_cast<uint16_t>(half + 1));
    const float middle = low + (high - low) / 2;  // exact
    EXPECT_EQ(f32_to_f16(middle), half + half % 2);
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), half);
    EXPECT_EQ(f32_to_f16(-std::nextafter(middle, 1e6f)), (half + 1) | 0x8000);
  }
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e30f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e-30f), 0);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(Shape, ErrorsNameFieldAndValue) {
  EXPECT_NO_THROW(check_shape({32, 8, 128}));
  EXPECT_NO_THROW(check_shape({128, 1, 80}));
  const auto message = [](HeadShape shape) -> std::string {
    try {
      check_shape(shape);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message({32, 8, 100}).find("head_dim is 100"), std::string::npos);
  EXPECT_NE(message({32, 8, 48}).find("head_dim is 48"), std::string::npos);
  EXPECT_NE(message({32, 8, 272}).find("head_dim is 272"), std::string::npos);
  EXPECT_NE(message({32, 0, 128}).find("n_kv_heads is 0"), std::string::npos);
  EXPECT_NE(message({32, 5, 128}).find("n_q_heads is 32"), std::string::npos);
  EXPECT_NE(message({0, 8, 128}).find("n_q_heads is 0"), std::string::npos);
  EXPECT_NE(message({129, 1, 128}).find("is 129"), std::string::npos);
}

TEST(RandomProjection, BlocksAreOrthonormalAndFitHalfPrecision) {
  for (const int head_dim : {64, 80, 128, 256}) {
    for (const int rbit : {64, 128, 256}) {
      const Projection p = random_projection(7, 3, 2, head_dim, rbit);
      ASSERT_EQ(p.weights.size(), static_cast<size_t>(2) * head_dim * rbit);
      for (const float w : p.weights) EXPECT_EQ(w, f16_to_f32(f32_to_f16(w)));
      const float* w = p.head(1);
      for (int a = 0; a < rbit; ++a) {
        for (int b = a / head_dim * head_dim; b <= a; ++b) {
          double dot = 0.0;
          for (int i = 0; i < head_dim; ++i) {
            dot += static_cast<double>(w[i * rbit + a]) * static_cast<double>(w[i * rbit + b]);
          }
          EXPECT_NEAR(dot, a == b ? 1.0 : 0.0, 2e-3);  // the rounding to half precision
        }
      }
    }
  }
}

/// FNV-1a over the bits: any change of the projection would make old codes meaningless.
uint64_t fingerprint(const Projection& p) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const float w : p.weights) hash = (hash ^ std::bit_cast<uint32_t>(w)) * 0x100000001b3u;
  return hash;
}

TEST(RandomProjection, IsTheSameOnEveryMachine) {
  EXPECT_EQ(fingerprint(random_projection(1, 0, 2, 128, 128)), 0x53d9e37cb3340325u);
  EXPECT_EQ(fingerprint(random_projection(42, 5, 1, 64, 256)), 0xd9110d6c58d22325u);
}

TEST(RandomProjection, SeedLayerAndHeadMatter) {
  const Projection p = random_projection(1, 0, 2, 64, 64);
  EXPECT_EQ(p.weights, random_projection(1, 0, 2, 64, 64).weights);
  EXPECT_NE(p.weights, random_projection(2, 0, 2, 64, 64).weights);
  EXPECT_NE(p.weights, random_projection(1, 1, 2, 64, 64).weights);
  EXPECT_FALSE(std::equal(p.head(0), p.head(1), p.head(1)));
}

TEST(RandomProjection, ErrorsNameFieldAndValue) {
  EXPECT_THROW(random_projection(1, 0, 1, 128, 96), Error);
  EXPECT_THROW(random_projection(1, 0, 1, 100, 128), Error);
}

// The reference's own numbers, worked out by hand.
TEST(Reference, ScoreByHand) {
  const uint64_t query[] = {0b1100, 0b1010};
  const uint64_t keys[] = {0b1100, ~uint64_t{0b1100}};
  const uint8_t lengths[] = {0xf1};
  int16_t scores[2];
  reference::score(query, 2, 64, keys, nullptr, 2, scores);
  EXPECT_EQ(scores[0], (128 - 2 * 2) * 8 / 16);
  EXPECT_EQ(scores[1], (128 - 2 * (64 + 62)) * 8 / 16);
  reference::score(query, 2, 64, keys, lengths, 2, scores);
  EXPECT_EQ(scores[0], 124 / 16);
  EXPECT_EQ(scores[1], -124 * 15 / 16 - 1);  // rounded down: -116.25
}

TEST(Reference, ScoreSquaresByHand) {
  const uint64_t query[] = {0b1100, 0b1010};
  const uint64_t keys[] = {0b1100, ~uint64_t{0b1100}};
  const uint8_t lengths[] = {0xf1};
  int16_t scores[2];
  reference::score_squares(query, 2, 64, keys, nullptr, 2, scores);
  // 8 * (32^2 + 30^2) = 15392 = 2^13 * 1.879: 56 steps above 7 octaves.
  EXPECT_EQ(scores[0], (13 - kLevelFloor) * 64 + 56);
  EXPECT_EQ(scores[1], 0);  // farther than chance from both
  reference::score_squares(query, 2, 64, keys, lengths, 2, scores);
  EXPECT_EQ(scores[0], (10 - kLevelFloor) * 64 + 56);  // an eighth: three octaves
  EXPECT_EQ(scores[1], 0);
}

TEST(Reference, SelectByHand) {
  const int16_t scores[64] = {5, 9, 5, 9, 1, 5};
  const uint64_t valid = 0b111101;
  EXPECT_EQ(reference::select(scores, &valid, 64, 3), (std::vector<int32_t>{0, 2, 3}));
}

}  // namespace
}  // namespace hata
