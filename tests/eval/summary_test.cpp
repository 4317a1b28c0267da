// Tables from planted results.
#include "eval/summary.h"

#include <gtest/gtest.h>

#include "eval/report.h"
#include "eval/setting.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

// 10 documents of 20 questions for two tasks; `wrong` questions of each document are wrong.
void add(Results& results, const std::string& setting, int wrong, int64_t sparse, int64_t dense) {
  for (const char* task : {"needle", "copy"}) {
    for (int document = 0; document < 10; ++document) {
      Record record{.key = {task, 8192, document}, .setting = setting};
      for (int q = 0; q < 20; ++q) {
        record.queries.push_back({.score = q < wrong ? 0.0 : 1.0, .steps = 2, .ns = 2000});
      }
      record.counters.sparse_rows = sparse;
      record.counters.dense_rows = dense;
      record.counters.keys_attended = 64 * sparse + 1000 * dense;
      record.counters.keys_valid = 1000 * (sparse + dense);
      record.counters.choose_bytes = 16 * sparse;
      record.counters.attend_bytes = 64 * 512 * sparse + 1000 * 512 * dense;
      record.counters.dense_bytes = 1000 * 512 * (sparse + dense);
      HeadCounts head{.rows = 1, .mass = {0.25, 0.25, 0.5}, .kept = {0.25, 0, 0.25}};
      head.best = {1, 1, 2};
      head.found = {1, 0, 1};
      if (sparse > 0) record.layers[2] = {head};
      results.records.push_back(record);
    }
  }
}

Results planted() {
  Results results;
  results.settings = {{"model", "</script><b>m"},
                      {"seed", 1},
                      {"tasks", {"needle", "copy"}},
                      {"settings", Json::array()}};
  for (const Setting& s : make_settings({"hata", "streaming"}, {Budget::parse("64")},
                                        {DenseLayers{}}, {.min_ctx = 0})) {
    results.settings["settings"].push_back(
        {{"id", s.id()}, {"method", s.method}, {"budget", "64"}, {"dense_layers", 2}});
  }
  add(results, "dense", 2, 0, 8);
  add(results, "hata 64 +2", 2, 6, 2);
  add(results, "streaming 64 +2", 15, 6, 2);
  return results;
}

TEST(Summary, RowsSayWhatWasFound) {
  const Json summary = summarize(planted());
  ASSERT_EQ(summary["rows"].size(), 3u);
  const Json &dense = summary["rows"][0], &hata = summary["rows"][1],
             &streaming = summary["rows"][2];
  EXPECT_EQ(dense["id"], "dense");
  EXPECT_TRUE(dense["difference"].is_null());
  EXPECT_EQ(dense["mean"]["n"], 400);
  EXPECT_DOUBLE_EQ(dense["mean"]["mean"], 0.9);
  EXPECT_EQ(dense["keys"], 1000);
  EXPECT_TRUE(dense["kept"]["far"].is_null());
  EXPECT_EQ(hata["difference"]["mean"], 0);
  EXPECT_EQ(hata["verdict"], "as good") << "400 questions alike";
  EXPECT_DOUBLE_EQ(streaming["difference"]["mean"], -0.65);
  EXPECT_EQ(streaming["verdict"], "worse");
  EXPECT_EQ(streaming["tasks"]["copy"]["verdict"], "worse");
  EXPECT_DOUBLE_EQ(streaming["tasks"]["copy"]["mean"], 0.25);
}

TEST(Summary, AnyMethodCanBeComparedWith) {
  const Json summary = summarize(planted(), "hata");
  EXPECT_EQ(summary["against"], "hata");
  EXPECT_DOUBLE_EQ(summary["rows"][2]["against"]["mean"], -0.65);
  EXPECT_FALSE(summary["rows"][1].contains("against")) << "itself";
  EXPECT_FALSE(summarize(planted())["rows"][2].contains("against"));
}

TEST(Summary, BytesAreOfSparseLayersAlone) {
  const Json hata = summarize(planted())["rows"][1];
  EXPECT_EQ(hata["keys"], 64);
  EXPECT_EQ(hata["choose_bytes"], 16);
  EXPECT_EQ(hata["attend_bytes"], 64 * 512);
  EXPECT_DOUBLE_EQ(hata["share_of_bytes"],
                   (6 * 16 + 6 * 64 * 512.0 + 2 * 1000 * 512) / (8 * 1000 * 512));
  EXPECT_EQ(hata["ns_per_step"], 1000);
  EXPECT_EQ(hata["sparse_share"], 0.75);
  EXPECT_EQ(hata["kept"]["all"], 0.5);
  EXPECT_EQ(hata["recall"]["far"], 0.5);
}

TEST(Summary, HeadsAreSummedOverDocuments) {
  const Json summary = summarize(planted());
  ASSERT_EQ(summary["heads"].size(), 2u);
  EXPECT_EQ(summary["heads"][0]["layers"][0]["layer"], 2);
  EXPECT_EQ(summary["heads"][0]["layers"][0]["recall"][0], 0.5);
}

TEST(Summary, MissingDocumentsAreNotCompared) {
  Results results = planted();
  std::erase_if(results.records, [](const Record& record) {
    return record.setting == "dense" && record.key.document >= 5;
  });
  const Json hata = summarize(results)["rows"][1];
  EXPECT_EQ(hata["mean"]["n"], 400);
  EXPECT_EQ(hata["difference"]["n"], 200);
  EXPECT_EQ(hata["verdict"], "open") << "200 questions alike are too few";
}

TEST(Verdict, SaysWhatTheIntervalAllows) {
  EXPECT_EQ(verdict({.mean = 0, .low = -0.009, .high = 0.009, .n = 1}), "as good");
  EXPECT_EQ(verdict({.mean = 0, .low = -0.02, .high = 0.009, .n = 1}), "open");
  EXPECT_EQ(verdict({.mean = -0.1, .low = -0.2, .high = -0.02, .n = 1}), "worse");
  EXPECT_EQ(verdict({.mean = 0.1, .low = 0.02, .high = 0.2, .n = 1}), "better");
}

TEST(Report, HoldsTheDataAndNoWayOut) {
  const Results results = planted();
  const std::string page = render_report(summarize(results), results);
  EXPECT_EQ(page.find("</script><b>m"), std::string::npos) << "text is not markup";
  EXPECT_NE(page.find("\\u003c/script>\\u003cb>m"), std::string::npos);
  EXPECT_EQ(page.find("{{"), std::string::npos) << "a part is missing";
  std::string links = page;
  const std::string svg = "http://www.w3.org/2000/svg";  // a name, not an address
  links.erase(links.find(svg), svg.size());
  for (const char* way : {"http://", "https://", "src=", "@import", "url("}) {
    EXPECT_EQ(links.find(way), std::string::npos) << way;
  }
}

TEST(Setting, EveryCombinationOnce) {
  const auto settings = make_settings(
      {"hata", "dense", "ggml", "hata"}, {Budget::parse("64"), Budget::parse("1.56%")},
      {DenseLayers::parse("0"), DenseLayers::parse("2")}, {.min_ctx = 10});
  std::vector<std::string> ids;
  for (const Setting& setting : settings) ids.push_back(setting.id());
  EXPECT_EQ(ids, (std::vector<std::string>{"dense", "hata 64 +0", "hata 1.56% +0", "hata 64 +2",
                                           "hata 1.56% +2", "ggml"}));
  EXPECT_EQ(settings[1].host_options(),
            "method=hata budget=64 dense-layers=0 min-ctx=10 weights=auto");
  EXPECT_EQ(settings.back().host_options(), "method=ggml");
}

TEST(Setting, GroupsOfMethods) {
  const auto all = expand_methods({"all"});
  EXPECT_EQ(all, selector_names());
  for (const std::string& method : expand_methods({"windowed"})) {
    EXPECT_NE(method.find(":sink=1:recent=-1"), std::string::npos);
    EXPECT_NE(method.rfind("hata:", 0), 0u) << "has that window already";
  }
  EXPECT_EQ(expand_methods({"ggml", "hata:recent=0"}),
            (std::vector<std::string>{"ggml", "hata:recent=0"}));
  EXPECT_THROW(expand_methods({"nonsense"}), Error);
}

}  // namespace
}  // namespace hata::eval
