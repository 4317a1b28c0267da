#include "eval/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "hata/types.h"
#include "plain_tokenizer.h"

namespace hata::eval {
namespace {

std::string written(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(CompareStep, EqualLogitsAreEqual) {
  const std::vector<float> x = {1, 2, 0.5f, -3};
  const StepComparison step = compare_step(x, x, 1);
  EXPECT_EQ(step.kl, 0);
  EXPECT_TRUE(step.agrees);
  EXPECT_NEAR(step.nll, std::log(std::exp(-1) + 1 + std::exp(-1.5) + std::exp(-5)), 1e-7);
}

// p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2.
TEST(CompareStep, IsTheDivergenceFromDense) {
  const auto log2 = static_cast<float>(std::log(2.0));
  const std::vector<float> dense = {log2, 0, 0}, method = {0, log2, 0};
  const StepComparison step = compare_step(dense, method, 0);
  EXPECT_NEAR(step.kl, 0.25 * std::log(2.0), 1e-7);
  EXPECT_NEAR(step.nll, std::log(4.0), 1e-7);
  EXPECT_FALSE(step.agrees);
}

TEST(CompareStep, IsTheSameForShiftedLogits) {
  const std::vector<float> dense = {3, 1, -2, 0}, method = {2, 2.5f, -1, 0};
  auto far = dense, far_method = method;
  for (float& x : far) x += 30000;
  for (float& x : far_method) x -= 30000;
  const StepComparison near_zero = compare_step(dense, method, 2);
  const StepComparison shifted = compare_step(far, far_method, 2);
  EXPECT_GT(near_zero.kl, 0);
  EXPECT_NEAR(near_zero.kl, shifted.kl, 1e-9) << "no overflow, no loss";
  EXPECT_NEAR(near_zero.nll, shifted.nll, 1e-9);
}

TEST(CompareStep, DirectionMatters) {
  const std::vector<float> sharp = {10, 0, 0}, flat = {0, 0, 0};
  EXPECT_NE(compare_step(sharp, flat, 0).kl, compare_step(flat, sharp, 0).kl);
  EXPECT_NEAR(compare_step(sharp, flat, 0).kl, std::log(3.0), 2e-3);
}

TEST(CompareStep, ImpossibleTokens) {
  const float none = -std::numeric_limits<float>::infinity();
  const std::vector<float> without = {0, 0, none}, with = {0, 0, 0};
  EXPECT_NEAR(compare_step(without, with, 0).kl, std::log(1.5), 1e-7);
  EXPECT_TRUE(std::isinf(compare_step(with, without, 0).kl));
}

TEST(TextSource, CutsATextIntoPrefixAndContinuation) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>('a' + i % 26);
  const PlainTokenizer tokenizer;
  const auto source =
      open_text(tokenizer, written("plain.txt", text), {.n_tokens = 301, .n_compared = 50});
  EXPECT_EQ(source->task(), "plain");
  EXPECT_EQ(source->n_samples(), 2);  // 350 characters each
  for (const int64_t i : {0, 1}) {
    const Sample sample = source->make(i);
    EXPECT_EQ(sample.tokens.size(), 301u) << "with the start token";
    ASSERT_EQ(sample.queries.size(), 1u);
    const Query& query = sample.queries[0];
    EXPECT_EQ(query.scoring, Scoring::compare);
    EXPECT_EQ(query.tokens.size(), 50u);
    EXPECT_EQ(sample.text + tokenizer.decode(query.tokens),
              text.substr(static_cast<size_t>(i) * 350, 350));
    EXPECT_EQ(sample.n_ctx(), 351);
  }
  EXPECT_THROW(source->make(2), Error);
}

TEST(TextSource, SaysWhatCannotBe) {
  const PlainTokenizer tokenizer;
  const std::string path = written("short.txt", "too short");
  try {
    open_text(tokenizer, path, {.n_tokens = 100, .n_compared = 10});
    FAIL();
  } catch (const Error& error) {
    for (const std::string part : {path.c_str(), "9 tokens", "109", "-c"}) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(open_text(tokenizer, path, {.n_tokens = 4, .n_compared = 1}), Error);
  EXPECT_THROW(open_text(tokenizer, testing::TempDir() + "no such file", {}), Error);
  EXPECT_THROW(open_text(tokenizer, testing::TempDir(), {}), Error);
}

}  // namespace
}  // namespace hata::eval
