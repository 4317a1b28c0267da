#include "output.h"

#include <gtest/gtest.h>

namespace hata::cli {
namespace {

std::string printed(Format format, const std::vector<Json>& rows) {
  testing::internal::CaptureStdout();
  print_rows(format, rows,
             {{"name", false, [](const Json& row) { return row["name"].get<std::string>(); }},
              {"n", true, [](const Json& row) { return row["n"].dump(); }}});
  flush_output();
  return testing::internal::GetCapturedStdout();
}

const std::vector<Json> kRows = {Json::parse(R"({"name": "a \"b\"", "n": 1})"),
                                 Json::parse(R"({"name": "c", "n": null})")};

TEST(Output, Markdown) {
  EXPECT_EQ(printed(Format::md, kRows),
            "| name  |    n |\n"
            "| ----- | ---: |\n"
            "| a \"b\" |    1 |\n"
            "| c     | null |\n");
}

TEST(Output, Csv) { EXPECT_EQ(printed(Format::csv, kRows), "name,n\n\"a \"\"b\"\"\",1\n\"c\",\n"); }

TEST(Output, Json) {
  EXPECT_EQ(Json::parse(printed(Format::json, kRows)), Json(kRows));
  EXPECT_EQ(printed(Format::jsonl, kRows), kRows[0].dump() + "\n" + kRows[1].dump() + "\n");
}

TEST(Output, HumanUnits) {
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1234), "1.23 KB");
  EXPECT_EQ(human_bytes(17.34e6), "17.3 MB");
  EXPECT_EQ(human_time(12'300), "12.3 us");
  EXPECT_EQ(human_time(2.5e6), "2.50 ms");
  EXPECT_EQ(human_duration(65.9), "1:05");
  EXPECT_EQ(human_duration(7265), "2:01:05");
}

}  // namespace
}  // namespace hata::cli
