#include <gtest/gtest.h>

#include <filesystem>

#include "shell.h"

namespace hata::cli {
namespace {

TEST(Exec, StartsTheProgramWithTheHostAndItsOptions) {
  EXPECT_EQ(shell(PROGRAM_DYNAMIC).status, 8) << "without us";
  EXPECT_EQ(hata("exec --budget 99 -- " PROGRAM_DYNAMIC).status, 7);
  EXPECT_EQ(hata("exec --budget 98 -- " PROGRAM_DYNAMIC).status, 8);
}

TEST(Exec, KeepsWhatWasPreloadedBefore) {
  const Result result =
      shell("LD_PRELOAD=/no/such/lib.so '" HATA "' exec -- sh -c 'echo $LD_PRELOAD'");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.out.find("libhata-ggml.so:/no/such/lib.so"), std::string::npos) << result.out;
}

TEST(Exec, PassesArgumentsAndStatusOn) {
  const Result result = hata("exec -- sh -c 'echo \"$1|$2\"; exit 3' name --budget 'a b'");
  EXPECT_EQ(result.out, "--budget|a b\n");
  EXPECT_EQ(result.status, 3);
}

// Our own command is a program on shared ggml too; loaded first and linked is the same.
TEST(Exec, TestsTheGgmlThatAProgramLinks) {
  const std::string run = "run -p 'The grass' -n 4";
  const Result plain = hata(run), under = hata("exec -- '" HATA "' " + run);
  EXPECT_EQ(under.status, 0) << under.err;
  EXPECT_FALSE(plain.out.empty());
  EXPECT_EQ(under.out, plain.out);
}

TEST(Exec, RefusesAPathThatPreloadCannotName) {
  const std::string folder = testing::TempDir() + "hata exec";
  std::filesystem::create_directories(folder);
  std::filesystem::copy(HATA, folder + "/hata", std::filesystem::copy_options::overwrite_existing);
  const Result there = shell("cp \"$(ldd '" HATA "' | awk '/libhata-ggml/ {print $3}')\" '" +
                             folder + "/' && '" + folder + "/hata' exec -- true");
  EXPECT_EQ(there.status, 125) << there.err;
  EXPECT_NE(there.err.find("space or a colon"), std::string::npos) << there.err;
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace hata::cli
