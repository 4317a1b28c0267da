// The benchmarks' output, not their speed.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cache_fill.h"
#include "shell.h"

namespace hata::cli {
namespace {

using nlohmann::json;

json parsed(const Result& result) {
  EXPECT_EQ(result.status, 0) << result.err;
  return json::parse(result.out, nullptr, false);
}

TEST(BenchAttn, HasAllKeys) {
  const json rows =
      parsed(hata("bench attn -d 2048 -t 2 --budget 64,25% --rows 1,2 --seconds 0.05 --json"));
  ASSERT_EQ(rows.size(), 8u);  // 2 row counts, ggml, dense and hata at 2 budgets
  for (const json& row : rows) {
    for (const char* key :
         {"method",         "isa",       "threads",       "n_q_heads", "n_kv_heads", "head_dim",
          "kv_type",        "n_kv",      "rows",          "budget",    "median_ns",  "p10_ns",
          "p90_ns",         "encode_ns", "score_ns",      "select_ns", "attend_ns",  "read_gbps",
          "peak_read_gbps", "speedup",   "speedup_dense", "rerank_ns"}) {
      EXPECT_TRUE(row.contains(key)) << key;
    }
    EXPECT_GT(row["median_ns"].get<double>(), 0);
    EXPECT_LE(row["p10_ns"].get<double>(), row["p90_ns"].get<double>());
    EXPECT_GT(row["speedup"].get<double>(), 0);
    EXPECT_GT(row["speedup_dense"].get<double>(), 0);
    if (row["method"] == "ggml") {
      EXPECT_EQ(row["speedup"], 1.0);
    }
    if (row["method"] == "dense") {
      EXPECT_EQ(row["speedup_dense"], 1.0);
    }
  }
  EXPECT_EQ(rows[2]["budget"], 64);
  EXPECT_EQ(rows[3]["budget"], 512);
}

TEST(BenchAttn, SequencesInOneCacheOrApart) {
  const Result result =
      hata("bench attn -d 1024 -t 1 --sequences 2 --method hata --budget 64 --seconds 0.05");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.out.find("hata: 2 sequences in one cache of 2048 take"), std::string::npos)
      << result.out;
}

TEST(BenchPrefill, HasAllKeys) {
  const json rows =
      parsed(hata("bench prefill -d 256,512 --rows 9,64 --heads 4/2 -t 2 --seconds 0.05 --json"));
  ASSERT_EQ(rows.size(), 8u);  // 2 depths, 2 row counts, ggml and ours
  for (const json& row : rows) {
    for (const char* key : {"method", "isa", "threads", "n_q_heads", "n_kv_heads", "head_dim",
                            "n_kv", "rows", "steps", "median_ns", "p10_ns", "p90_ns"}) {
      EXPECT_TRUE(row.contains(key)) << key;
    }
    EXPECT_GT(row["gflops"].get<double>(), 0);
    EXPECT_GT(row["speedup"].get<double>(), 0);
  }
  EXPECT_EQ(hata("bench prefill -d 256 --rows 512").status, 1);
}

TEST(BenchModel, HasTheKeysOfLlamaBench) {
  const json rows = parsed(
      hata("bench model -m " HATA_MODEL " -d 0,2048 -n 2 -r 1 --dense-layers 0 -t 2 --json"));
  ASSERT_EQ(rows.size(), 6u);
  for (const json& row : rows) {
    for (const char* key :
         {"build_commit", "cpu_info",       "backends",    "model_filename", "model_type",
          "model_size",   "model_n_params", "n_threads",   "type_k",         "type_v",
          "n_prompt",     "n_gen",          "n_depth",     "avg_ns",         "stddev_ns",
          "avg_ts",       "stddev_ts",      "attn_method", "budget",         "rbit",
          "dense_layers"}) {
      EXPECT_TRUE(row.contains(key)) << key;
    }
    EXPECT_NEAR(row["avg_ts"].get<double>(), 2e9 / row["avg_ns"].get<double>(),
                0.01 * row["avg_ts"].get<double>());
  }
  EXPECT_EQ(rows[5]["attn_method"], "hata");
  EXPECT_EQ(rows[5]["n_depth"], 2048);
}

// The state that fills a cache is one that llama.cpp saves again, byte for byte.
TEST(CacheFill, LlamaCppTakesItAsItsOwn) {
  const eval::Model model(HATA_MODEL);
  const weights::ModelShape shape = weights::model_shape(weights::read_gguf(HATA_MODEL));
  const StateWriter writer(model, shape, 2);
  Team team(2);
  const auto state = writer.random_state(300, 1, team);
  eval::Session session(model, {.n_ctx = 512, .threads = 2});
  session.restore(state, 300);
  EXPECT_EQ(session.save(), state);
  EXPECT_NE(writer.random_state(300, 2, team), state);
}

TEST(CacheFill, AnotherFormatIsAnError) {
  const eval::Model model(HATA_MODEL);
  weights::ModelShape shape = weights::model_shape(weights::read_gguf(HATA_MODEL));
  shape.layers.pop_back();
  EXPECT_THROW(StateWriter(model, shape, 1), Error);
}

TEST(MakeModel, IsAModelThatLlamaCppRuns) {
  const std::string path = testing::TempDir() + "hata_test_model.gguf";
  EXPECT_EQ(hata("make-model --layers 1 -o " + path).status, 0);
  const json info = parsed(hata("info --json --dense-layers 0 " + path));
  EXPECT_EQ(info[0]["layers"][0]["n_kv_heads"], 8);
  EXPECT_EQ(hata("run -m " + path + " --dense-layers 1 -p hello -n 2").status, 0);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace hata::cli
