// demo, run and info on the bundled model.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "shell.h"

namespace hata::cli {
namespace {

using nlohmann::json;

json parsed(const Result& result) {
  EXPECT_EQ(result.status, 0) << result.err;
  return json::parse(result.out, nullptr, false);
}

TEST(Help, EveryCommandHasAnExample) {
  for (const char* command : {"", "demo", "run", "exec", "info", "bench", "bench attn",
                              "bench model", "eval", "train", "import"}) {
    const Result result = hata(std::string(command) + " --help");
    EXPECT_EQ(result.status, 0) << command;
    EXPECT_NE(result.out.find("Example:\n  hata "), std::string::npos) << command;
  }
  EXPECT_EQ(hata("--version").out, "0.1.0\n");
}

TEST(Demo, AnswersSideBySide) {
  const json demo = parsed(hata("demo -c 2048 --min-ctx 256 --budget 128 --json -t 2"));
  EXPECT_EQ(demo["n_tokens"], 2048);
  ASSERT_EQ(demo["questions"].size(), 12u);
  int right = 0;
  for (const json& question : demo["questions"]) {
    for (const char* method : {"ggml", "hata"}) {
      EXPECT_EQ(question[method]["right"].get<bool>(),
                question[method]["answer"] == question["expected"]);
    }
    right += question["ggml"]["right"].get<bool>() ? 1 : 0;
  }
  EXPECT_EQ(demo["methods"]["ggml"]["right"], right);
  EXPECT_GE(right, 8) << "the bundled model answers most questions at 2K";
  EXPECT_GE(demo["methods"]["hata"]["right"].get<int>(), right - 3);
  const json& stats = demo["methods"]["hata"]["stats"];
  EXPECT_GT(stats["sparse_steps"].get<int>(), 100);
  EXPECT_LT(stats["keys_attended"].get<int64_t>(), stats["keys_valid"].get<int64_t>() / 2);
}

TEST(Demo, PrintsATable) {
  const Result result = hata("demo -c 1024 --questions 1 -t 2");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err, "") << "no progress where standard error is no terminal";
  for (const char* part : {"1024 tokens", "6 questions", "expected", "tokens/s", "keys read"}) {
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
  }
}

TEST(Run, FullBudgetIsDenseAttention) {
  const std::string prompt =
      "run -p 'The special number for window is: 123456. Here we go' -n 200 ";
  const json dense = parsed(hata(prompt + "--method ggml --json"));
  const json full = parsed(hata(prompt + "--budget 100% --min-ctx 0 --dense-layers 0 --json"));
  EXPECT_GT(dense["n_generated"], 100);
  EXPECT_EQ(full["text"], dense["text"]);
  EXPECT_EQ(hata(prompt).out, dense["text"].get<std::string>() + "\n");
}

// The bundled weights lie beside the bundled model; they say what `auto` means.
TEST(Run, AutoFollowsTheTrainedWeights) {
  const std::string prompt = "run -p \"$(seq 1 700)\" -n 4 --min-ctx 64 --json ";
  const auto layers_sparse = [](const json& run) {
    const json& stats = run["stats"];
    return stats["sparse_steps"].get<double>() /
           (stats["sparse_steps"].get<double>() + stats["dense_steps"].get<double>());
  };
  const json two = parsed(hata(prompt + "--budget 64"));
  EXPECT_EQ(two["stats"]["weights"].size(), 1u);
  EXPECT_EQ(two["stats"]["dense_layers"], 2);
  EXPECT_DOUBLE_EQ(layers_sparse(two), 6 / 8.0);
  const json named = parsed(hata(prompt + "--budget 64 --dense-layers 0+5"));
  EXPECT_EQ(named["stats"]["dense_layers"], "0+5");
  EXPECT_DOUBLE_EQ(layers_sparse(named), 7 / 8.0);

  const json weights = parsed(hata("info --json " HATA_WEIGHTS))[0];
  const json by_weights = parsed(hata(prompt + "--budget 64 --dense-layers auto"));
  EXPECT_EQ(by_weights["stats"]["dense_layers"], "auto");
  EXPECT_DOUBLE_EQ(layers_sparse(by_weights),
                   1 - static_cast<double>(weights["dense_layers"].size()) / 8);

  const json budget = parsed(hata(prompt + "--budget auto:0.9:50% --dense-layers 0"));
  const json all = parsed(hata(prompt + "--budget 50% --dense-layers 0"));
  EXPECT_GT(budget["stats"]["sparse_steps"], 0);
  EXPECT_LT(budget["stats"]["keys_attended"], all["stats"]["keys_attended"]);

  const Result without = hata(prompt + "--budget auto:0.9 --dense-layers 0 --weights off");
  EXPECT_EQ(parsed(without)["stats"]["sparse_steps"], 0);
  EXPECT_NE(without.err.find("budget=auto"), std::string::npos) << without.err;
}

TEST(Run, EndsWithALineOfStatistics) {
  const Result result =
      hata("run -p \"$(seq 1 400)\" -n 4 --min-ctx 64 --budget 32 --dense-layers 0");
  EXPECT_EQ(result.status, 0);
  for (const char* part : {"prompt ", "generated 4 tokens", "% of the keys"}) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << "\n" << result.err;
  }
}

TEST(Run, ReadsAFile) {
  const json run = parsed(shell("echo 'The grass is green.' | '" HATA "' run -f - -n 3 --json"));
  EXPECT_GT(run["n_prompt"].get<int>(), 4);
  EXPECT_EQ(run["n_generated"], 3);
}

TEST(Info, SaysWhatAModelMeans) {
  const json info = parsed(hata("info --json --dense-layers 1 --budget 1.56% " HATA_MODEL));
  const json& model = info[0];
  EXPECT_EQ(model["n_layers"], 8);
  EXPECT_EQ(model["layers"][0]["sparse"], false);
  EXPECT_EQ(model["layers"][1]["sparse"], true);
  const json& cost = model["costs"][0];
  EXPECT_EQ(cost["n_kv"], 32768);
  EXPECT_EQ(cost["dense_bytes_per_token"], 32768.0 * 8 * 2 * 2 * 128 * 2);
  // Seven sparse layers of two heads: 16.5 bytes of code and length a key, and 511 keys in full.
  const double sparse = 7 * (32768.0 * 2 * 16.5 + 511.0 * 2 * 2 * 128 * 2);
  EXPECT_EQ(cost["hata_bytes_per_token"], sparse + 32768.0 * 2 * 2 * 128 * 2);
  EXPECT_EQ(model["rerank"], 0);
  const Result text = hata("info " HATA_MODEL);
  EXPECT_NE(text.out.find("8 query and 2 KV heads of 128 (group 4)"), std::string::npos)
      << text.out;
}

// As docs/training.md has it: trained codes above the rotation and above the paper's, on
// documents kept apart.
TEST(Info, BundledCodesAreWorthLearning) {
  const json quality = parsed(hata("info --json " HATA_WEIGHTS))[0]["quality"];
  for (const char* what : {"kept_mass", "recall"}) {
    for (const char* budget : {"64", "256", "1.56%"}) {
      const auto of = [&](const char* codes) { return quality[what][codes][budget].get<double>(); };
      EXPECT_GT(of("learned"), of("random")) << what << budget;
      EXPECT_GT(of("learned"), of("paper")) << what << budget;
      EXPECT_GT(of("exact"), of("learned")) << what << budget;
    }
  }
  EXPECT_EQ(quality["layers"].size(), 8u);
}

TEST(Info, CountsTheKeysOfARerank) {
  const std::string options = "--json --dense-layers 1 --budget 1.56% ";
  const json plain = parsed(hata("info " + options + HATA_MODEL));
  const json again = parsed(hata("info --rerank 4 " + options + HATA_MODEL));
  EXPECT_EQ(again[0]["rerank"], 4);
  const auto more = [&](int context, const char* what) {
    return again[0]["costs"][context][what].get<double>() -
           plain[0]["costs"][context][what].get<double>();
  };
  // Seven sparse layers of two heads hold 72 bytes a key more, and read those of the candidates.
  EXPECT_EQ(more(0, "code_bytes"), 7 * 32768.0 * 2 * 72);
  EXPECT_EQ(more(0, "hata_bytes_per_token"), 7 * 4 * 511.0 * 2 * 72);
  EXPECT_EQ(more(1, "code_bytes"), 7 * 131072.0 * 2 * 72);
  EXPECT_EQ(more(0, "dense_bytes_per_token"), 0);
  // There are no more candidates than keys.
  const json all =
      parsed(hata("info --json --rerank 16 --dense-layers 7 --budget 20000 " HATA_MODEL));
  EXPECT_EQ(all[0]["costs"][0]["hata_bytes_per_token"],
            7 * 32768.0 * 1024 + 32768.0 * 2 * (16.5 + 72) + 20000.0 * 1024);
  EXPECT_NE(hata("info --rerank 1 " HATA_MODEL).status, 0);
  EXPECT_NE(hata("info --rerank 4 " HATA_MODEL).out.find("4 times as many ranked again"),
            std::string::npos);
}

}  // namespace
}  // namespace hata::cli
