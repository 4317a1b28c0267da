#include "program.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/files.h"
#include "hata/types.h"

namespace hata::cli {
namespace {

TEST(Program, KindsAreToldApart) {
  const Program dynamic = inspect_program(PROGRAM_DYNAMIC);
  EXPECT_EQ(dynamic.kind, Program::Kind::dynamic);
  EXPECT_TRUE(std::filesystem::exists(dynamic.interpreter)) << dynamic.interpreter;
  EXPECT_FALSE(dynamic.has_own_ggml);
  EXPECT_FALSE(dynamic.privileged);
  EXPECT_EQ(inspect_program(PROGRAM_STATIC).kind, Program::Kind::fixed);
  EXPECT_TRUE(inspect_program(PROGRAM_OWN_GGML).has_own_ggml);
  EXPECT_FALSE(inspect_program(HATA).has_own_ggml) << "it links ggml, it does not hold it";
}

TEST(Program, DamagedFilesAreErrorsOrUnknown) {
  const std::string bytes = read_file(PROGRAM_DYNAMIC);
  const std::string path = testing::TempDir() + "hata_damaged_program";
  int refused = 0;
  for (size_t n = 0; n < bytes.size(); n += bytes.size() / 40 + 1) {
    std::ofstream(path, std::ios::binary) << bytes.substr(0, n);
    try {
      EXPECT_FALSE(inspect_program(path).has_own_ggml);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 5);
  for (size_t at = 0; at < 64; ++at) {  // every byte of the header, wrong
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xff);
    std::ofstream(path, std::ios::binary) << damaged;
    try {
      (void)inspect_program(path);
    } catch (const Error&) {
    }
  }
  std::filesystem::remove(path);
}

TEST(Program, IsFoundOnThePath) {
  EXPECT_EQ(find_program(PROGRAM_DYNAMIC), PROGRAM_DYNAMIC);
  EXPECT_EQ(find_program("no-such-program"), "");
  EXPECT_EQ(find_program("/no/such/program"), "");
  const std::filesystem::path path(PROGRAM_DYNAMIC);
  const std::string before = std::getenv("PATH");
  setenv("PATH", ("/no/such/folder:" + path.parent_path().string()).c_str(), 1);
  EXPECT_EQ(find_program(path.filename()), PROGRAM_DYNAMIC);
  setenv("PATH", before.c_str(), 1);
}

}  // namespace
}  // namespace hata::cli
