#include "options.h"

#include <gtest/gtest.h>

namespace hata::cli {
namespace {

MethodOptions parse(std::vector<std::string> arguments) {
  CLI::App app;
  MethodOptions options;
  add_method_options(app, options);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  app.parse(arguments);
  return options;
}

TEST(Options, Defaults) {
  const MethodOptions options = parse({});
  EXPECT_EQ(options.method, "hata");
  EXPECT_EQ(options.budget.text(), "512");
  EXPECT_EQ(options.dense_layers.text(), "2");
  EXPECT_EQ(options.min_ctx, 1024);
  EXPECT_EQ(options.hata.sink, 1);
  EXPECT_EQ(options.hata.recent, Recent{});
  EXPECT_TRUE(options.hata.lengths);
  EXPECT_EQ(options.hata.score, ScoreRule::sum);
  EXPECT_EQ(options.hata.rbit, 128);
  EXPECT_EQ(options.hata.rerank, 0);
}

TEST(Options, TellTheHost) {
  EXPECT_EQ(host_options(parse({})),
            "method=hata budget=512 dense-layers=2 min-ctx=1024 sink=1 recent=-1 lengths=on "
            "score=sum rerank=0 weights=auto seed=1 rbit=128 prefill=on huge-pages=on");
  EXPECT_EQ(
      host_options(parse({"--method",  "hata-paper", "--budget", "1.56%",  "--dense-layers", "0",
                          "--min-ctx", "0",          "--sink",   "4",      "--recent",       "16",
                          "--lengths", "off",        "--seed",   "7",      "--rbit",         "64",
                          "--rerank",  "4",          "--score",  "squares"})),
      "method=hata-paper budget=1.56% dense-layers=0 min-ctx=0 sink=4 recent=16 lengths=off "
      "score=squares rerank=4 weights=auto seed=7 rbit=64 prefill=on huge-pages=on");
  EXPECT_EQ(host_options(parse({"--method", "ggml", "--budget", "7"})), "method=ggml");
}

TEST(Options, RefuseNonsense) {
  for (const char* budget : {"0", "-1", "abc", "0%", "100.1%", ""}) {
    EXPECT_THROW(parse({"--budget", budget}), CLI::ParseError) << budget;
  }
  EXPECT_THROW(parse({"--method", "nonsense"}), CLI::ParseError);
  EXPECT_THROW(parse({"--dense-layers", "-1"}), CLI::ParseError);
  EXPECT_THROW(parse({"--rbit", "96"}), CLI::ParseError);
  EXPECT_THROW(parse({"--lengths", "1"}), CLI::ParseError);
  EXPECT_THROW(parse({"--score", "max"}), CLI::ParseError);
  for (const char* factor : {"1", "17", "-2", "x"}) {
    EXPECT_THROW(parse({"--rerank", factor}), CLI::ParseError) << factor;
  }
}

TEST(Options, TakeLists) {
  CLI::App app;
  std::vector<Budget> budgets = {Budget::parse("512")};
  std::vector<std::string> methods = {"ggml"};
  add_budgets(app, budgets);
  add_methods(app, methods);
  app.parse(std::vector<std::string>{"hata,streaming", "--method", "64,1.56%", "--budget"});
  ASSERT_EQ(budgets.size(), 2u);
  EXPECT_EQ(budgets[0].tokens, 64);
  EXPECT_EQ(budgets[1].text(), "1.56%");
  EXPECT_EQ(methods, (std::vector<std::string>{"hata", "streaming"}));
}

TEST(Options, DenseLayersMustFitTheModel) {
  EXPECT_NO_THROW(DenseLayers::parse("8").check(8, "m"));
  EXPECT_NO_THROW(DenseLayers::parse("0+7").check(8, "m"));
  EXPECT_THROW(DenseLayers::parse("9").check(8, "m"), Error);
  EXPECT_THROW(DenseLayers::parse("0+8").check(8, "m"), Error);
}

}  // namespace
}  // namespace hata::cli
