#include <gtest/gtest.h>

#include "hata/selector.h"

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

TEST(Selectors, RefuseBadOptions) {
  EXPECT_THROW(make_selector("hata", {.rbit = 100}), Error);
  EXPECT_THROW(make_selector("hata", {.sink = -1}), Error);
  EXPECT_THROW(make_selector("hata", {.recent = -2}), Error);
}

}  // namespace
}  // namespace hata
