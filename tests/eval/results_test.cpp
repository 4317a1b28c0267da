// Results are appended, read again, and refused where they are of other settings.
#include "eval/results.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "../temp_folder.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

constexpr const char* kName = "results.jsonl";

Record example(int64_t document, const std::string& setting) {
  Record record{.key = {"needle", 2048, document}, .setting = setting, .n_tokens = 2048};
  record.queries = {{.score = 1, .said = {5, 6}, .text = "\xc3", .steps = 9, .ns = 123},
                    {.score = 0.5, .said = {}, .text = "a \"b\"", .steps = 2, .ns = 4}};
  record.text = {.steps = 2, .ns = 7, .kl = {0.25, 0.5}, .nll = {1, 2}, .same = {1, 0}};
  record.counters.choose_bytes = 77;
  record.counters.dense_rows = 3;
  HeadCounts head{.rows = 2, .mass = {0.5, 0.25, 1.25}, .kept = {0.5, 0.125, 1}};
  head.best = {2, 3, 5};
  head.found = {2, 1, 0};
  record.layers[4] = {head, {}};
  record.chosen[4] = {{0, 7, 8, 2000}, {}};
  return record;
}

class ResultsFileTest : public test::TempFolder {
 protected:
  std::string refusal(const Json& settings) const {
    try {
      ResultsFile file(path_, settings);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }

  const Json settings_ = {{"model", "m"}, {"contexts", {2048, 4096}}, {"seed", 1}};
  std::string path_ = file(kName);
};

TEST_F(ResultsFileTest, RecordsComeBackAsTheyWere) {
  const Record before = example(3, "hata 64 +2");
  const Record after = record_from(Json::parse(dump(to_json(before))));
  EXPECT_EQ(to_json(after)["queries"][1], to_json(before)["queries"][1]);
  EXPECT_EQ(after.key, before.key);
  EXPECT_EQ(after.queries[0].said, before.queries[0].said);
  EXPECT_EQ(after.text.kl, before.text.kl);
  EXPECT_EQ(after.text.same, before.text.same);
  EXPECT_EQ(after.counters.choose_bytes, 77);
  EXPECT_EQ(after.chosen, before.chosen);
  EXPECT_EQ(after.layers.at(4)[0].kept_mass(), before.layers.at(4)[0].kept_mass());
  EXPECT_EQ(after.layers.at(4)[0].recall(), 0.3);
}

TEST_F(ResultsFileTest, GoesOnFromWhatIsThere) {
  {
    ResultsFile file(path_, settings_);
    file.add(example(0, "dense"));
    file.add_error({"needle", 2048, 1}, "dense", "no room");
    file.add_document({"needle", 2048, 0}, {{"pieces", {"a", "b"}}});
    EXPECT_EQ(file.results().errors, 1);
  }
  ResultsFile file(path_, settings_);
  EXPECT_EQ(file.continued(), 1);
  EXPECT_EQ(file.results().errors, 0) << "what failed is tried again";
  EXPECT_TRUE(file.has({"needle", 2048, 0}, "dense"));
  EXPECT_FALSE(file.has({"needle", 2048, 1}, "dense"));
  EXPECT_FALSE(file.has({"needle", 2048, 0}, "hata 64 +2"));
  EXPECT_TRUE(file.has_document({"needle", 2048, 0}));
}

TEST_F(ResultsFileTest, ALineThatWasCutOffIsDropped) {
  ResultsFile(path_, settings_).add(example(0, "dense"));
  const std::string whole = bytes(kName);
  for (const size_t cut : {1u, 10u, 200u}) {
    put(kName, whole + whole.substr(whole.find('\n') + 1, cut));
    ResultsFile file(path_, settings_);
    EXPECT_EQ(file.continued(), 1);
    EXPECT_EQ(bytes(kName), whole);
  }
  put(kName, whole.substr(0, 20));  // not even the settings were written
  { ResultsFile(path_, settings_).add(example(0, "dense")); }
  EXPECT_EQ(bytes(kName), whole);
}

TEST_F(ResultsFileTest, OtherSettingsAreRefusedByName) {
  ResultsFile(path_, settings_).add(example(0, "dense"));
  const std::string before = bytes(kName);
  Json other = settings_;
  other["seed"] = 2;
  for (const char* part : {"results.jsonl", "other settings", "seed is 1 there, 2 here"}) {
    EXPECT_NE(refusal(other).find(part), std::string::npos) << part << "\n" << refusal(other);
  }
  other = settings_;
  other["contexts"] = {2048};
  EXPECT_NE(refusal(other).find("contexts is [2048,4096] there, [2048] here"), std::string::npos);
  EXPECT_EQ(bytes(kName), before) << "nothing is lost";
}

TEST_F(ResultsFileTest, BrokenLinesAreNamed) {
  ResultsFile(path_, settings_).add(example(0, "dense"));
  const std::string good = bytes(kName);
  put(kName, good + "{\"type\": \"result\", \"task\": 3}\n");
  EXPECT_NE(refusal(settings_).find("line 3"), std::string::npos) << refusal(settings_);
  put(kName, good + "nonsense\n");
  EXPECT_NE(refusal(settings_).find("line 3"), std::string::npos) << refusal(settings_);
  put(kName, "{\"some\": \"other file\"}\n");
  EXPECT_NE(refusal(settings_).find("not a file of results"), std::string::npos);
}

TEST_F(ResultsFileTest, SaysWhereItCannotWrite) {
  path_ = file("no/such/folder.jsonl");
  EXPECT_NE(refusal(settings_).find(path_), std::string::npos);
  path_ = "/dev/full";
  EXPECT_NE(refusal(settings_).find("No space left"), std::string::npos) << refusal(settings_);
}

TEST_F(ResultsFileTest, WithoutAPathNothingIsWritten) {
  ResultsFile file("", settings_);
  file.add(example(0, "dense"));
  EXPECT_EQ(file.results().records.size(), 1u);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

}  // namespace
}  // namespace hata::eval
