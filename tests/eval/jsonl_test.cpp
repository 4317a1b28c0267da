#include "eval/jsonl.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "eval/ruler.h"
#include "eval/tasks.h"
#include "hata/types.h"
#include "plain_tokenizer.h"

namespace hata::eval {
namespace {

const std::string kGood =
    R"({"context": "The sun is yellow.", "question": " What is yellow?", )"
    R"("answer_prefix": " It is", "answer": ["the sun"], "max_new_tokens": 8})";

std::string written(const std::string& text) {
  const std::string path = testing::TempDir() + "samples.jsonl";
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

// kGood with one field replaced by other JSON.
std::string with(const std::string& field, const std::string& value) {
  const std::string key = "\"" + field + "\": ";
  const size_t begin = kGood.find(key) + key.size();
  const size_t end = kGood.find(field == "max_new_tokens" ? "}" : ", \"", begin);
  return kGood.substr(0, begin) + value + kGood.substr(end);
}

std::string without(const std::string& field) {
  std::string text = kGood;
  return text.replace(text.find(field), field.size(), "other");
}

std::string error_of(const std::string& text) {
  const PlainTokenizer tokenizer;
  try {
    open_jsonl(tokenizer, written(text));
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Jsonl, ReadsKvpressFields) {
  const PlainTokenizer tokenizer;
  const auto source = open_jsonl(tokenizer, written(kGood + "\n"));
  EXPECT_EQ(source->task(), "samples");
  ASSERT_EQ(source->n_samples(), 1);
  const Sample sample = source->make(0);
  EXPECT_EQ(sample.text, "The sun is yellow.");
  EXPECT_EQ(sample.tokens.size(), 1 + sample.text.size());
  ASSERT_EQ(sample.queries.size(), 1u);
  const Query& query = sample.queries[0];
  EXPECT_EQ(tokenizer.decode(query.tokens), " What is yellow? It is");
  EXPECT_EQ(query.scoring, Scoring::all);
  EXPECT_EQ(query.answers, std::vector<std::string>{"the sun"});
  EXPECT_EQ(query.max_new_tokens, 8);
  EXPECT_TRUE(query.evidence.empty()) << "'The sun' is another text than 'the sun'";
  EXPECT_THROW(source->make(1), Error);
}

TEST(Jsonl, AnAnswerCanBeOneString) {
  const PlainTokenizer tokenizer;
  const Query query =
      open_jsonl(tokenizer, written(with("answer", "\"yellow\"")))->make(0).queries[0];
  EXPECT_EQ(query.answers, std::vector<std::string>{"yellow"});
  // Where the document says it: 11 characters behind the start token.
  EXPECT_EQ(query.evidence, (std::vector<TokenRange>{{12, 18}}));
}

TEST(Jsonl, LinesOfOneContextAreOneSample) {
  const PlainTokenizer tokenizer;
  const std::string other = with("context", "\"Another text.\"");
  const auto source = open_jsonl(tokenizer, written(kGood + "\n\n" + with("question", "\"Why?\"") +
                                                    "\r\n" + other + "\n" + other + "\n" + kGood));
  ASSERT_EQ(source->n_samples(), 3);
  EXPECT_EQ(source->make(0).queries.size(), 2u);
  EXPECT_EQ(source->make(0).queries[1].question, "Why?");
  EXPECT_EQ(source->make(1).text, "Another text.");
  EXPECT_EQ(source->make(1).queries.size(), 2u);
  EXPECT_EQ(source->make(2).queries.size(), 1u) << "again, but not in a row";
}

TEST(Jsonl, ErrorsNameFileLineAndField) {
  const struct {
    std::string line, field, hint;
  } cases[] = {
      {without("context"), "context", "missing"},
      {without("question"), "question", "missing"},
      {without("answer_prefix"), "answer_prefix", "missing"},
      {without("max_new_tokens"), "max_new_tokens", "missing"},
      {with("context", "7"), "context", "a string"},
      {with("context", "\"\""), "context", "empty"},
      {with("question", "null"), "question", "a string"},
      {with("answer", "[]"), "answer", "empty list"},
      {with("answer", "[\"a\", 3]"), "answer", "3"},
      {with("answer", "\"\""), "answer", "empty string"},
      {with("answer", "12"), "answer", "a string or a list"},
      {with("max_new_tokens", "0"), "max_new_tokens", "1 or more"},
      {with("max_new_tokens", "1.5"), "max_new_tokens", "integer"},
      {with("max_new_tokens", "1e30"), "max_new_tokens", "integer"},
      {with("max_new_tokens", "-3"), "max_new_tokens", "-3"},
      {with("max_new_tokens", "99999999999999999999"), "max_new_tokens", "integer"},
      {with("max_new_tokens", "\"8\""), "max_new_tokens", "integer"},
      {with("max_new_tokens", "8, \"scoring\": \"best\""), "scoring", "best"},
      {with("max_new_tokens", "8, \"task\": 4"), "task", "a string"},
      {"[1, 2]", "an array", "not an object"},
      {std::string(300000, '[') + std::string(300000, ']'), "an array", "not an object"},
      {kGood.substr(0, 40), "no JSON", "one object"},
      {"\xff\xfe", "no JSON", "one object"},
  };
  for (const auto& c : cases) {
    const std::string error = error_of(kGood + "\n" + c.line + "\n");
    for (const std::string& part : {std::string("samples.jsonl, line 2"), c.field, c.hint}) {
      EXPECT_NE(error.find(part), std::string::npos) << part << " in: " << error;
    }
  }
  EXPECT_NE(error_of("\n \n").find("no samples"), std::string::npos);
  EXPECT_NE(error_of("").find("no samples"), std::string::npos);
  const PlainTokenizer tokenizer;
  EXPECT_THROW(open_jsonl(tokenizer, testing::TempDir() + "no such file"), Error);
  EXPECT_THROW(open_jsonl(tokenizer, testing::TempDir()), Error);
}

TEST(Jsonl, EmptyQuestionAndPrefixAskNothing) {
  std::string line = with("question", "\"\"");
  EXPECT_EQ(error_of(line), "accepted");
  line.replace(line.find("\" It is\""), 8, "\"\"");
  EXPECT_NE(error_of(line).find("both empty"), std::string::npos);
}

void expect_round_trip(const Tokenizer& tokenizer, const Sample& sample) {
  std::ostringstream out;
  EXPECT_EQ(write_jsonl(sample, out), std::ssize(sample.queries));
  const auto source = open_jsonl(tokenizer, written(out.str()));
  ASSERT_EQ(source->n_samples(), 1);
  const Sample again = source->make(0);
  EXPECT_EQ(again.task, sample.task);
  EXPECT_EQ(again.text, sample.text);
  EXPECT_EQ(again.tokens, sample.tokens);
  ASSERT_EQ(again.queries.size(), sample.queries.size());
  for (size_t q = 0; q < again.queries.size(); ++q) {
    const Query &a = again.queries[q], &b = sample.queries[q];
    EXPECT_EQ(a.question, b.question);
    EXPECT_EQ(a.answer_prefix, b.answer_prefix);
    EXPECT_EQ(a.answers, b.answers);
    EXPECT_EQ(a.max_new_tokens, b.max_new_tokens);
    EXPECT_EQ(a.stop, b.stop);
    EXPECT_EQ(a.task, b.task);
    const auto given = b.tokens.begin() + static_cast<int64_t>(b.first_answer());
    EXPECT_EQ(a.tokens, std::vector<Token>(b.tokens.begin(), given));
    std::ostringstream line;
    write_jsonl({.text = again.text, .queries = {a}}, line);
    EXPECT_NE(out.str().find(line.str()), std::string::npos) << "written again, the same";
  }
}

TEST(Jsonl, RoundTrip) {
  const PlainTokenizer tokenizer;
  expect_round_trip(tokenizer, make_document(tokenizer, "multi-value", 3000, 4, 1));
  expect_round_trip(tokenizer, make_document(tokenizer, "common", 3000, 4, 1));
  expect_round_trip(tokenizer, make_ruler_sample(tokenizer, "vt", 6000, 3, 1));
  Sample odd{.task = "odd", .text = "\"quoted\"\n\t\\ \xc3\xa4", .queries = {}};
  odd.tokens = tokenizer.start();
  for (const Token t : tokenizer.encode(odd.text)) odd.tokens.push_back(t);
  odd.queries = {{.task = "odd",
                  .scoring = Scoring::part,
                  .tokens = tokenizer.encode("\n?!"),
                  .question = "\n?",
                  .answer_prefix = "!",
                  .answers = {"\"a\"", "b\n"},
                  .max_new_tokens = 3,
                  .stop = "\n\n"}};
  expect_round_trip(tokenizer, odd);
}

TEST(Jsonl, LeavesOutWhatCannotBeGenerated) {
  std::ostringstream out;
  EXPECT_EQ(write_jsonl(make_document(PlainTokenizer(), "multi-query", 3000, 2, 1), out), 0);
  EXPECT_EQ(out.str(), "");
}

}  // namespace
}  // namespace hata::eval
