#include "ggml/options.h"

#include <gtest/gtest.h>

namespace hata::host {
namespace {

std::string refusal(std::string_view text) {
  try {
    parse_options(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Options, DefaultsAreTheDocumentedOnes) {
  const Options o = parse_options("");
  EXPECT_EQ(o.method, "hata");
  EXPECT_EQ(o.rule.budget.tokens, 512);
  EXPECT_EQ(o.dense_layers.text(), "2");
  EXPECT_EQ(o.rule.min_ctx, 1024);
  EXPECT_EQ(o.hata.sink, 1);
  EXPECT_EQ(o.hata.recent, Recent{});
  EXPECT_TRUE(o.hata.lengths);
  EXPECT_EQ(o.hata.score, ScoreRule::sum);
  EXPECT_EQ(o.hata.rbit, 128);
  EXPECT_EQ(o.hata.rerank, 0);
  EXPECT_EQ(o.hata.seed, 1u);
  EXPECT_EQ(o.max_rows, 8);
  EXPECT_TRUE(o.prefill);
  EXPECT_TRUE(o.huge_pages);
  EXPECT_FALSE(o.verify || o.stats || o.quiet || o.probe);
}

TEST(Options, ReadsEveryKey) {
  const Options o = parse_options(
      " method=exact-logit budget=1.56%  dense-layers=0\tmin-ctx=64 sink=2 recent=8 lengths=off "
      "score=squares rbit=64 rerank=4 "
      "seed=7 max-rows=4 prefill=off huge-pages=off verify=1 stats=on quiet=1 probe=on\n");
  EXPECT_EQ(o.method, "exact-logit");
  EXPECT_DOUBLE_EQ(o.rule.budget.share, 0.0156);
  EXPECT_EQ(o.dense_layers.text(), "0");
  EXPECT_EQ(o.rule.min_ctx, 64);
  EXPECT_EQ(o.hata.sink, 2);
  EXPECT_EQ(o.hata.recent, Recent{.tokens = 8});
  EXPECT_EQ(parse_options("recent=0.75k").hata.recent, Recent{.share = 0.75});
  EXPECT_FALSE(o.hata.lengths);
  EXPECT_EQ(o.hata.score, ScoreRule::squares);
  EXPECT_EQ(o.hata.rbit, 64);
  EXPECT_EQ(o.hata.rerank, 4);
  EXPECT_EQ(o.hata.seed, 7u);
  EXPECT_EQ(o.max_rows, 4);
  EXPECT_FALSE(o.prefill);
  EXPECT_FALSE(o.huge_pages);
  EXPECT_TRUE(o.verify && o.stats && o.quiet && o.probe);
  EXPECT_FALSE(o.hands_off());
  EXPECT_TRUE(parse_options("method=ggml").hands_off());
}

TEST(Options, NamesWhatIsWrongAndTheWayOut) {
  EXPECT_NE(refusal("bugdet=5").find("'bugdet=5' is not key=value with one of the keys method, "),
            std::string::npos);
  EXPECT_NE(refusal("verify").find("'verify' is not key=value"), std::string::npos);
  EXPECT_EQ(refusal("verify=yes"), "option verify=yes: want on or off");
  EXPECT_EQ(refusal("max-rows=0"), "option max-rows=0: want a whole number from 1 to 64");
  EXPECT_EQ(refusal("min-ctx=12x"), "option min-ctx=12x: want a whole number from 0 to 2147483648");
  EXPECT_EQ(refusal("dense-layers=-1"),
            "dense layers '-1': give how many of the first layers are dense (2), with + further "
            "ones (0+5+7: "
            "layers 5 and 7 alone), or auto (what the trained weights say)");
  EXPECT_EQ(refusal("rbit=100"), "option rbit=100: want 64, 128 or 256");
  EXPECT_EQ(refusal("score=max"), "option score=max: want sum or squares");
  EXPECT_EQ(refusal("rerank=1"), "option rerank=1: want 0 (off) or 2 to 16");
  EXPECT_EQ(refusal("rerank=17"), "option rerank=17: want 0 (off) or 2 to 16");
  EXPECT_NE(refusal("method=magic").find("there are hata, "), std::string::npos);
  for (const char* budget : {"budget=0", "budget=-3", "budget=abc", "budget=101%", "budget="}) {
    EXPECT_NE(refusal(budget).find("budget '"), std::string::npos) << budget;
  }
}

}  // namespace
}  // namespace hata::host
