#include "eval/tasks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "core/random.h"
#include "eval/scoring.h"
#include "eval/session.h"
#include "hata/types.h"
#include "plain_tokenizer.h"

namespace hata::eval {
namespace {

// The bundled model's vocabulary.
const LlamaTokenizer& tokenizer() {
  static const Model model(HATA_MODEL);
  static const LlamaTokenizer tokenizer(model.vocab());
  return tokenizer;
}

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
std::string look_up_one(const std::vector<std::string>& lines, const std::string& question) {
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

// The same for several questions in a row.
std::string look_up(const std::vector<std::string>& lines, const std::string& questions) {
  std::string answers;
  for (size_t begin = 0; begin < questions.size();) {
    const size_t next = questions.find("\nQ:", begin);
    const size_t end = next == std::string::npos ? questions.size() : next + 1;
    answers += look_up_one(lines, questions.substr(begin, end - begin));
    begin = end;
  }
  return answers;
}

bool is_list(const std::string& task) { return task == "common" || task == "frequent"; }

std::vector<std::string> fact_task_names() {
  auto names = task_names();
  names.erase(std::remove_if(names.begin(), names.end(), is_list), names.end());
  return names;
}

std::string evidence_text(const Sample& sample, const Query& query) {
  std::string text;
  for (const TokenRange& range : query.evidence) {
    text += text_of(tokenizer(),
                    {sample.tokens.begin() + range.begin, sample.tokens.begin() + range.end});
  }
  return text;
}

std::string test_name(const testing::TestParamInfo<std::string>& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class EveryTask : public testing::TestWithParam<std::string> {};
class FactTask : public testing::TestWithParam<std::string> {};

TEST_P(FactTask, HoldsTheFactsItAsksFor) {
  for (const int64_t n_tokens : {2048, 4099}) {
    const Sample document = make_document(tokenizer(), GetParam(), n_tokens, 8, 7);
    const auto lines = lines_of(document.text);
    ASSERT_EQ(document.queries.size(), 8u);
    for (const Query& query : document.queries) {
      EXPECT_EQ(query.task, GetParam());
      EXPECT_EQ(query.scoring, Scoring::tokens);
      const std::string asked = text_of(tokenizer(), query.part(false));
      const std::string expected = text_of(tokenizer(), query.part(true));
      ASSERT_FALSE(expected.empty());
      EXPECT_FALSE(query.is_answer.front());
      EXPECT_EQ(look_up(lines, asked), expected) << asked;
    }
  }
}

TEST_P(FactTask, EvidenceIsWhatTheAnswerNeeds) {
  const Sample document = make_document(tokenizer(), GetParam(), 2048, 8, 7);
  const std::map<std::string, size_t> facts = {
      {"multi-value", 4}, {"multi-query", 4}, {"trace", 5}};
  for (const Query& query : document.queries) {
    EXPECT_EQ(query.evidence.size(), facts.count(GetParam()) != 0 ? facts.at(GetParam()) : 1);
    const auto lines = lines_of(evidence_text(document, query));
    EXPECT_EQ(lines.size(), query.evidence.size()) << "a line a fact";
    EXPECT_EQ(look_up(lines, text_of(tokenizer(), query.part(false))),
              text_of(tokenizer(), query.part(true)));
  }
}

TEST_P(FactTask, SaysTheSameAsText) {
  for (const Query& query : make_document(tokenizer(), GetParam(), 2048, 4, 7).queries) {
    const std::vector<Token> given(query.tokens.begin(),
                                   query.tokens.begin() + query.first_answer());
    EXPECT_EQ(text_of(tokenizer(), given), query.question);
    const std::vector<Token> asked(query.tokens.begin() + query.first_answer(), query.tokens.end());
    EXPECT_EQ(score_text(query, text_of(tokenizer(), asked)), 1);
    EXPECT_EQ(score_tokens(query, query.part(true)), 1);
    // As free generation: as many tokens as there are before the line's end.
    const size_t n = GetParam() == "multi-query" ? 0 : asked.size() - 1;
    EXPECT_EQ(query.max_new_tokens, static_cast<int>(n));
    EXPECT_EQ(query.stop, "\n");
  }
}

TEST_P(EveryTask, HasExactlyTheTokensAskedFor) {
  for (const int64_t n_tokens : {1500, 2047, 2048}) {
    const Sample document = make_document(tokenizer(), GetParam(), n_tokens, 4, 3);
    EXPECT_EQ(document.tokens.size(), static_cast<size_t>(n_tokens));
    EXPECT_EQ(document.tokens.front(), tokenizer().start().front());
    // Its text gives the same tokens: nothing hangs on where pieces were joined.
    const auto again = tokenizer().encode(document.text);
    EXPECT_TRUE(
        std::equal(again.begin(), again.end(), document.tokens.begin() + 1, document.tokens.end()));
  }
}

TEST_P(EveryTask, FollowsFromItsSeed) {
  const auto make = [&](uint64_t seed) {
    return make_document(tokenizer(), GetParam(), 1500, 4, seed);
  };
  EXPECT_EQ(make(5).tokens, make(5).tokens);
  EXPECT_EQ(make(5).queries.back().tokens, make(5).queries.back().tokens);
  EXPECT_EQ(make(5).queries.back().answers, make(5).queries.back().answers);
  EXPECT_NE(make(5).tokens, make(6).tokens);
  EXPECT_EQ(make(5).seed, 5u);
}

INSTANTIATE_TEST_SUITE_P(Tasks, FactTask, testing::ValuesIn(fact_task_names()), test_name);
INSTANTIATE_TEST_SUITE_P(Tasks, EveryTask, testing::ValuesIn(task_names()), test_name);

// How often each word of a list occurs: count and word, the most frequent first.
std::vector<std::pair<int, std::string>> frequencies(const std::string& text) {
  std::istringstream in(text.substr(text.find(':') + 1));
  std::map<std::string, int> counts;
  for (std::string word; in >> word;) ++counts[word];
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [word, count] : counts) sorted.emplace_back(count, word);
  std::sort(sorted.rbegin(), sorted.rend());
  return sorted;
}

TEST(Lists, AskForTheMostFrequentWords) {
  for (const char* task : {"common", "frequent"}) {
    for (const int64_t n_tokens : {300, 2048, 8192}) {
      const Sample sample = make_document(tokenizer(), task, n_tokens, 20, 4);
      ASSERT_EQ(sample.queries.size(), 1u) << "one list, one question";
      const Query& query = sample.queries[0];
      EXPECT_EQ(query.scoring, Scoring::all);
      const auto counts = frequencies(sample.text);
      const size_t n = query.answers.size();
      EXPECT_EQ(n, std::string(task) == "common" ? 5u : 3u);
      std::set<std::string> top;
      size_t occurrences = 0;
      for (size_t i = 0; i < n; ++i) {
        top.insert(counts[i].second);
        occurrences += static_cast<size_t>(counts[i].first);
      }
      EXPECT_EQ(std::set<std::string>(query.answers.begin(), query.answers.end()), top);
      EXPECT_GT(counts[n - 1].first, counts[n].first) << "no doubt which they are";
      EXPECT_EQ(query.evidence.size(), occurrences);
      EXPECT_TRUE(std::all_of(query.evidence.begin(), query.evidence.end(), [&](TokenRange range) {
        return range.end - range.begin == 1 &&
               top.count(tokenizer().decode({&sample.tokens[size_t(range.begin)], 1}).substr(1));
      }));
    }
  }
}

TEST(Lists, AreInTheFormOfTheBundledModelsTraining) {
  const Sample common = make_document(tokenizer(), "common", 1024, 1, 4);
  EXPECT_EQ(common.text.rfind("words: ", 0), 0u);
  EXPECT_EQ(common.queries[0].question, "common:");
  const auto counts = frequencies(common.text);
  EXPECT_EQ(counts[0].first, counts[4].first);
  EXPECT_EQ(counts[0].first, 10 * counts[5].first);
  // " 1 window 2 letter ...": three tokens a word.
  EXPECT_EQ(common.queries[0].max_new_tokens, 15);
  const Sample frequent = make_document(tokenizer(), "frequent", 1024, 1, 4);
  EXPECT_EQ(frequent.text.rfind("coded: ", 0), 0u);
  EXPECT_EQ(frequent.queries[0].question, "frequent:");
  EXPECT_EQ(frequent.queries[0].max_new_tokens, 9);
}

TEST(Tasks, LongQuestionsAreLong) {
  for (const std::string task : {"long-question", "long-session"}) {
    const Sample document = make_document(tokenizer(), task, 4096, 3, 7);
    const auto lines = lines_of(document.text);
    ASSERT_EQ(document.queries.size(), 3u);
    for (const Query& query : document.queries) {
      EXPECT_EQ(query.task, task);
      EXPECT_GT(query.first_answer(), task == "long-session" ? 500u : 200u);
      const std::string asked = text_of(tokenizer(), query.part(false));
      const std::string last = asked.substr(asked.rfind("Q: "));
      EXPECT_EQ(look_up(lines, last), text_of(tokenizer(), query.part(true)));
      // What was answered before is right, too, and is no hint.
      if (task == "long-session") {
        const std::string key = last.substr(0, last.find('?'));
        EXPECT_EQ(asked.find(key), asked.rfind(key));
        const std::string first = asked.substr(0, asked.find('\n') + 4);
        EXPECT_EQ(first + look_up(lines, first + "\n") + "\n",
                  asked.substr(0, asked.find('\n', asked.find('\n') + 1) + 1));
      }
    }
  }
  EXPECT_EQ(expand_tasks({"long"}), (std::vector<std::string>{"long-question", "long-session"}));
}

TEST(Tasks, MixedDocumentAsksAllOfThem) {
  const std::vector<std::string> tasks = {"needle", "multi-key", "key-value",
                                          "trace",  "recall",    "copy"};
  const Sample document = make_mixed_document(tokenizer(), tasks, 4096, 2, 1);
  EXPECT_EQ(document.tokens.size(), 4096u);
  std::map<std::string, int> asked;
  const auto lines = lines_of(text_of(tokenizer(), document.tokens));
  for (const Query& question : document.queries) {
    ++asked[question.task];
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
  for (const std::string& task : fact_task_names()) {
    if (task == "multi-query") continue;  // came later
    const Sample document = make_document(plain, task, 3000, 3, 1);
    for (const Token token : document.tokens) {
      hash = (hash ^ static_cast<uint64_t>(token)) * 1099511628211u;
    }
  }
  EXPECT_EQ(hash, 18076204932023759067u);
}

TEST(Tasks, SaysWhatCannotBe) {
  EXPECT_THROW(make_document(tokenizer(), "nonsense", 1024, 1, 1), Error);
  EXPECT_THROW(make_document(tokenizer(), "needle", 64, 32, 1), Error);
  EXPECT_THROW(make_document(tokenizer(), "common", 64, 1, 1), Error);
  EXPECT_THROW(make_mixed_document(tokenizer(), {"common"}, 1024, 1, 1), Error);
  EXPECT_THROW(make_document(PlainTokenizer(100), "needle", 1024, 1, 1), Error);
}

}  // namespace
}  // namespace hata::eval
