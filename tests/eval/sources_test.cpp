#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "eval/encode.h"
#include "eval/sample.h"
#include "eval/tasks.h"
#include "hata/types.h"
#include "plain_tokenizer.h"

namespace hata::eval {
namespace {

const PlainTokenizer kPlain;

TEST(Sources, EveryNameOpens) {
  for (const std::string& name : expand_tasks({"words", "ruler"})) {
    const auto source = open_task(kPlain, name, {.n_tokens = 8192, .n_queries = 2, .seed = 3});
    EXPECT_EQ(source->task(), name);
    EXPECT_FALSE(source->n_samples());
    const Sample sample = source->make(4);
    EXPECT_EQ(sample.task, name);
    EXPECT_EQ(sample.tokens, source->make(4).tokens);
    EXPECT_NE(sample.tokens, source->make(5).tokens);
    EXPECT_NE(sample.seed, source->make(5).seed);
  }
}

TEST(Sources, SamplesAreTheDocumentsOfTheirSeed) {
  const auto source = open_task(kPlain, "needle", {.n_tokens = 2000, .n_queries = 5, .seed = 2});
  const Sample sample = source->make(7);
  EXPECT_EQ(sample.seed, 2u * 1'000'003 + 7);
  EXPECT_EQ(sample.tokens, make_document(kPlain, "needle", 2000, 5, sample.seed).tokens);
  EXPECT_EQ(sample.queries.size(), 5u);
}

TEST(Sources, FilesOpenByKind) {
  const std::string path = testing::TempDir() + "sources";
  const std::string line = R"({"context": "a", "question": "b", "answer_prefix": "", )"
                           R"("answer": "c", "max_new_tokens": 1})";
  std::ofstream(path) << line;
  EXPECT_EQ(open_task(kPlain, "jsonl:" + path, {})->n_samples(), 1);
  const auto n_samples = static_cast<int64_t>(line.size()) / (19 + 10);  // one start token
  EXPECT_EQ(open_task(kPlain, "text:" + path, {.n_tokens = 20, .n_compared = 10})->n_samples(),
            n_samples);
  EXPECT_EQ(expand_tasks({"jsonl:" + path, "text:x"}).size(), 2u);
  EXPECT_EQ(expand_tasks({"trace", "words", "trace"}).size(), task_names().size());
  EXPECT_EQ(expand_tasks({"trace", "words", "trace"})[0], "trace");
  EXPECT_THROW(expand_tasks({"text:"}), Error);
}

TEST(Sources, UnknownNamesListThoseThereAre) {
  for (const auto& open : {+[] { open_task(kPlain, "nonsense", {}); },
                           +[] {
                             expand_tasks({"needle", "nonsense"});
                           }}) {
    try {
      open();
      FAIL();
    } catch (const Error& error) {
      const std::string text = error.what();
      for (const TaskHelp& task : task_help()) {
        EXPECT_NE(text.find(task.name), std::string::npos) << task.name;
      }
      EXPECT_NE(text.find("'nonsense'"), std::string::npos);
    }
  }
}

// A tokenizer that puts a space before every text, as some models' do.
class Spaced final : public Tokenizer {
 public:
  std::vector<Token> encode(std::string_view text) const override {
    return kPlain.encode(" " + std::string(text));
  }
  std::string decode(std::span<const Token> tokens) const override { return kPlain.decode(tokens); }
  std::vector<Token> start() const override { return {1, 2}; }
  const std::vector<std::string>& words() const override { return kPlain.words(); }
};

const Spaced kSpaced;

TEST(Encode, AContinuationHasNoSpaceOfItsOwn) {
  EXPECT_EQ(encode_continuation(kSpaced, "abc"), kPlain.encode("abc"));
  EXPECT_EQ(encode_continuation(kPlain, "\nabc"), kPlain.encode("\nabc"));
  EXPECT_EQ(encode_continuation(kPlain, ""), std::vector<Token>{});
}

TEST(Encode, TokenRangesHoldTheirBytes) {
  const std::string text = "one waa two";  // " waa" is one token
  for (const Tokenizer* tokenizer :
       {static_cast<const Tokenizer*>(&kPlain), static_cast<const Tokenizer*>(&kSpaced)}) {
    const auto tokens = encode_document(*tokenizer, text);
    const auto ranges = token_ranges(*tokenizer, tokens, text, {{0, 3}, {4, 7}, {8, 11}});
    const std::string expected[] = {"one", " waa", "two"};
    for (size_t i = 0; i < 3; ++i) {
      const auto range = std::span(tokens).subspan(size_t(ranges[i].begin),
                                                   size_t(ranges[i].end - ranges[i].begin));
      EXPECT_EQ(tokenizer->decode(range), expected[i]);
    }
  }
}

}  // namespace
}  // namespace hata::eval
