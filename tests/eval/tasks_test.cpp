#include "eval/tasks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <sstream>

#include "eval/random.h"
#include "eval/session.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

// The bundled model's vocabulary.
const LlamaTokenizer& tokenizer() {
  static const Model model(HATA_MODEL, true);
  static const LlamaTokenizer tokenizer(model.vocab());
  return tokenizer;
}

// A vocabulary of single characters and 300 words, the same everywhere.
class PlainTokenizer final : public Tokenizer {
 public:
  explicit PlainTokenizer(int n_words = 300) {
    for (int i = 0; i < n_words; ++i) {
      words_.push_back({'w', static_cast<char>('a' + i / 26), static_cast<char>('a' + i % 26)});
    }
  }
  std::vector<Token> encode(std::string_view text) const override {
    std::vector<Token> tokens;
    while (!text.empty()) {
      size_t length = 1;
      Token token = static_cast<unsigned char>(text[0]);
      for (size_t w = 0; w < words_.size(); ++w) {
        if (text[0] == ' ' && text.substr(1, words_[w].size()) == words_[w]) {
          token = static_cast<Token>(256 + w);
          length = 1 + words_[w].size();
        }
      }
      tokens.push_back(token);
      text.remove_prefix(length);
    }
    return tokens;
  }
  std::string decode(std::span<const Token> tokens) const override {
    std::string text;
    for (const Token t : tokens) {
      text += t < 256 ? std::string(1, static_cast<char>(t))
                      : " " + words_[static_cast<size_t>(t) - 256];
    }
    return text;
  }
  std::vector<Token> start() const override { return {1}; }
  const std::vector<std::string>& words() const override { return words_; }

 private:
  std::vector<std::string> words_;
};

std::string text_of(const Tokenizer& t, const std::vector<Token>& tokens) {
  return t.decode(tokens);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// What stands behind `key` in the lines that start with it, in the document's order.
std::string find_all(const std::vector<std::string>& lines, const std::string& key) {
  std::string found;
  for (const auto& line : lines) {
    if (line.rfind(key, 0) == 0) found += line.substr(key.size());
  }
  return found;
}

// Follows "let" lines from a value: " a b c d e".
std::string follow(const std::vector<std::string>& lines, std::string source) {
  std::string chain;
  static const std::regex pattern("let( [a-z]+) =(.*)");
  for (const auto& line : lines) {
    std::smatch match;
    if (std::regex_match(line, match, pattern) && match[2] == source) {
      source = match[1];
      chain += source;
    }
  }
  return chain;
}

// The right answer, looked up in the document's text by this test's own reading of it.
std::string look_up(const std::vector<std::string>& lines, const std::string& question) {
  std::smatch m;
  const auto matches = [&](const char* pattern) {
    return std::regex_match(question, m, std::regex(pattern));
  };
  if (matches("Q: special number for(( [a-z]+)+)\\?\nA: \n")) {
    const std::string value = find_all(lines, "The special number for" + m[1].str() + " is: ");
    return value.substr(0, value.find('.'));
  }
  if (matches("Q: all special numbers for( [a-z]+)\\?\nA: , , , \n")) {
    std::string values = find_all(lines, "The special number for" + m[1].str() + " is: ");
    values.erase(std::remove(values.begin(), values.end(), '.'), values.end());
    return values;
  }
  if (matches("get( [a-z]+ [a-z]+): \n")) return find_all(lines, "key" + m[1].str() + ": ");
  if (matches("find ([0-9]{9}) = \n")) return find_all(lines, "id " + m[1].str() + " = ");
  if (matches("vars equal( [0-9]{6}):\n")) return follow(lines, m[1]);
  if (matches("\\?( [a-z]+) =>\n")) return find_all(lines, m[1].str() + " ->");
  if (matches("repeat ([0-9]{3}):\n")) return find_all(lines, "passage " + m[1].str() + ":");
  return "no such question: " + question;
}

std::string quoted(const std::string& text, const std::string& question) {
  const std::string given = question.substr(6, question.size() - 7);  // "quote:" ... "\n"
  const size_t at = text.find(given);
  EXPECT_NE(at, std::string::npos) << question;
  EXPECT_EQ(text.find(given, at + 1), std::string::npos) << question;
  return text.substr(at + given.size());
}

class EveryTask : public testing::TestWithParam<std::string> {};

TEST_P(EveryTask, HoldsTheFactsItAsksFor) {
  for (const int64_t n_tokens : {2048, 4099}) {
    const Document document = make_document(tokenizer(), GetParam(), n_tokens, 8, 7);
    const std::string text = text_of(tokenizer(), document.tokens);
    const auto lines = lines_of(text);
    ASSERT_EQ(document.questions.size(), 8u);
    for (const Question& question : document.questions) {
      EXPECT_EQ(question.task, GetParam());
      const std::string asked = text_of(tokenizer(), question.part(false));
      const std::string expected = text_of(tokenizer(), question.part(true));
      ASSERT_FALSE(expected.empty());
      EXPECT_FALSE(question.is_answer.front());
      if (GetParam() == "quote") {
        EXPECT_EQ(quoted(text, asked).substr(0, expected.size()), expected);
      } else {
        EXPECT_EQ(look_up(lines, asked), expected) << asked;
      }
    }
  }
}

TEST_P(EveryTask, HasExactlyTheTokensAskedFor) {
  for (const int64_t n_tokens : {1500, 2047, 2048}) {
    const Document document = make_document(tokenizer(), GetParam(), n_tokens, 4, 3);
    EXPECT_EQ(document.tokens.size(), static_cast<size_t>(n_tokens));
    EXPECT_EQ(document.tokens.front(), tokenizer().start().front());
    // Its text gives the same tokens: nothing hangs on where pieces were joined.
    const auto again = tokenizer().encode(
        text_of(tokenizer(), {document.tokens.begin() + 1, document.tokens.end()}));
    EXPECT_TRUE(
        std::equal(again.begin(), again.end(), document.tokens.begin() + 1, document.tokens.end()));
  }
}

TEST_P(EveryTask, FollowsFromItsSeed) {
  const auto make = [&](uint64_t seed) {
    return make_document(tokenizer(), GetParam(), 1500, 4, seed);
  };
  EXPECT_EQ(make(5).tokens, make(5).tokens);
  EXPECT_EQ(make(5).questions[3].tokens, make(5).questions[3].tokens);
  EXPECT_NE(make(5).tokens, make(6).tokens);
}

INSTANTIATE_TEST_SUITE_P(Tasks, EveryTask, testing::ValuesIn(task_names()), [](const auto& test) {
  std::string name = test.param;
  name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
  return name;
});

TEST(Tasks, MixedDocumentAsksAllOfThem) {
  const std::vector<std::string> tasks = {"needle", "key-value", "trace",
                                          "recall", "copy",      "quote"};
  const Document document = make_mixed_document(tokenizer(), tasks, 4096, 2, 1);
  EXPECT_EQ(document.tokens.size(), 4096u);
  std::map<std::string, int> asked;
  const auto lines = lines_of(text_of(tokenizer(), document.tokens));
  for (const Question& question : document.questions) {
    ++asked[question.task];
    if (question.task == "quote") continue;
    EXPECT_EQ(look_up(lines, text_of(tokenizer(), question.part(false))),
              text_of(tokenizer(), question.part(true)));
  }
  for (const auto& task : tasks) EXPECT_EQ(asked[task], 2) << task;
}

TEST(Tasks, RandomNumbersAreSplitMix64) {
  Random random(0);
  EXPECT_EQ(random.next(), 0xe220a8397b1dcdafu);
  EXPECT_EQ(random.next(), 0x6e789e6aa1b965f4u);
}

// The same document on every machine: a change here makes earlier results incomparable.
TEST(Tasks, DocumentsDoNotChange) {
  const PlainTokenizer plain;
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const std::string& task : task_names()) {
    const Document document = make_document(plain, task, 3000, 3, 1);
    for (const Token token : document.tokens) {
      hash = (hash ^ static_cast<uint64_t>(token)) * 1099511628211u;
    }
  }
  EXPECT_EQ(hash, 5187875165638425147u);
}

TEST(Tasks, SaysWhatCannotBe) {
  EXPECT_THROW(make_document(tokenizer(), "nonsense", 1024, 1, 1), Error);
  EXPECT_THROW(make_document(tokenizer(), "needle", 64, 32, 1), Error);
  EXPECT_THROW(make_document(tokenizer(), "quote", 16, 1, 1), Error);
  EXPECT_THROW(make_document(PlainTokenizer(100), "needle", 1024, 1, 1), Error);
}

}  // namespace
}  // namespace hata::eval
