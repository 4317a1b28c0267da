#include <gtest/gtest.h>

#include "hata/dense_layers.h"
#include "hata/selector.h"
#include "hata/weights.h"

namespace hata {
namespace {

TEST(Budget, ReadsTokensAndShares) {
  EXPECT_EQ(Budget::parse("512").of(100000), 512);
  EXPECT_EQ(Budget::parse("1.56%").of(100000), 1560);
  EXPECT_EQ(Budget::parse("100%").of(12345), 12345);
  EXPECT_EQ(Budget::parse("0.001%").of(10), 1) << "never less than one key";
}

TEST(Budget, FloorHoldsBelowIt) {
  Budget budget = Budget::parse("1%");
  budget.floor = 64;
  EXPECT_EQ(budget.of(1000), 64);
  EXPECT_EQ(budget.of(100000), 1000);
}

TEST(Budget, TextReadsBack) {
  for (const char* text : {"512", "1", "1.56%", "100%", "0.1%", "12.5%"}) {
    EXPECT_EQ(Budget::parse(text).text(), text);
  }
}

TEST(Budget, RefusesWhatIsNoBudget) {
  for (const char* text : {"", "0", "-1", "abc", "12x", "1.5", " 5", "0%", "-1%", "101%", "%",
                           "nan%", "inf%", "99999999999999999999"}) {
    try {
      Budget::parse(text);
      FAIL() << "accepted '" << text << "'";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(std::string("budget '") + text + "'"),
                std::string::npos);
      EXPECT_NE(std::string(error.what()).find("512"), std::string::npos) << "names the way out";
    }
  }
}

TEST(Budget, AutoHasAMost) {
  const Budget budget = Budget::parse("auto:0.99");
  EXPECT_EQ(budget.mass, 0.99);
  EXPECT_EQ(budget.of(8000), 1000) << "one key in eight";
  EXPECT_EQ(budget.text(), "auto:0.99:12.5%");
  EXPECT_EQ(Budget::parse("auto:0.9:512").of(8000), 512);
  for (const char* text : {"auto:0.99:12.5%", "auto:0.9:512"}) {
    EXPECT_EQ(Budget::parse(text).text(), text);
  }
  for (const char* text :
       {"auto", "auto:", "auto:0", "auto:1", "auto:x", "auto:0.9:", "auto:0.9:0", "auto:0.9:7:8"}) {
    EXPECT_THROW(Budget::parse(text), Error) << text;
  }
}

TEST(Budget, AutoFollowsTheMeasuredNeeds) {
  // Two heads; the first needs few keys, the second never keeps 0.99.
  const KeptMass kept{.n_keys = 8000,
                      .budgets = {64, 128, 256, 512},
                      .mass = {0.90f, 0.98f, 1.0f, 1.0f, 0.50f, 0.60f, 0.70f, 0.80f}};
  EXPECT_EQ(kept.needed(0, 0.85), 64) << "less was not measured";
  EXPECT_EQ(kept.needed(0, 0.98f), 128);
  EXPECT_EQ(kept.needed(0, 0.99), 182) << "half-way from 128 to 256, by the logarithm";
  EXPECT_EQ(kept.needed(1, 0.99), 512);
  const Budget budget = Budget::parse("auto:0.99");
  EXPECT_EQ(budget.of(8000, kept, 0), 182);
  EXPECT_EQ(budget.of(16000, kept, 0), 364) << "needs grow with the context";
  EXPECT_EQ(budget.of(2000, kept, 0), 182);
  EXPECT_EQ(budget.of(2000, kept, 1), 250) << "never more than the most";
  EXPECT_EQ(Budget::parse("auto:0.5").of(8000, kept, 0), 64);
}

TEST(DenseLayers, ReadWhatTheyWrite) {
  for (const char* text : {"0", "2", "auto", "0+5+7", "1+3"}) {
    EXPECT_EQ(DenseLayers::parse(text).text(), text);
  }
  for (const char* text : {"", "-1", "x", "2+", "+2", "1+x", "1,2", "Auto", "2 "}) {
    try {
      DenseLayers::parse(text);
      ADD_FAILURE() << "accepted '" << text << "'";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("auto"), std::string::npos);
    }
  }
}

TEST(DenseLayers, SayWhichLayersAreDense) {
  const auto dense = [](const char* text, const Weights* weights) {
    std::string layers;
    for (int layer = 0; layer < 6; ++layer) {
      if (DenseLayers::parse(text).has(layer, weights)) layers += std::to_string(layer);
    }
    return layers;
  };
  Weights weights;
  EXPECT_EQ(dense("2", &weights), "01");
  EXPECT_EQ(dense("1+3+5", &weights), "035");
  EXPECT_EQ(dense("auto", nullptr), "01");
  EXPECT_EQ(dense("auto", &weights), "01") << "these do not say";
  weights.dense_layers = {{4}};
  EXPECT_EQ(dense("auto", &weights), "4");
  EXPECT_EQ(dense("2", &weights), "01");
  weights.dense_layers->clear();
  EXPECT_EQ(dense("auto", &weights), "");
}

TEST(Selectors, UnknownNameListsAll) {
  try {
    make_selector("quick", {});
    FAIL();
  } catch (const Error& error) {
    for (const std::string& name : selector_names()) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos);
    }
  }
}

TEST(Selectors, SpecErrorsNameTheWayOut) {
  const std::pair<const char*, const char*> cases[] = {
      {"quest:pages=16", "there are page, last, sink, recent"},
      {"quest:page", "page="},
      {"quest:page=12", "a divisor of 64"},
      {"quest:page=", "a whole number"},
      {"quest:page=x", "page=x: want a whole number from 1 to 64"},
      {"quest:last=yes", "on or off"},
      {"quest:", "no parameter"},
      {"loki:channels=0", "from 1 to 256"},
      {"loki:recent=k/0", "k/4"},
      {"sparq:recent=-2", "method 'sparq:recent=-2': recent '-2': give a number of tokens"},
      {"sparq:mean=1", "on or off"},
      {"magicpig:k=17", "from 1 to 16"},
      {"magicpig:k=16:l=300", "4800"},
      {"magicpig:l=1", "from 2"},
      {"hata:lengths=maybe", "on or off"},
      {"hata:rbit=100", "64, 128 or 256"},
      {"hata:score=max", "score=max: want sum or squares"},
      {"hata:rerank=1", "0 (off) or 2 to 16"},
      {"hata:rerank=17", "0 (off) or 2 to 16"},
      {"hata:rerank=x", "a whole number"},
      {"hata:rerank=2:rerank-keys=f16", "q4 or cache"},
      {"hata-paper:lengths=on", "there are sink, recent, score, weights, rbit, seed, rerank"},
      {"dense:page=3", "it has none"},
      {"snapkv:pool=0", "from 1"},
      {"exact", "exact-logit"},
      {"", "hata-paper"},
  };
  for (const auto& [spec, way_out] : cases) {
    try {
      make_selector(spec, {});
      ADD_FAILURE() << "accepted '" << spec << "'";
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find(std::string("'") + spec + "'"), std::string::npos) << what;
      EXPECT_NE(what.find(way_out), std::string::npos) << what;
    }
  }
}

TEST(Selectors, DefaultsStandInTheirSpecs) {
  for (const MethodInfo& method : methods()) {
    std::string spec(method.name);
    EXPECT_FALSE(method.help.empty());
    for (const MethodParam& param : method.params) {
      if (!param.value.empty()) {
        spec += ":" + std::string(param.key) + "=" + std::string(param.value);
      }
      EXPECT_NE(methods_help().find(param.help), std::string::npos);
    }
    EXPECT_EQ(make_selector(spec, {})->name(), spec);
  }
}

TEST(Recent, IsTokensOrAPartOfTheBudgetOrTheRule) {
  EXPECT_EQ(Recent::parse("-1"), Recent{});
  EXPECT_TRUE(Recent::parse("-1").by_rule());
  EXPECT_EQ(Recent{}.of(512), 32);
  EXPECT_EQ(Recent{}.of(40), 20);
  EXPECT_EQ(Recent::parse("16").of(512), 16);
  EXPECT_EQ(Recent::parse("16").of(10), 10);
  EXPECT_EQ(Recent::parse("0").of(512), 0);
  EXPECT_EQ(Recent::parse("0.75k").of(511), 383);
  EXPECT_EQ(Recent::parse("1k").of(511), 511);
  EXPECT_EQ(Recent::parse("k/4"), Recent::parse("0.25k"));
  for (int64_t part = 1; part < 50; ++part) {
    const Recent recent = Recent::parse("k/" + std::to_string(part));
    for (int64_t k = 1; k < 2000; ++k) ASSERT_EQ(recent.of(k), k / part) << part << " " << k;
  }
  for (const char* text : {"-1", "0", "32", "0.875k"}) EXPECT_EQ(Recent::parse(text).text(), text);
  for (const char* bad :
       {"", "-2", "k", "k/0", "k/x", "0k", "1.5k", "-0.5k", "nank", "3x", "2000000", "0.5"}) {
    EXPECT_THROW((void)Recent::parse(bad), Error) << bad;
  }
}

// The paper's rule has a sum, whatever the options say.
TEST(Selectors, TheScoreRuleIsTheirOwnOrTheOptions) {
  const HataOptions squares{.score = ScoreRule::squares};
  const auto by_sum = [](const std::string& spec, const HataOptions& options) {
    return make_selector(spec, options)->by_codes_alone().value() == ScoreRule::sum;
  };
  for (const std::string method : {"hata", "hata-paper", "random"}) {
    EXPECT_TRUE(by_sum(method, {})) << method;
    EXPECT_EQ(by_sum(method, squares), method != "hata") << method;
    EXPECT_FALSE(by_sum(method + ":score=squares", {})) << method;
    EXPECT_TRUE(by_sum(method + ":score=sum", squares)) << method;
  }
}

TEST(Selectors, ADeviceIsToldOfMethodsByCodesAlone) {
  EXPECT_TRUE(make_selector("hata:score=squares", {})->by_codes_alone());
  EXPECT_FALSE(make_selector("hata:score=squares:rerank=4", {})->by_codes_alone());
  EXPECT_FALSE(make_selector("hata:rerank=4", {})->by_codes_alone());
  EXPECT_FALSE(make_selector("quest", {})->by_codes_alone());
}

TEST(Selectors, RefuseBadOptions) {
  EXPECT_THROW(make_selector("hata", {.rbit = 100}), Error);
  EXPECT_THROW(make_selector("hata", {.sink = -1}), Error);
  EXPECT_THROW(make_selector("hata", {.rerank = 1}), Error);
}

}  // namespace
}  // namespace hata
