#include "eval/scoring.h"

#include <gtest/gtest.h>

namespace hata::eval {
namespace {

Query generated(Scoring scoring, std::vector<std::string> answers) {
  return {.scoring = scoring, .answers = std::move(answers), .max_new_tokens = 16};
}

TEST(ScoreTokens, IsRightWhereAllAre) {
  const Query query{.tokens = {5, 6, 7, 8, 9}, .is_answer = {false, true, false, true, false}};
  EXPECT_EQ(query.part(true), (std::vector<Token>{6, 8}));
  EXPECT_EQ(query.part(false), (std::vector<Token>{5, 7, 9}));
  EXPECT_EQ(query.first_answer(), 1u);
  EXPECT_EQ(score_tokens(query, std::vector<Token>{6, 8}), 1);
  EXPECT_EQ(score_tokens(query, std::vector<Token>{6, 7}), 0);
  EXPECT_EQ(score_tokens(query, std::vector<Token>{6}), 0) << "stopped early";
  EXPECT_EQ(score_tokens(query, std::vector<Token>{}), 0);
}

// RULER's string_match_all: each reference counts for its share.
TEST(ScoreText, AllCountsTheShareFound) {
  const Query query = generated(Scoring::all, {"1234567", "7654321", "Ab-Cd", "zz"});
  EXPECT_EQ(score_text(query, ""), 0);
  EXPECT_EQ(score_text(query, " 1234567."), 0.25);
  EXPECT_EQ(score_text(query, "7654321, 1234567 and aB-cD"), 0.75) << "whatever the case";
  EXPECT_EQ(score_text(query, "12345677654321ab-cdZZ"), 1) << "found inside of words, too";
  EXPECT_EQ(score_text(query, "123 4567"), 0);
  EXPECT_EQ(score_text(generated(Scoring::all, {}), "x"), 0);
}

// RULER's string_match_part: the best reference.
TEST(ScoreText, PartNeedsOne) {
  const Query query = generated(Scoring::part, {"Paris", "the capital of France"});
  EXPECT_EQ(score_text(query, "It is PARIS"), 1);
  EXPECT_EQ(score_text(query, "London"), 0);
}

TEST(ScoreText, ControlCharactersAreLineBreaks) {
  EXPECT_EQ(score_text(generated(Scoring::all, {"a\nb"}), "a\tb"), 1);
  EXPECT_EQ(score_text(generated(Scoring::all, {" a"}), " \t a"), 0)
      << "what stands around the answer is cut off";
  EXPECT_EQ(score_text(generated(Scoring::all, {"x a"}), "x a"), 1);
  EXPECT_EQ(score_text(generated(Scoring::all, {"\xc3\xa4"}), "\xc3\xa4"), 1) << "UTF-8 as it is";
}

TEST(Sample, NeedsRoomForItsLongestQuery) {
  Sample sample{.tokens = std::vector<Token>(100), .queries = {}};
  EXPECT_EQ(sample.n_ctx(), 100);
  sample.queries.push_back({.tokens = {1, 2, 3}, .is_answer = {false, true, true}});
  EXPECT_EQ(sample.n_ctx(), 103);
  sample.queries.push_back({.scoring = Scoring::all, .tokens = {1, 2}, .max_new_tokens = 10});
  EXPECT_EQ(sample.n_ctx(), 112);
}

}  // namespace
}  // namespace hata::eval
