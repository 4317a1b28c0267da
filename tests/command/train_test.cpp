// hata train on the bundled model, small: what it writes, that it repeats, and its errors.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "../temp_folder.h"
#include "hata/selector.h"
#include "shell.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

class TrainCommand : public test::TempFolder {
 protected:
  Result train(const std::string& output, const std::string& more = "") {
    return hata(command(output) + " " + more);
  }
  // Small; no search for layers that should be dense, unless it is asked for.
  std::string command(const std::string& output, const char* max_kl = "1000") {
    return std::string("train -c 512 --rows 2 --held-out 1 --steps 2 --queries 4 --max-kl ") +
           max_kl + " -o " + file(output);
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
  // A layer has the window with the smallest error, if that is clearly smaller than the usual
  // one's.
  const auto shares = json.value("recent_share", nlohmann::json::object());
  for (const auto& [layer, quality] : json.at("quality").at("layers").items()) {
    const auto errors = quality.at("output_error").get<std::map<std::string, double>>();
    ASSERT_EQ(errors.size(), 3u);
    const auto best =
        std::min_element(errors.begin(), errors.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    const double gain = errors.at("-1") - best->second;
    if (std::abs(gain - 0.01) < 0.0002) continue;  // they are rounded
    EXPECT_EQ(shares.contains(layer), gain >= 0.01) << layer << " " << quality;
    if (shares.contains(layer)) {
      EXPECT_EQ(Recent{.share = shares.at(layer)}.text(), best->first) << layer;
    }
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

// Killed wherever it may be: while it reads, trains or checks.
TEST_F(TrainCommand, GoesOnAfterAKill) {
  ASSERT_EQ(train("whole.gguf").status, 0);
  for (const char* seconds : {"0.6", "1.2", "2"}) {
    fs::remove_all(file("killed.gguf.work"));
    fs::remove(file("killed.gguf"));
    shell("timeout -s KILL " + std::string(seconds) + " " + program() + " " +
          command("killed.gguf"));
    if (!fs::exists(file("killed.gguf"))) {
      const Result resumed = train("killed.gguf", "--resume");
      ASSERT_EQ(resumed.status, 0) << resumed.err;
    }
    EXPECT_TRUE(bytes("killed.gguf") == bytes("whole.gguf")) << seconds;
  }
}

TEST_F(TrainCommand, KeepsItsSamplesForOtherRuns) {
  const std::string samples = " --samples " + file("rows");
  ASSERT_EQ(train("a.gguf").status, 0);
  ASSERT_EQ(train("b.gguf", samples).status, 0);
  EXPECT_TRUE(bytes("a.gguf") == bytes("b.gguf"));
  const Result again = train("c.gguf", samples + " --separate-queries --centre --rbit 64");
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(again.err.find("read 3 documents"), std::string::npos) << again.err;
  const auto info = nlohmann::json::parse(hata("info --json " + file("c.gguf")).out).at(0);
  EXPECT_EQ(info.at("rbit"), 64);
  EXPECT_EQ(info.at("kept_mass").at("layers").size(), 8u);
  // Measured, they keep all that they have.
  ASSERT_EQ(train("e.gguf", samples + " --codes " + file("c.gguf")).status, 0);
  for (const char* tensor : {"attn_hash_q.weight", "attn_hash_k.mean"}) {
    EXPECT_NE(bytes("c.gguf").find(tensor), std::string::npos) << tensor;
    EXPECT_NE(bytes("e.gguf").find(tensor), std::string::npos) << tensor;
  }
  const Result other = train("d.gguf", samples + " --seed 2");
  EXPECT_EQ(other.status, 1);
  EXPECT_NE(other.err.find("seed"), std::string::npos) << other.err;
}

TEST_F(TrainCommand, MeasuresCodesThatAreThere) {
  ASSERT_EQ(train("a.gguf").status, 0);
  const Result measured = train("b.gguf", "--codes " + file("a.gguf"));
  ASSERT_EQ(measured.status, 0) << measured.err;
  ASSERT_EQ(train("paper.gguf", "--objective paper").status, 0);
  const Result compared =
      train("c.gguf", "--codes " + file("a.gguf") + " --compare " + file("paper.gguf"));
  ASSERT_EQ(compared.status, 0) << compared.err;
  const auto info = [&](const char* name) {
    return nlohmann::json::parse(hata("info --json " + file(name)).out).at(0);
  };
  const auto a = info("a.gguf"), b = info("b.gguf"), c = info("c.gguf");
  for (const char* key : {"steps", "first_loss", "last_loss", "objective", "dense_layers"}) {
    EXPECT_EQ(a.at(key), b.at(key)) << key;
  }
  const auto& kept = c.at("quality").at("kept_mass");
  for (const char* codes : {"learned", "random", "exact", "paper"}) {
    EXPECT_GT(kept.at(codes).at("64").get<double>(), 0.0) << codes;
  }
  EXPECT_EQ(kept.at("learned"), a.at("quality").at("kept_mass").at("learned"));
  const Result other = train("d.gguf", "--codes /no/such.gguf");
  EXPECT_EQ(other.status, 1);
  EXPECT_NE(other.err.find("/no/such.gguf"), std::string::npos) << other.err;
}

TEST_F(TrainCommand, LayersAndNeedsAreInTheFile) {
  ASSERT_EQ(train("all.gguf").status, 0);
  const auto all = nlohmann::json::parse(hata("info --json " + file("all.gguf")).out).at(0);
  EXPECT_EQ(all.at("dense_layers").size(), 0u);
  EXPECT_EQ(all.at("quality").at("kl").at("alone").size(), 8u);
  // 8 of 512 keys cost something; where nothing may be lost, layers become dense.
  ASSERT_EQ(hata(command("none.gguf", "0")).status, 0);
  const auto none = nlohmann::json::parse(hata("info --json " + file("none.gguf")).out).at(0);
  EXPECT_GT(none.at("dense_layers").size(), 0u);
  const auto& kl = none.at("quality").at("kl");
  EXPECT_LE(kl.at("chosen").get<double>(), kl.at("all_sparse").get<double>());
  const std::string text = hata("info " + file("none.gguf")).out;
  EXPECT_NE(text.find("--dense-layers auto: "), std::string::npos) << text;
  EXPECT_NE(text.find("keys that keep 0.99"), std::string::npos) << text;
}

TEST_F(TrainCommand, MemoryThatIsTooLittle) {
  const Result result = train("a.gguf", "--memory 0.1");
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.err.find("--memory 0.1"), std::string::npos) << result.err;
  EXPECT_FALSE(fs::exists(file("a.gguf.work")));
}

TEST_F(TrainCommand, TextsThatAreTooShort) {
  EXPECT_NE(train("a.gguf", "-f " + put("empty.txt", "")).err.find("a document needs 512"),
            std::string::npos);
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
