#include "eval/ruler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "eval/scoring.h"
#include "eval/session.h"
#include "eval/words.h"
#include "hata/types.h"
#include "plain_tokenizer.h"

namespace hata::eval {
namespace {

const PlainTokenizer kPlain;

const LlamaTokenizer& bundled() {
  static const Model model(HATA_MODEL);
  static const LlamaTokenizer tokenizer(model.vocab());
  return tokenizer;
}

// A text without what is drawn: keys, numbers, uuids, variables.
std::string shape(std::string text) {
  const std::pair<const char*, const char*> drawn[] = {
      {"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "<uuid>"},
      {"[a-z]+-[a-z]+", "<key>"},
      {"[1-9][0-9]{6}", "<number>"},
      {"(VAR|are: ) ?[A-Z]{5}", "$1 <name>"},
      {"[1-9][0-9]{4}", "<value>"}};
  for (const auto& [pattern, name] : drawn) {
    text = std::regex_replace(text, std::regex(pattern), name);
  }
  return text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string prompt(const Sample& sample) {
  return sample.text + sample.queries[0].question + sample.queries[0].answer_prefix;
}

std::string evidence(const Tokenizer& tokenizer, const Sample& sample, const TokenRange& range) {
  return tokenizer.decode(
      std::span(sample.tokens).subspan(size_t(range.begin), size_t(range.end - range.begin)));
}

std::vector<std::string> names() {
  std::vector<std::string> names;
  for (const TaskHelp& task : ruler_task_help()) names.push_back(task.name);
  return names;
}

class EveryRulerTask : public testing::TestWithParam<std::string> {};

TEST_P(EveryRulerTask, FillsTheLengthAndNoMore) {
  for (const int64_t n : {9000, 9001, 16384}) {
    const Sample sample = make_ruler_sample(kPlain, GetParam(), n, 2, 3);
    EXPECT_LE(sample.n_ctx(), n);
    EXPECT_GT(sample.n_ctx(), n - 160) << "a unit more would exceed it";
    EXPECT_EQ(sample.tokens.size(), kPlain.encode(sample.text).size() + 1);
  }
}

TEST_P(EveryRulerTask, FollowsFromItsSeed) {
  const auto make = [&](uint64_t seed) {
    return make_ruler_sample(kPlain, GetParam(), 9000, 1, seed);
  };
  EXPECT_EQ(make(5).tokens, make(5).tokens);
  EXPECT_EQ(make(5).queries[0].answers, make(5).queries[0].answers);
  EXPECT_NE(make(5).tokens, make(6).tokens);
}

TEST_P(EveryRulerTask, EvidenceHoldsTheAnswers) {
  for (const Tokenizer* tokenizer :
       {static_cast<const Tokenizer*>(&kPlain), static_cast<const Tokenizer*>(&bundled())}) {
    const Sample sample = make_ruler_sample(*tokenizer, GetParam(), 8192, 3, 9);
    const bool is_list = GetParam() == "cwe" || GetParam() == "fwe";
    EXPECT_EQ(sample.queries.size(), is_list ? 1u : 3u);
    for (const Query& query : sample.queries) {
      ASSERT_FALSE(query.evidence.empty());
      EXPECT_EQ(query.scoring, Scoring::all);
      std::set<std::string> missing(query.answers.begin(), query.answers.end());
      for (const TokenRange& range : query.evidence) {
        const std::string said = evidence(*tokenizer, sample, range);
        EXPECT_LT(said.size(), 140u) << said;
        EXPECT_TRUE(std::any_of(query.answers.begin(), query.answers.end(), [&](const auto& a) {
          return said.find(a) != std::string::npos;
        })) << said;
        for (const std::string& answer : query.answers) {
          if (said.find(answer) != std::string::npos) missing.erase(answer);
        }
      }
      EXPECT_TRUE(missing.empty()) << *missing.begin();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ruler, EveryRulerTask, testing::ValuesIn(names()),
                         [](const auto& test) { return test.param; });

// Needles and questions as published with RULER's results (arXiv 2404.06654; niah_multikey_1).
TEST(Ruler, NeedlesReadAsPublished) {
  const Sample sample = make_ruler_sample(kPlain, "niah_multikey_1", 8192, 1, 1);
  EXPECT_EQ(lines_of(sample.text)[0],
            "A special magic number is hidden within the following text. Make sure to memorize it. "
            "I will quiz you about the number afterwards.");
  EXPECT_EQ(shape(evidence(kPlain, sample, sample.queries[0].evidence[0])),
            shape("One of the special magic numbers for faint-smolt is: 4374754."));
  EXPECT_EQ(shape(sample.queries[0].question),
            shape("What is the special magic number for faint-smolt mentioned in the provided "
                  "text?"));
  EXPECT_EQ(shape(sample.queries[0].answer_prefix),
            shape(" The special magic number for faint-smolt mentioned in the provided text is"));
  EXPECT_EQ(sample.queries[0].max_new_tokens, 128);
  static const std::regex needle("One of the special magic numbers for [a-z-]+ is: [0-9]{7}\\.");
  const auto begin = std::sregex_iterator(sample.text.begin(), sample.text.end(), needle);
  EXPECT_EQ(std::distance(begin, {}), 4) << "four keys, one of them asked for";
}

TEST(Ruler, PluralWhereSeveralAreAsked) {
  const Sample values = make_ruler_sample(kPlain, "niah_multivalue", 8192, 1, 1);
  EXPECT_EQ(lines_of(values.text)[0],
            "Some special magic numbers are hidden within the following text. Make sure to "
            "memorize it. I will quiz you about the numbers afterwards.");
  EXPECT_EQ(shape(values.queries[0].question),
            shape("What are all the special magic numbers for cloistered-colonization mentioned "
                  "in the provided text?"));
  EXPECT_EQ(values.queries[0].answers.size(), 4u);
  const Sample keys = make_ruler_sample(kPlain, "niah_multiquery", 8192, 1, 1);
  EXPECT_EQ(shape(keys.queries[0].question + keys.queries[0].answer_prefix),
            "What are all the special magic numbers for <key>, <key>, <key>, and <key> mentioned "
            "in the provided text? The special magic numbers for <key>, <key>, <key>, and <key> "
            "mentioned in the provided text are");
  EXPECT_EQ(keys.queries[0].answers.size(), 4u);
  const Sample many = make_ruler_sample(kPlain, "niah_single_1", 8192, 20, 1);
  EXPECT_EQ(lines_of(many.text)[0], lines_of(values.text)[0]) << "many are hidden";
  EXPECT_EQ(many.queries.size(), 20u);
}

TEST(Ruler, HaystacksAreNoiseNeedlesAndProse) {
  const std::string noise =
      "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
  const auto single = lines_of(make_ruler_sample(kPlain, "niah_single_1", 8192, 1, 1).text);
  EXPECT_EQ(std::count(single.begin(), single.end(), noise), std::ssize(single) - 2);
  const auto keys = lines_of(make_ruler_sample(kPlain, "niah_multikey_2", 8192, 1, 1).text);
  const auto ids = lines_of(make_ruler_sample(kPlain, "niah_multikey_3", 8192, 1, 1).text);
  std::set<std::string> different(keys.begin(), keys.end());
  EXPECT_EQ(different.size(), keys.size());
  for (size_t i = 1; i < keys.size(); ++i) {
    EXPECT_EQ(shape(keys[i]), "One of the special magic numbers for <key> is: <number>.");
  }
  for (size_t i = 1; i < ids.size(); ++i) {
    EXPECT_EQ(shape(ids[i]), "One of the special magic uuids for <uuid> is: <uuid>.");
  }
  const auto prose = lines_of(make_ruler_sample(kPlain, "niah_single_3", 8192, 1, 1).text);
  ASSERT_EQ(prose.size(), 2u) << "one paragraph";
  EXPECT_EQ(std::count(prose[1].begin(), prose[1].end(), ':'), 1) << "with one needle";
}

// The answer, found in the text by this test's own reading of it.
TEST(Ruler, NeedlesAnswerTheirQuestions) {
  static const std::regex needle("One of the special magic [a-z]+ for ([^ ]+) is: ([^ ]+)\\.");
  for (const char* task : {"niah_single_2", "niah_multikey_2", "niah_multikey_3", "niah_multivalue",
                           "niah_multiquery"}) {
    const Sample sample = make_ruler_sample(kPlain, task, 12000, 5, 2);
    std::multimap<std::string, std::string> values;
    for (std::sregex_iterator it(sample.text.begin(), sample.text.end(), needle), end; it != end;
         ++it) {
      values.emplace((*it)[1], (*it)[2]);
    }
    for (const Query& query : sample.queries) {
      std::multiset<std::string> found;
      for (const auto& [key, value] : values) {
        if (query.question.find(" " + key) != std::string::npos) found.insert(value);
      }
      EXPECT_EQ(found, std::multiset<std::string>(query.answers.begin(), query.answers.end()));
      EXPECT_EQ(query.evidence.size(), query.answers.size());
    }
  }
}

TEST(Ruler, VariableTracking) {
  const Sample sample = make_ruler_sample(kPlain, "vt", 8192, 2, 1);
  const std::string head =
      "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n";
  ASSERT_EQ(sample.text.rfind(head, 0), 0u);
  const size_t second = sample.text.find(head, 1);
  ASSERT_NE(second, std::string::npos) << "a solved example comes first";
  static const std::regex solved(
      "Question: Find all variables that are assigned the value ([0-9]{5}) in the text above. "
      "Answer: According to the chain\\(s\\) of variable assignment in the text above, 5 variables "
      "are assigned the value \\1, they are:  [A-Z]{3} [A-Z]{3} [A-Z]{3} [A-Z]{3} [A-Z]{3}\n\n$");
  EXPECT_TRUE(std::regex_search(sample.text.substr(0, second), solved));
  for (const Query& query : sample.queries) {
    EXPECT_EQ(shape(query.question + query.answer_prefix),
              "Question: Find all variables that are assigned the value <value> in the text above. "
              "Answer: According to the chain(s) of variable assignment in the text above, 5 "
              "variables are assigned the value <value>, they are: ");
    EXPECT_EQ(query.max_new_tokens, 30);
    std::smatch m;
    ASSERT_TRUE(std::regex_search(query.question, m, std::regex("value ([0-9]{5})")));
    std::string source = m[1];
    std::vector<std::string> found;
    for (std::string line : lines_of(sample.text.substr(second))) {
      if (std::regex_match(line, m, std::regex("VAR ([A-Z]{5}) = (VAR )?([A-Z0-9]{5}) ?")) &&
          m[3] == source) {
        source = m[1];
        found.push_back(source);
      }
    }
    EXPECT_EQ(found, query.answers);
  }
}

// RULER's published form of a list: "1. word 2. word", the answer as such a list.
TEST(Ruler, CommonWords) {
  for (const auto& [n_tokens, common, others, example] :
       {std::tuple{4000, 6, 1, 40}, std::tuple{16384, 30, 3, 190}}) {
    const Sample sample = make_ruler_sample(kPlain, "cwe", n_tokens, 1, 1);
    const auto lines = lines_of(sample.text);
    ASSERT_EQ(lines.size(), 5u);
    EXPECT_EQ(lines[0],
              "Below is a numbered list of words. In these words, some appear more often than "
              "others. Memorize the ones that appear most often.");
    EXPECT_EQ(lines[3], lines[0]);
    EXPECT_TRUE(std::regex_match(
        lines[2], std::regex("Question: What are the 10 most common words in the above list\\? "
                             "Answer: The top 10 words that appear most often in the list are: "
                             "1\\. [a-z]+ 2\\. [a-z]+ .* 10\\. [a-z]+")));
    std::istringstream solved(lines[1]), list(lines[4]);
    std::string number, word;
    int n_solved = 0;
    while (solved >> number >> word) EXPECT_EQ(number, std::to_string(++n_solved) + ".");
    EXPECT_EQ(n_solved, example);
    std::map<std::string, int> counts;
    for (int i = 1; list >> number >> word; ++i) {
      EXPECT_EQ(number, std::to_string(i) + ".");
      ++counts[word];
    }
    const Query& query = sample.queries[0];
    const std::set<std::string> answers(query.answers.begin(), query.answers.end());
    EXPECT_EQ(answers.size(), 10u);
    for (const auto& [listed, count] : counts) {
      EXPECT_EQ(count, answers.count(listed) != 0 ? common : others) << listed;
    }
    EXPECT_EQ(query.evidence.size(), size_t(10 * common));
    EXPECT_EQ(query.max_new_tokens, 120);
  }
}

TEST(Ruler, CommonWordsArePairsWhereTheListDoesNotSuffice) {
  const Sample sample = make_ruler_sample(kPlain, "cwe", 131072, 1, 1);
  for (const std::string& word : sample.queries[0].answers) EXPECT_EQ(shape(word), "<key>");
}

TEST(Ruler, FrequentWords) {
  const Sample sample = make_ruler_sample(kPlain, "fwe", 8192, 1, 1);
  const std::string head =
      "Read the following coded text and track the frequency of each coded word. Find the three "
      "most frequently appeared coded words. ";
  ASSERT_EQ(sample.text.rfind(head, 0), 0u);
  std::istringstream in(sample.text.substr(head.size()));
  std::map<std::string, int> counts;
  for (std::string word; in >> word;) ++counts[word];
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [word, count] : counts) sorted.emplace_back(count, word);
  std::sort(sorted.rbegin(), sorted.rend());
  EXPECT_EQ(sorted[0].second, "...");
  const Query& query = sample.queries[0];
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(sorted[i + 1].second, query.answers[i]);
    EXPECT_NEAR(sorted[i + 1].first, sorted[0].first / std::pow(i + 2, 2), 1) << "1 / rank^2";
  }
  EXPECT_GT(sorted[3].first, sorted[4].first);
  EXPECT_EQ(query.question,
            "Question: Do not provide any explanation. Please ignore the dots '....'. What are the "
            "three most frequently appeared words in the above coded text?");
  EXPECT_EQ(query.answer_prefix,
            " Answer: According to the coded text above, the three most frequently appeared words "
            "are:");
  EXPECT_EQ(query.max_new_tokens, 50);
}

TEST(Ruler, TokensAreThoseOfTheWholePrompt) {
  for (const std::string& task : names()) {
    const Sample sample = make_ruler_sample(bundled(), task, 4096, 1, 1);
    std::vector<Token> tokens = sample.tokens;
    tokens.insert(tokens.end(), sample.queries[0].tokens.begin(), sample.queries[0].tokens.end());
    std::vector<Token> whole = bundled().start();
    for (const Token t : bundled().encode(prompt(sample))) whole.push_back(t);
    EXPECT_EQ(tokens, whole) << task;
  }
}

TEST(Ruler, ScoresAPerfectAnswer) {
  for (const std::string& task : names()) {
    const Query query = make_ruler_sample(kPlain, task, 8192, 1, 1).queries[0];
    std::string said;
    for (const std::string& answer : query.answers) said += " " + answer + ",";
    EXPECT_EQ(score_text(query, said), 1) << task;
    EXPECT_EQ(score_text(query, " " + query.answers[0]),
              1.0 / static_cast<double>(query.answers.size()));
  }
}

// The same samples on every machine: a change here makes earlier results incomparable.
TEST(Ruler, SamplesDoNotChange) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const std::string& task : names()) {
    const Sample sample = make_ruler_sample(kPlain, task, 8192, 2, 1);
    for (const Token token : sample.tokens) {
      hash = (hash ^ static_cast<uint64_t>(token)) * 1099511628211u;
    }
  }
  EXPECT_EQ(hash, 16565625153343049535u);
}

TEST(Ruler, SaysWhatCannotBe) {
  EXPECT_THROW(make_ruler_sample(kPlain, "qa_1", 8192, 1, 1), Error);
  try {
    make_ruler_sample(kPlain, "niah_multikey_2", 512, 20, 1);
    FAIL();
  } catch (const Error& error) {
    for (const char* part : {"niah_multikey_2", "512", "make it longer"}) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

TEST(Ruler, AsksLessWhereNeedlesWouldFillTheDocument) {
  const Sample sample = make_ruler_sample(kPlain, "niah_multivalue", 4096, 20, 1);
  EXPECT_GE(sample.queries.size(), 2u);
  EXPECT_LT(sample.queries.size(), 8u);
  EXPECT_EQ(sample.queries.back().evidence.size(), 4u);
  EXPECT_EQ(make_ruler_sample(kPlain, "niah_multivalue", 65536, 20, 1).queries.size(), 20u);
}

}  // namespace
}  // namespace hata::eval
