// hata train on the bundled model, small: what it writes, that it repeats, and its errors.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "../temp_folder.h"
#include "shell.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

class TrainCommand : public test::TempFolder {
 protected:
  Result train(const std::string& output, const std::string& more = "") {
    return hata("train -c 512 --rows 2 --held-out 1 --steps 2 --queries 4 -o " + file(output) +
                " " + more);
  }
};

TEST_F(TrainCommand, GivesTheSameFileForAnyNumberOfThreads) {
  const Result one = train("a.gguf", "-t 1");
  ASSERT_EQ(one.status, 0) << one.err;
  const Result two = train("b.gguf", "-t 2");
  ASSERT_EQ(two.status, 0) << two.err;
  EXPECT_FALSE(bytes("a.gguf").empty());
  EXPECT_TRUE(bytes("a.gguf") == bytes("b.gguf"));
  EXPECT_FALSE(fs::exists(file("a.gguf.work")));

  const Result info = hata("info --json " + file("a.gguf"));
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
  fs::create_directories(file("cut.gguf"));
  EXPECT_NE(train("cut.gguf").status, 0);
  fs::remove_all(file("cut.gguf"));
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
  const Result result = train("a.gguf", "-f " + put("short.txt", "A few words."));
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.err.find("a document needs 512"), std::string::npos) << result.err;
  EXPECT_NE(train("a.gguf", "-f /no/such/text.txt").err.find("/no/such/text.txt"),
            std::string::npos);
}

// A run of the model beside which weights may lie; blanks in the names are no trouble.
class WeightsCommand : public TrainCommand {
 protected:
  WeightsCommand() {
    fs::create_symlink(HATA_MODEL, file("some model.gguf"));
    std::string text;
    for (int i = 0; i < 30; ++i) text += "the old house by the river had a number of rooms . ";
    put("text.txt", text);
  }

  Result run(const std::string& more) {
    return hata("run -m '" + file("some model.gguf") + "' -f " + file("text.txt") +
                " -c 1024 -n 3 --min-ctx 64 --budget 32 --dense-layers 0 --json " + more);
  }
  static nlohmann::json weights_of(const Result& run) {
    return nlohmann::json::parse(run.out).at("stats").at("weights");
  }

  static constexpr const char* kBeside = "hata-some model-x.gguf";
};

TEST_F(WeightsCommand, AreFoundBesideTheirModel) {
  ASSERT_EQ(train("made.gguf").status, 0);
  fs::rename(file("made.gguf"), file(kBeside));
  const Result found = run("");
  ASSERT_EQ(found.status, 0) << found.err;
  EXPECT_EQ(weights_of(found), nlohmann::json::array({file(kBeside)}));
  const Result off = run("--weights off");
  ASSERT_EQ(off.status, 0) << off.err;
  EXPECT_EQ(weights_of(off), nlohmann::json::array());
  const auto answer = [](const Result& r) { return nlohmann::json::parse(r.out).at("text"); };
  for (const std::string option : {"--weights '", "--method 'hata:weights="}) {
    const Result given = run(option + file(kBeside) + "'");
    ASSERT_EQ(given.status, 0) << given.err;
    EXPECT_EQ(answer(given), answer(found));
  }
}

TEST_F(WeightsCommand, OfAnotherModelAreRefused) {
  ASSERT_EQ(train("made.gguf").status, 0);
  std::string other = bytes("made.gguf");
  const std::string key = "adapter.hata.fingerprint";
  char& digit = other[other.find(key) + key.size() + 4 + 8];  // behind type and length
  digit = digit == '0' ? '1' : '0';
  const std::string cut = bytes("made.gguf").substr(0, 5000);
  const std::pair<std::string, std::string> files[] = {{other, "fingerprint"}, {cut, "truncated"}};
  for (const auto& [content, why] : files) {
    put(kBeside, content);
    const Result found = run("");
    EXPECT_EQ(found.status, 0) << found.err;
    EXPECT_EQ(weights_of(found), nlohmann::json::array());
    EXPECT_NE(found.err.find(kBeside), std::string::npos) << found.err;
    EXPECT_NE(found.err.find(why), std::string::npos) << found.err;
    const Result given = run("--weights '" + file(kBeside) + "'");
    EXPECT_NE(given.status, 0);
    EXPECT_NE(given.err.find(kBeside), std::string::npos) << given.err;
    EXPECT_NE(given.err.find(why), std::string::npos) << given.err;
  }
  EXPECT_NE(run("--weights /no/such.gguf").err.find("/no/such.gguf"), std::string::npos);
}

}  // namespace
}  // namespace hata::cli
