#include "eval/states.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "../temp_folder.h"
#include "eval/host.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

namespace fs = std::filesystem;

class StatesTest : public test::TempFolder {
 protected:
  static void SetUpTestSuite() { configure_host("method=ggml"); }
  void SetUp() override {
    tokens_ = LlamaTokenizer(model_.vocab()).encode("The grass is green, and the sky is blue.");
  }

  Session session() const { return Session(model_, {.n_ctx = 256, .threads = 1}); }

  const Model model_{HATA_MODEL};
  std::vector<Token> tokens_;
};

TEST_F(StatesTest, AStateIsWhatWasRead) {
  const States states(file("new"), 1 << 30, 1);
  Session a = session(), b = session();
  EXPECT_FALSE(states.load(b, tokens_));
  a.prefill(tokens_);
  const int64_t bytes = states.save(a, tokens_);
  EXPECT_GT(bytes, 8 * 1024 * static_cast<int64_t>(tokens_.size())) << "8 KB a token";
  EXPECT_EQ(states.bytes(), bytes);
  ASSERT_TRUE(states.load(b, tokens_));
  EXPECT_EQ(b.size(), a.size());
  EXPECT_EQ(b.decode(5), a.decode(5));
}

TEST_F(StatesTest, OfOtherTokensOrAnotherModelIsAnother) {
  const States states(folder_, 1 << 30, 1);
  Session a = session(), b = session();
  a.prefill(tokens_);
  states.save(a, tokens_);
  EXPECT_FALSE(States(folder_, 1 << 30, 2).load(b, tokens_));
  auto others = tokens_;
  others.back() += 1;
  EXPECT_FALSE(states.load(b, others));
  EXPECT_EQ(b.size(), 0);
}

TEST_F(StatesTest, TheLeastRecentlyUsedGoesFirst) {
  Session a = session();
  a.prefill(tokens_);
  const int64_t bytes = States(folder_, 1 << 30, 1).save(a, tokens_);
  const States states(folder_, 2 * bytes + bytes / 2, 1);
  std::vector<std::vector<Token>> documents(3, tokens_);
  for (int i = 1; i < 3; ++i) {
    documents[i].back() = 10 + i;
    Session s = session();
    s.prefill(documents[i]);
    if (i == 2) {
      Session used = session();
      EXPECT_TRUE(states.load(used, documents[0]));
    }
    EXPECT_EQ(states.save(s, documents[i]), bytes);
  }
  EXPECT_EQ(states.bytes(), 2 * bytes);
  Session b = session(), c = session();
  EXPECT_TRUE(states.load(b, documents[0])) << "was used last";
  EXPECT_FALSE(states.load(c, documents[1]));
  EXPECT_EQ(States(folder_, bytes / 2, 1).save(a, tokens_), 0) << "larger than all that may be";
}

TEST_F(StatesTest, ADamagedStateIsReadAgain) {
  const States states(folder_, 1 << 30, 1);
  Session a = session(), b = session();
  a.prefill(tokens_);
  states.save(a, tokens_);
  const fs::path path = *fs::directory_iterator(folder_);
  fs::resize_file(path, fs::file_size(path) - 1);
  EXPECT_FALSE(states.load(b, tokens_));
  fs::resize_file(path, 3);
  EXPECT_FALSE(states.load(b, tokens_));
}

TEST_F(StatesTest, AFolderThatCannotBeWritten) {
  EXPECT_THROW(States("/proc/no/such", 1, 1), Error);
  EXPECT_EQ(States("", 1, 1).save(session(), tokens_), 0) << "no folder, no states";
  const States states(file("gone"), 1 << 30, 1);
  fs::remove_all(file("gone"));
  EXPECT_EQ(states.save(session(), tokens_), 0) << "it says so by keeping nothing";
}

using FileFingerprint = test::TempFolder;

TEST_F(FileFingerprint, TellsFilesApart) {
  const uint64_t one = file_fingerprint(put("a", std::string(1 << 20, 'a')));
  EXPECT_EQ(file_fingerprint(file("a")), one);
  EXPECT_NE(file_fingerprint(put("a", std::string((1 << 20) + 1, 'a'))), one);
}

}  // namespace
}  // namespace hata::eval
