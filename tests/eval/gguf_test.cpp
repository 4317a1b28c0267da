#include "weights/gguf.h"

#include <gtest/gtest.h>

#include <random>

#include "gguf_writer.h"
#include "hata/types.h"

namespace hata::weights {
namespace {

// The error of reading these bytes; empty where they can be read.
std::string error_of(const std::string& bytes) {
  const TemporaryFile file(bytes);
  try {
    (void)read_gguf(file.path());
    return "";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.rfind(file.path(), 0), 0u) << text;
    return text.substr(file.path().size());
  }
}

void expect_error(const GgufBytes& file, const std::vector<std::string>& parts) {
  const std::string text = error_of(file.bytes);
  for (const auto& part : parts) EXPECT_NE(text.find(part), std::string::npos) << text;
}

GgufBytes good_file() {
  return GgufBytes{}
      .header(2, 5)
      .string("general.architecture", "llama")
      .u32("llama.block_count", 7)
      .i32_array("numbers", {1, -2, 3})
      .text("pi")
      .put<uint32_t>(6)
      .put(3.25f)
      .text("words")
      .put<uint32_t>(9)
      .put<uint32_t>(8)
      .put<uint64_t>(2)
      .text("a")
      .text("bc")
      .tensor("first", {32, 3}, 8, 0)
      .tensor("second", {5}, 0, 128)
      .data(128 + 20);
}

TEST(Gguf, ReadsWhatWasWritten) {
  const TemporaryFile file(good_file().bytes);
  const GgufFile gguf = read_gguf(file.path());
  EXPECT_EQ(gguf.version, 3u);
  EXPECT_EQ(gguf.text("general.architecture"), "llama");
  EXPECT_EQ(gguf.integer("llama.block_count"), 7);
  EXPECT_EQ(gguf.number("pi"), 3.25);
  EXPECT_EQ(gguf.array("numbers")->integers, (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(gguf.array("words")->count, 2u);
  ASSERT_EQ(gguf.tensors.size(), 2u);
  EXPECT_EQ(gguf.tensors[0].shape, (std::vector<uint64_t>{32, 3}));
  EXPECT_EQ(gguf.tensors[0].bytes, 3u * 34);
  EXPECT_EQ(gguf.tensors[1].offset, gguf.tensors[0].offset + 128);
  EXPECT_EQ(gguf.tensors[1].offset + 20, gguf.size);
  EXPECT_FALSE(gguf.integer("pi"));
  EXPECT_FALSE(gguf.text("missing"));
}

TEST(Gguf, ReadsTheBundledModel) {
  const GgufFile gguf = read_gguf(HATA_MODEL);
  EXPECT_EQ(gguf.integer("llama.block_count"), 8);
  EXPECT_GT(gguf.tensors.size(), 70u);
}

TEST(Gguf, NamesWhatIsWrong) {
  expect_error({}, {"magic at byte 0", "needs 4 bytes", "truncated"});
  expect_error({"GGU"}, {"magic", "truncated"});
  expect_error({"PK\3\4 and so on"}, {"magic", "not a GGUF file"});
  expect_error(GgufBytes{}.header(0, 0, 1), {"version at byte 4: 1", "2 and 3"});
  expect_error(GgufBytes{}.header(0, 0, 3u << 24), {"version", "big-endian"});
  expect_error(GgufBytes{}.header(uint64_t{1} << 63, 0), {"tensor count at byte 8"});
  expect_error(GgufBytes{}.header(0, ~uint64_t{0}), {"metadata count at byte 16"});
  const auto one = [] { return GgufBytes{}.header(0, 1); };
  expect_error(one().put(~uint64_t{0}).data(64), {"metadata key (length)", "18446744073709551615"});
  expect_error(one().text("key").put<uint32_t>(13).data(64), {"'key' (type) at byte 35: 13"});
  expect_error(one().text("key").put<uint32_t>(8).put(uint64_t{1} << 40).data(64),
               {"'key' (length)", "1099511627776"});
  expect_error(one().text("key").put<uint32_t>(9).put<uint32_t>(9).data(64), {"array of arrays"});
  expect_error(one().text("key").put<uint32_t>(9).put<uint32_t>(4).put(uint64_t{1} << 62).data(64),
               {"'key' (count)", "4611686018427387904"});
  expect_error(one().text("").put<uint32_t>(4).data(64), {"key", "empty"});
  expect_error(GgufBytes{}.header(0, 2).u32("key", 1).u32("key", 1), {"'key'", "twice"});
  expect_error(GgufBytes{}.header(0, 1).u32("general.alignment", 48).data(64), {"alignment", "48"});
}

TEST(Gguf, NamesTheWrongTensor) {
  const auto one = [](const std::vector<uint64_t>& shape, uint32_t type, uint64_t offset) {
    return GgufBytes{}.header(1, 0).tensor("t", shape, type, offset).data(256);
  };
  EXPECT_EQ(error_of(one({64}, 0, 0).bytes), "");
  EXPECT_EQ(error_of(one({64}, 0xdead, 0).bytes), "") << "types of the future are let through";
  expect_error(one({64}, 0, 32), {"'t'", "needs 256 bytes from 32", "has 256", "truncated"});
  expect_error(one({64}, 0, ~uint64_t{31}), {"'t'", "truncated"});
  expect_error(one({64}, 0, 8), {"'t' (offset)", "8", "alignment 32"});
  expect_error(one({0}, 0, 0), {"'t' (shape)", "zero"});
  expect_error(one({uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0), {"'t' (shape)"});
  expect_error(one({uint64_t{1} << 62}, 28, 0), {"'t' (shape)", "too many"});
  expect_error(one({33}, 8, 0), {"'t' (shape)", "33", "block of 32"});
  expect_error(one({1, 1, 1, 1, 1}, 0, 0), {"'t' (dimensions)", "5"});
  expect_error(GgufBytes{}.header(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 0).data(64),
               {"'t'", "twice"});
  expect_error(GgufBytes{}.header(1, 0).tensor(std::string(64, 'x'), {1}, 0, 0).data(64),
               {"tensor name (length)", "64"});
}

TEST(Gguf, NamesTheFile) {
  for (const char* path : {"/no/such/file.gguf", "/tmp"}) {
    try {
      (void)read_gguf(path);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).rfind(path, 0), 0u) << error.what();
    }
  }
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string bytes = good_file().bytes;
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_NE(error_of(bytes.substr(0, n)), "") << n;
}

// Damaged files are read or refused; nothing else happens (under the sanitizers: truly nothing).
TEST(Gguf, SurvivesDamage) {
  const std::string bytes = good_file().bytes;
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = bytes;
    for (int flips = 0; flips < 1 + i % 4; ++flips) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    refused += error_of(damaged).empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace hata::weights
