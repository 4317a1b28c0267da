// hata train on the bundled model, small: what it writes, that it repeats, and its errors.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "shell.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

class TrainCommand : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/hata_test_XXXXXX";
    folder_ = mkdtemp(name);
  }
  void TearDown() override { fs::remove_all(folder_); }

  Result train(const std::string& output, const std::string& more = "") {
    return hata("train -c 512 --rows 2 --held-out 1 --steps 2 --queries 4 -o " + folder_ + "/" +
                output + " " + more);
  }
  std::string bytes(const std::string& name) {
    std::ifstream in(fs::path(folder_) / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::string folder_;
};

TEST_F(TrainCommand, GivesTheSameFileForAnyNumberOfThreads) {
  const Result one = train("a.gguf", "-t 1");
  ASSERT_EQ(one.status, 0) << one.err;
  const Result two = train("b.gguf", "-t 2");
  ASSERT_EQ(two.status, 0) << two.err;
  EXPECT_FALSE(bytes("a.gguf").empty());
  EXPECT_TRUE(bytes("a.gguf") == bytes("b.gguf"));
  EXPECT_FALSE(fs::exists(folder_ + "/a.gguf.work"));

  const Result info = hata("info --json " + folder_ + "/a.gguf");
  ASSERT_EQ(info.status, 0) << info.err;
  const auto json = nlohmann::json::parse(info.out).at(0);
  EXPECT_EQ(json.at("layers").size(), 8u);
  const auto& kept = json.at("quality").at("kept_mass");
  for (const char* budget : {"64", "256", "1.56%"}) {
    EXPECT_GE(kept.at("exact").at(budget).get<double>(),
              kept.at("learned").at(budget).get<double>());
    EXPECT_GT(kept.at("random").at(budget).get<double>(), 0.0);
  }
}

TEST_F(TrainCommand, GoesOnWithWhatIsThere) {
  ASSERT_EQ(train("whole.gguf").status, 0);
  // A run that dies at its end leaves its folder: the output cannot be renamed onto a folder.
  fs::create_directories(folder_ + "/cut.gguf");
  EXPECT_NE(train("cut.gguf").status, 0);
  fs::remove_all(folder_ + "/cut.gguf");
  const Result refused = train("cut.gguf");
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("--resume"), std::string::npos) << refused.err;
  const Result other = train("cut.gguf", "--resume --seed 2");
  EXPECT_EQ(other.status, 1);
  EXPECT_NE(other.err.find("seed"), std::string::npos) << other.err;
  ASSERT_EQ(train("cut.gguf", "--resume").status, 0);
  EXPECT_TRUE(bytes("cut.gguf") == bytes("whole.gguf"));
}

TEST_F(TrainCommand, TextsThatAreTooShort) {
  const std::string text = folder_ + "/short.txt";
  std::ofstream(text) << "A few words.";
  const Result result = train("a.gguf", "-f " + text);
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.err.find("a document needs 512"), std::string::npos) << result.err;
  EXPECT_NE(train("a.gguf", "-f /no/such/text.txt").err.find("/no/such/text.txt"),
            std::string::npos);
}

}  // namespace
}  // namespace hata::cli
