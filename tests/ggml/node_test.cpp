#include "ggml/node.h"

#include <gtest/gtest.h>

#include <vector>

#include "fixture.h"

namespace hata::host {
namespace {

Reason reason_of(ggml_tensor* node) {
  Attention attention;
  return read_attention(test_ops(), node, attention);
}

TEST(Node, CacheNames) {
  EXPECT_EQ(cache_layer("cache_k_l0"), 0);
  EXPECT_EQ(cache_layer("cache_k_l31"), 31);
  EXPECT_EQ(cache_layer("cache_swa_k_l5"), 5);
  EXPECT_EQ(cache_layer("cache_v_l5"), -1);
  EXPECT_EQ(cache_layer("cache_k_l"), -1);
  EXPECT_EQ(cache_layer("cache_k_l5 (view)"), -1);
  EXPECT_EQ(cache_layer("CPU#cache_k_l5#0"), -1);
  EXPECT_EQ(cache_layer(""), -1);
}

TEST(Node, ReadsOneStream) {
  AttentionGraph g({.n_rows = 3});
  Attention a;
  ASSERT_EQ(read_attention(test_ops(), g.attention, a), Reason::none);
  EXPECT_EQ(a.cache, g.keys);
  EXPECT_EQ(a.layer, 3);
  EXPECT_EQ(a.shape, (HeadShape{4, 2, 64}));
  EXPECT_EQ(a.n_rows, 3);
  EXPECT_EQ(a.n_streams, 1);
  EXPECT_FLOAT_EQ(a.params.scale, 0.125f);
  EXPECT_EQ(a.params.sinks, nullptr);

  g.graph({g.attention});  // gives the output its place
  std::vector<Row> rows(3);
  const Step step = a.step(0, rows);
  EXPECT_EQ(step.n_kv, 256);
  EXPECT_EQ(step.first_cell, 0);
  EXPECT_EQ(step.keys.row(7, 1), static_cast<std::byte*>(g.keys->data) + 7 * 256 + 128);
  EXPECT_EQ(step.values.row(7, 1), static_cast<std::byte*>(g.values->data) + 7 * 256 + 128);
  const auto* q = static_cast<float*>(g.query->data);
  const auto* out = static_cast<float*>(g.attention->data);
  for (size_t t = 0; t < 3; ++t) {
    EXPECT_EQ(rows[t].q, q + t * 4 * 64);
    EXPECT_EQ(rows[t].q_head_stride, 64u);
    EXPECT_EQ(rows[t].out, out + t * 4 * 64);
    EXPECT_EQ(rows[t].out_head_stride, 64u);
    EXPECT_EQ(rows[t].mask, static_cast<uint16_t*>(g.mask->data) + t * 256);
  }
}

TEST(Node, ReadsSeveralStreams) {
  AttentionGraph g({.n_rows = 2, .n_streams = 2, .first_stream = 1, .all_streams = 4});
  Attention a;
  ASSERT_EQ(read_attention(test_ops(), g.attention, a), Reason::none);
  g.graph({g.attention});
  std::vector<Row> rows(2);
  for (int64_t s = 0; s < 2; ++s) {
    const Step step = a.step(s, rows);
    EXPECT_EQ(step.first_cell, (1 + s) * 512);
    EXPECT_EQ(step.keys.row(0, 0),
              static_cast<std::byte*>(g.keys->data) + static_cast<size_t>(1 + s) * g.keys->nb[2]);
    EXPECT_EQ(rows[1].q, static_cast<float*>(g.query->data) + (s * 2 + 1) * 4 * 64);
    EXPECT_EQ(rows[1].out, static_cast<float*>(g.attention->data) + (s * 2 + 1) * 4 * 64);
    EXPECT_EQ(rows[1].mask, static_cast<uint16_t*>(g.mask->data) + (s * 2 + 1) * 256);
  }
}

TEST(Node, ReadsSinksAndParameters) {
  AttentionGraph g({});
  ggml_tensor* sinks = ggml_new_tensor_1d(g.leafs, GGML_TYPE_F32, 4);
  std::vector<float> data(4);
  sinks->data = data.data();
  ggml_tensor* node = ggml_flash_attn_ext(g.nodes, g.attention->src[0], g.key_view, g.value_view,
                                          g.mask, 0.5f, 8.0f, 30.0f);
  ggml_flash_attn_ext_add_sinks(node, sinks);
  Attention a;
  ASSERT_EQ(read_attention(test_ops(), node, a), Reason::none);
  EXPECT_EQ(a.params.scale, 0.5f);
  EXPECT_EQ(a.params.max_bias, 8.0f);
  EXPECT_EQ(a.params.softcap, 30.0f);
  EXPECT_EQ(a.params.sinks, data.data());
}

TEST(Node, LeavesOtherCacheTypes) {
  EXPECT_EQ(reason_of(AttentionGraph({.key_type = GGML_TYPE_Q8_0}).attention), Reason::cache_type);
  EXPECT_EQ(reason_of(AttentionGraph({.value_type = GGML_TYPE_Q8_0}).attention),
            Reason::cache_type);
  EXPECT_EQ(
      reason_of(
          AttentionGraph({.key_type = GGML_TYPE_Q4_0, .value_type = GGML_TYPE_Q4_0}).attention),
      Reason::cache_type);
}

TEST(Node, ReadsAQ8Cache) {
  AttentionGraph g({.n_rows = 2, .key_type = GGML_TYPE_Q8_0, .value_type = GGML_TYPE_Q8_0});
  Attention a;
  ASSERT_EQ(read_attention(test_ops(), g.attention, a), Reason::none);
  EXPECT_EQ(a.type, GGML_TYPE_Q8_0);
  EXPECT_EQ(a.shape.head_dim, 64);
  EXPECT_EQ(head_row_bytes(a.type, a.shape.head_dim), g.key_view->nb[2]);
}

TEST(Node, LeavesAnF32CacheThatIsCast) {
  AttentionGraph g({.key_type = GGML_TYPE_F32});
  ggml_tensor* cast = ggml_cast(g.nodes, g.key_view, GGML_TYPE_F16);
  ggml_tensor* node = ggml_flash_attn_ext(g.nodes, g.attention->src[0], cast, g.value_view, g.mask,
                                          1.0f, 0.0f, 0.0f);
  EXPECT_EQ(reason_of(node), Reason::f32_cache);
}

TEST(Node, LeavesKeysThatAreNoCache) {
  AttentionGraph g({});
  ggml_set_name(g.keys, "encoder_keys");
  EXPECT_EQ(reason_of(g.attention), Reason::no_cache);
}

TEST(Node, LeavesLatentAttention) {
  AttentionGraph g({});
  ggml_tensor* node = ggml_flash_attn_ext(g.nodes, g.attention->src[0], g.key_view, g.key_view,
                                          g.mask, 1.0f, 0.0f, 0.0f);
  EXPECT_EQ(reason_of(node), Reason::mla);
}

TEST(Node, LeavesTheModelsOwnSparsity) {
  AttentionGraph g({});
  ggml_flash_attn_ext_set_n_kv_max(g.attention, 64);
  EXPECT_EQ(reason_of(g.attention), Reason::own_sparsity);
}

TEST(Node, LeavesAComputedMask) {
  AttentionGraph g({});
  ggml_tensor* mask = ggml_add(g.nodes, g.mask, g.mask);
  ggml_tensor* node = ggml_flash_attn_ext(g.nodes, g.attention->src[0], g.key_view, g.value_view,
                                          mask, 1.0f, 0.0f, 0.0f);
  EXPECT_EQ(reason_of(node), Reason::computed_mask);
}

TEST(Node, LeavesAMaskPerHead) {
  AttentionGraph g({});
  ggml_tensor* mask = ggml_new_tensor_4d(g.leafs, GGML_TYPE_F16, 256, 1, 4, 1);
  ggml_tensor* node = ggml_flash_attn_ext(g.nodes, g.attention->src[0], g.key_view, g.value_view,
                                          mask, 1.0f, 0.0f, 0.0f);
  EXPECT_EQ(reason_of(node), Reason::layout);
}

}  // namespace
}  // namespace hata::host
