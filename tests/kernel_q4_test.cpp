// Keys in 4 bits, and the logits from them: bit for bit those of the scalar reference, and near to
// the exact ones.
#include <cmath>
#include <limits>
#include <numeric>

#include "core/q4.h"
#include "core/reference.h"
#include "cpu/q4.h"
#include "hata/encode.h"
#include "kernel_test.h"

namespace hata {
namespace {

using test::Random;
using test::Rows;

constexpr int kHeadDims[] = {64, 80, 96, 112, 128, 144, 192, 208, 256};

std::vector<uint8_t> encoded(int head_dim, const Rows& x, DType type, int64_t n) {
  std::vector<uint8_t> keys(static_cast<size_t>(n * q4_bytes(head_dim)));
  q4_encode(head_dim, x.data(), type, x.stride(), n, keys.data());
  return keys;
}

// Where the block ends that begins with this element.
int block_end(int head_dim, int first) {
  const int size = 8 * q4_rows(head_dim, first / kQ4Quad * kQ4Quad);
  return std::min(head_dim, first + size);
}

TEST(Q4, BytesOfAKey) {
  EXPECT_EQ(q4_bytes(64), 40);
  EXPECT_EQ(q4_bytes(80), 72);
  EXPECT_EQ(q4_bytes(128), 72);
  EXPECT_EQ(q4_bytes(192), 112);
  EXPECT_EQ(q4_bytes(256), 144);
}

TEST(Q4, KeysEqualReferenceAndAreWithinTheirScale) {
  Random random(1);
  for (const int head_dim : kHeadDims) {
    for (const DType type : {DType::f16, DType::f32}) {
      const int64_t n = 40;
      Rows x(n, head_dim, type, static_cast<size_t>(head_dim) * dtype_size(type) + 12, 4, random);
      for (int64_t v = 0; v < n; ++v) {
        const float size = std::exp(2 * random.normal());
        for (int i = 0; i < head_dim; ++i) {
          x.set(v, i, v % 10 == 0 && i < 40 ? 0.0f : size * random.normal());
        }
      }
      const auto keys = encoded(head_dim, x, type, n);
      std::vector<uint8_t> expected(keys.size());
      reference::q4_encode(head_dim, x.data(), type, x.stride(), n, expected.data());
      ASSERT_EQ(keys, expected) << head_dim << " " << dtype_name(type);
      for (int64_t v = 0; v < n; ++v) {
        const uint8_t* key = keys.data() + v * q4_bytes(head_dim);
        for (int first = 0, end = 0; first < head_dim; first = end) {
          end = block_end(head_dim, first);
          const auto at = [&](int i) {
            return reference::element(x.data() + static_cast<size_t>(v) * x.stride(), type, i);
          };
          float most = 0.0f;
          for (int i = first; i < end; ++i) most = std::max(most, std::abs(at(i)));
          for (int i = first; i < end; ++i) {
            ASSERT_LE(std::abs(reference::q4_element(key, head_dim, i) - at(i)), 1.01f * most / 16);
          }
        }
      }
    }
  }
}

TEST(Q4, SpecialValuesHarmNoOtherBlock) {
  Random random(2);
  Rows x(3, 128, DType::f32, 512, 0, random);
  const auto before = encoded(128, x, DType::f32, 3);
  x.set(0, 5, std::numeric_limits<float>::quiet_NaN());
  x.set(1, 5, std::numeric_limits<float>::infinity());
  x.set(2, 5, 1e-40f);
  const auto after = encoded(128, x, DType::f32, 3);
  for (int v = 0; v < 3; ++v) {
    for (int i = 32; i < 128; ++i) {
      EXPECT_EQ(reference::q4_element(&before[v * 72], 128, i),
                reference::q4_element(&after[v * 72], 128, i));
    }
  }
}

TEST(Q4, LogitsEqualReferenceAndAreNearTheExactOnes) {
  Random random(3);
  constexpr int64_t kKeys = 50;
  for (const int head_dim : kHeadDims) {
    for (const int group : {1, 2, 4, 7, 8}) {
      const Rows x(kKeys, head_dim, DType::f16, static_cast<size_t>(head_dim) * 2, 0, random);
      const auto keys = encoded(head_dim, x, DType::f16, kKeys);
      std::vector<float> q = random.normals(static_cast<size_t>(group * head_dim));
      for (int i = 0; i < 32; ++i) q[static_cast<size_t>(i)] = 0.0f;  // a block without anything
      const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
      std::vector<int32_t> cells;
      for (int32_t i = 0; i < kKeys; i += 1 + i % 3) cells.push_back(i);

      Q4Queries queries;
      queries.set(q.data(), static_cast<size_t>(head_dim), group, head_dim, scale);
      std::vector<float> got(static_cast<size_t>(group) * kKeys);
      queries.logits(keys.data(), cells, got.data(), kKeys);
      for (int g = 0; g < group; ++g) {
        const float* query = q.data() + g * head_dim;
        for (size_t j = 0; j < cells.size(); ++j) {
          const float logit = got[static_cast<size_t>(g * kKeys) + j];
          const uint8_t* key = keys.data() + cells[j] * q4_bytes(head_dim);
          ASSERT_EQ(logit, reference::q4_logit(query, head_dim, scale, key))
              << head_dim << " " << group << " " << g << " " << j;
          // An element of the key is off by its block's scale at most, one of the query by half of
          // its own.
          double exact = 0.0, bound = 1e-5;
          for (int first = 0, end = 0; first < head_dim; first = end) {
            end = block_end(head_dim, first);
            double most_k = 0.0, most_q = 0.0, sum_q = 0.0, sum_k = 0.0;
            for (int i = first; i < end; ++i) {
              const auto k = static_cast<double>(reference::element(
                  x.data() + static_cast<size_t>(cells[j]) * x.stride(), DType::f16, i));
              exact += static_cast<double>(query[i]) * k;
              most_k = std::max(most_k, std::abs(k));
              most_q = std::max(most_q, std::abs(static_cast<double>(query[i])));
              sum_q += std::abs(static_cast<double>(query[i]));
              sum_k += std::abs(k) + most_k / 16;
            }
            bound += 1.01 * most_k / 16 * sum_q + most_q / 254 * (sum_k + 4 * most_k);
          }
          ASSERT_LE(std::abs(static_cast<double>(logit) - exact * static_cast<double>(scale)),
                    bound * static_cast<double>(scale));
        }
      }
    }
  }
}

}  // namespace
}  // namespace hata
