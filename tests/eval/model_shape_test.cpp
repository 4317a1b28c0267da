#include "weights/model_shape.h"

#include <gtest/gtest.h>

#include "hata/types.h"

namespace hata::weights {
namespace {

GgufFile llama() {
  GgufFile file;
  file.path = "model.gguf";
  file.metadata = {{"general.architecture", "llama"},
                   {"llama.block_count", int64_t{3}},
                   {"llama.embedding_length", int64_t{4096}},
                   {"llama.attention.head_count", int64_t{32}},
                   {"llama.attention.head_count_kv", int64_t{8}}};
  return file;
}

TEST(ModelShape, BundledModel) {
  const ModelShape model = model_shape(read_gguf(HATA_MODEL));
  EXPECT_EQ(model.architecture, "llama");
  ASSERT_EQ(model.layers.size(), 8u);
  for (const LayerShape& layer : model.layers) {
    EXPECT_EQ(layer.heads, (HeadShape{.n_q_heads = 8, .n_kv_heads = 2, .head_dim = 128}));
    EXPECT_EQ(layer.why_dense, "");
  }
}

TEST(ModelShape, HeadDimFollowsFromTheEmbedding) {
  const ModelShape model = model_shape(llama());
  EXPECT_EQ(model.layers[2].heads.head_dim, 128);
  EXPECT_EQ(model.layers[2].value_dim, 128);
}

TEST(ModelShape, LayersMayDiffer) {
  GgufFile file = llama();
  file.metadata["llama.attention.head_count_kv"] =
      GgufArray{.type = 5, .count = 3, .integers = {8, 0, 4}};
  file.metadata["llama.attention.sliding_window"] = int64_t{512};
  file.metadata["llama.attention.sliding_window_pattern"] =
      GgufArray{.type = 7, .count = 3, .integers = {1, 0, 0}};
  const ModelShape model = model_shape(file);
  EXPECT_EQ(model.layers[0].window, 512);
  EXPECT_EQ(model.layers[1].why_dense, "no attention");
  EXPECT_EQ(model.layers[2].heads.n_kv_heads, 4);
  EXPECT_EQ(model.layers[2].window, 0);
}

TEST(ModelShape, SaysWhyALayerStaysDense) {
  GgufFile file = llama();
  file.metadata["llama.attention.value_length"] = int64_t{64};
  EXPECT_NE(model_shape(file).layers[0].why_dense.find("differ"), std::string::npos);
  file = llama();
  file.metadata["llama.attention.key_length"] = int64_t{40};
  file.metadata["llama.attention.value_length"] = int64_t{40};
  EXPECT_NE(model_shape(file).layers[0].why_dense.find("40"), std::string::npos);
  file = llama();
  file.metadata["llama.attention.kv_lora_rank"] = int64_t{512};
  EXPECT_NE(model_shape(file).layers[0].why_dense.find("latent"), std::string::npos);
}

TEST(ModelShape, NamesWhatIsMissingOrAbsurd) {
  const auto error = [](const GgufFile& file) -> std::string {
    try {
      (void)model_shape(file);
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  GgufFile file = llama();
  file.metadata.erase("general.architecture");
  EXPECT_NE(error(file).find("general.architecture"), std::string::npos);
  file = llama();
  file.metadata.erase("llama.block_count");
  EXPECT_NE(error(file).find("'llama.block_count' is missing"), std::string::npos);
  file = llama();
  file.metadata["llama.block_count"] = int64_t{1} << 40;
  EXPECT_NE(error(file).find("1099511627776"), std::string::npos);
  file = llama();
  file.metadata["llama.attention.head_count_kv"] = int64_t{-8};
  EXPECT_NE(error(file).find("-8"), std::string::npos);
  file = llama();
  file.metadata["llama.attention.key_length"] = int64_t{1} << 40;
  EXPECT_NE(error(file).find("key_length"), std::string::npos);
}

}  // namespace
}  // namespace hata::weights
