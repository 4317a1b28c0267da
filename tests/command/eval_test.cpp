// hata eval on the bundled model: a small run of everything, going on after an interruption, tasks
// as files, and what is wrong with what was given.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "../temp_folder.h"
#include "shell.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::vector<json> lines(const std::string& text) {
  std::vector<json> all;
  for (size_t at = 0, eol; (eol = text.find('\n', at)) != std::string::npos; at = eol + 1) {
    all.push_back(json::parse(text.substr(at, eol - at)));
  }
  return all;
}

// Without what is measured: the answers alone, by document and setting.
std::map<std::string, json> answers(const std::string& results) {
  std::map<std::string, json> found;
  for (const json& line : lines(results)) {
    if (line.value("type", "") != "result") continue;
    json& said = found[line["task"].get<std::string>() + line["document"].dump() +
                       line["setting"].get<std::string>()];
    EXPECT_TRUE(said.is_null()) << "asked twice";
    for (const json& query : line["queries"]) said.push_back(query["said"]);
  }
  return found;
}

using Eval = test::TempFolder;

void expect_refusal(const Result& result, int status, const std::vector<std::string>& parts) {
  EXPECT_EQ(result.status, status) << result.err;
  for (const auto& part : parts) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << "\nin: " << result.err;
  }
}

double mean_of(const json& summary, const std::string& method) {
  for (const json& row : summary["rows"]) {
    if (row["method"] == method) return row["mean"]["mean"];
  }
  ADD_FAILURE() << "no row of " << method;
  return -1;
}

TEST_F(Eval, EveryMethodOnAFewTasks) {
  const Result result = hata(
      "eval -c 2048 --task needle,multi-key,recall,copy --method all,hata:sink=0:recent=0 "
      "--budget 64 --dense-layers 2 --samples 1 --per-document 5 -t 2 --out " +
      folder_ + "/");
  ASSERT_EQ(result.status, 0) << result.err;
  const json summary = json::parse(bytes("eval.json"));
  std::map<std::string, json> rows;
  for (const json& row : summary["rows"]) rows[row["method"]] = row;
  const Result help = hata("eval --help");
  for (const auto& [method, row] : rows) {
    EXPECT_NE(help.out.find(method.substr(0, method.find(':'))), std::string::npos);
    EXPECT_EQ(row["mean"]["n"], 20) << method;
    EXPECT_EQ(row["tasks"].size(), 4u) << method;
    EXPECT_GT(row["ns_per_step"], 0) << method;
    if (method == "dense") continue;
    EXPECT_EQ(row["sparse_share"], 0.75) << method << ": six layers of eight are sparse";
    EXPECT_LE(row["keys"], 64.01) << method;
    EXPECT_GT(row["kept"]["all"], 0.2) << method;
    EXPECT_EQ(row["difference"]["n"], 20) << method;
  }
  EXPECT_GE(rows.size(), 12u);
  EXPECT_GE(mean_of(summary, "dense"), 0.8);
  EXPECT_GE(mean_of(summary, "exact-prob"), mean_of(summary, "dense") - 0.15);
  EXPECT_GE(mean_of(summary, "hata"), mean_of(summary, "streaming") + 0.2);
  EXPECT_LE(mean_of(summary, "streaming"), 0.4) << "far keys are needed";
  EXPECT_GT(rows["exact-prob"]["recall"]["all"], 0.97);
  EXPECT_LT(rows["streaming"]["recall"]["far"], 0.2);

  const std::string md = bytes("eval.md"), csv = bytes("eval.csv");
  for (const auto& [method, row] : rows) {
    EXPECT_NE(md.find("| " + method + " "), std::string::npos) << method;
    EXPECT_NE(csv.find(",\"" + method + "\","), std::string::npos) << method;
  }
  EXPECT_EQ(summary["errors"], 0);
  EXPECT_NE(bytes("eval.html").find("</html>"), std::string::npos);
}

TEST_F(Eval, FullBudgetIsDenseAttention) {
  const Result result = hata(
      "eval -c 1024 --task needle,copy --method hata,quest,loki,sparq:mean=off,streaming "
      "--budget 100% --dense-layers 0 --min-ctx 0 --samples 1 --per-document 4 -t 2 --json");
  ASSERT_EQ(result.status, 0) << result.err;
  const json summary = json::parse(result.out);
  for (const json& row : summary["rows"]) {
    if (row["method"] == "dense") continue;
    EXPECT_EQ(row["difference"]["mean"], 0) << row["method"];
  }
}

TEST_F(Eval, GoesOnAfterAnInterruption) {
  const std::string command =
      "eval -c 1024 --task needle,recall --method hata,streaming --budget 64 --samples 3 "
      "--per-document 4 -t 2 --min-ctx 256 -o csv --resume ";
  const Result whole = hata(command + file("whole.jsonl"));
  ASSERT_EQ(whole.status, 0) << whole.err;
  // Killed as soon as it has written some results.
  shell("'" HATA "' " + command + file("cut.jsonl") + " & pid=$!; while [ \"$(cat " +
        file("cut.jsonl") +
        " 2>/dev/null | wc -l)\" -lt 7 ]; do sleep 0.02; done; kill -9 $pid; wait $pid");
  const auto before = answers(bytes("cut.jsonl").substr(0, bytes("cut.jsonl").rfind('\n') + 1));
  EXPECT_GE(before.size(), 3u);
  EXPECT_LT(before.size(), 18u) << "it was not killed in the middle";
  const Result rest = hata(command + file("cut.jsonl"));
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_NE(rest.err.find("results are there already"), std::string::npos) << rest.err;
  EXPECT_EQ(answers(bytes("cut.jsonl")), answers(bytes("whole.jsonl")));
  const std::string before_again = bytes("cut.jsonl");
  EXPECT_EQ(hata(command + file("cut.jsonl")).status, 0);
  EXPECT_EQ(bytes("cut.jsonl"), before_again) << "nothing was left to do";

  expect_refusal(hata(command + file("cut.jsonl") + " --seed 2"), 1,
                 {"cut.jsonl", "other settings", "seed is 1 there, 2 here"});
  EXPECT_EQ(bytes("cut.jsonl"), before_again) << "nothing is lost";
}

TEST_F(Eval, StatesAreUsedAgain) {
  const std::string command =
      "eval -c 1024 --task needle --method hata --budget 64 --samples 2 --per-document 3 -t 2 "
      "--min-ctx 256 --states " +
      file("states") + " --resume ";
  ASSERT_EQ(hata(command + file("first.jsonl")).status, 0);
  ASSERT_EQ(std::distance(fs::directory_iterator(file("states")), {}), 2);
  const auto written = fs::last_write_time(*fs::directory_iterator(file("states")));
  ASSERT_EQ(hata(command + file("second.jsonl")).status, 0);
  EXPECT_GT(fs::last_write_time(*fs::directory_iterator(file("states"))), written) << "used";
  EXPECT_EQ(answers(bytes("first.jsonl")), answers(bytes("second.jsonl")));
}

TEST_F(Eval, TasksAsFilesGiveTheSameAnswers) {
  ASSERT_EQ(hata("eval -c 1024 --task needle --samples 2 --per-document 3 --export-jsonl " +
                 file("tasks.jsonl"))
                .status,
            0);
  const auto exported = lines(bytes("tasks.jsonl"));
  ASSERT_EQ(exported.size(), 6u);
  for (const char* field : {"context", "question", "answer_prefix", "answer", "max_new_tokens"}) {
    EXPECT_TRUE(exported[0].contains(field)) << field;
  }
  const std::string common = "--method hata --budget 64 --min-ctx 256 -t 2 --json";
  const Result direct = hata("eval -c 1024 --task needle --samples 2 --per-document 3 " + common);
  const Result read_in = hata("eval --jsonl " + file("tasks.jsonl") + " " + common);
  ASSERT_EQ(read_in.status, 0) << read_in.err;
  for (const char* method : {"dense", "hata"}) {
    EXPECT_EQ(mean_of(json::parse(read_in.out), method), mean_of(json::parse(direct.out), method));
  }
}

TEST_F(Eval, ASampleThatThrowsLeavesTheOthers) {
  std::string context;
  for (int i = 0; i < 300; ++i) context += " stone river " + std::to_string(i) + ".";
  std::string much;
  for (int i = 0; i < 40; ++i) much += context;
  for (int i = 0; i < 5; ++i) much += much;
  const auto line = [](const std::string& text) {
    return json{{"context", text},
                {"question", "What?"},
                {"answer_prefix", " It is"},
                {"answer", "stone"},
                {"max_new_tokens", 4}}
               .dump() +
           "\n";
  };
  put("own.jsonl", line(context) + line(much) + line(context + " And more."));
  const Result result =
      hata("eval --method streaming --budget 64 --min-ctx 256 -t 2 --jsonl " + file("own.jsonl") +
           " --resume " + file("results.jsonl") + " -o jsonl");
  expect_refusal(result, 1, {"document 2", "trained up to", "1 of the documents"});
  const auto rows = lines(result.out);
  ASSERT_FALSE(rows.empty());
  EXPECT_EQ(rows[0]["n"], 2);
  int errors = 0;
  for (const json& one : lines(bytes("results.jsonl"))) {
    errors += one.value("type", "") == "error" ? 1 : 0;
  }
  EXPECT_EQ(errors, 1);
}

TEST_F(Eval, PlainTextIsComparedWithDense) {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "The river number " + std::to_string(i * 7 % 100) + " runs under a hill of stone.\n";
  }
  put("plain.txt", text);
  const Result result = hata(
      "eval -c 1024 --method hata,hata:sink=0:recent=0 --budget 64,100% "
      "--min-ctx 256 --dense-layers 0 --samples 1 -t 2 --json --text " +
      file("plain.txt"));
  ASSERT_EQ(result.status, 0) << result.err;
  std::map<std::string, json> rows;
  const json summary = json::parse(result.out);
  for (const json& row : summary["text"]) rows[row["setting"]] = row;
  EXPECT_EQ(rows["dense"]["kl"], 0);
  EXPECT_EQ(rows["dense"]["same"], 1);
  EXPECT_LT(rows["hata 100% +0"]["kl"], 1e-4);
  EXPECT_GT(rows["hata:sink=0:recent=0 64 +0"]["kl"], rows["hata 64 +0"]["kl"]);
  EXPECT_NEAR(rows["hata 100% +0"]["perplexity"], rows["dense"]["perplexity"], 0.01);
}

TEST_F(Eval, BadInput) {
  expect_refusal(hata("eval --task nonsense"), 2, {"--task", "nonsense", "needle", "jsonl:FILE"});
  expect_refusal(hata("eval --method nonsense"), 2, {"--method", "nonsense", "hata-paper"});
  expect_refusal(hata("eval --method quest:pages=3"), 2, {"--method", "pages", "page"});
  expect_refusal(hata("eval --budget 0"), 2, {"--budget"});
  expect_refusal(hata("eval -c 262144"), 1, {"262144", "trained up to", "give that or less"});
  put("broken.jsonl",
      "{\"context\": \"a\", \"question\": \"b\", \"answer_prefix\": \"\", "
      "\"answer\": \"c\", \"max_new_tokens\": 4}\n{\"context\": 3}\n");
  expect_refusal(hata("eval --jsonl " + file("broken.jsonl")), 1, {"broken.jsonl", "line 2"});
  expect_refusal(hata("eval --jsonl /no/such/file"), 1, {"/no/such/file"});
  expect_refusal(hata("eval --text /no/such/file"), 1, {"/no/such/file"});
  expect_refusal(hata("eval -c 1024 --out /proc/no/such/"), 1, {"/proc/no/such/", "--out"});
  expect_refusal(hata("eval -c 1024 --out /no/such/file.md"), 1, {"/no/such/file.md", "--out"});
  expect_refusal(hata("eval -c 1024 --resume /no/such/file"), 1, {"/no/such/file"});
  expect_refusal(hata("eval -c 1024 --states /proc/no"), 1, {"/proc/no", "--states"});
  expect_refusal(hata("eval --export-jsonl /no/such/file"), 1, {"/no/such/file"});
  expect_refusal(hata("eval -o nonsense"), 2, {"--output", "nonsense"});
}

}  // namespace
}  // namespace hata::cli
