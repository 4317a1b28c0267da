// Which instruction set is used: HATA_SIMD, force_simd, and what they say about wrong names.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "hata/simd.h"
#include "hata/types.h"

namespace hata {
namespace {

/// What simd_level() gives or throws in a fresh process under HATA_SIMD=value, as the exit status
/// and stderr of a death test.
[[noreturn]] void report_level(const char* value) {
  if (value != nullptr) {
    setenv("HATA_SIMD", value, 1);
  } else {
    unsetenv("HATA_SIMD");
  }
  try {
    fprintf(stderr, "level %s\n", simd_name(simd_level()));
  } catch (const Error& error) {
    fprintf(stderr, "%s\n", error.what());
    std::_Exit(1);
  }
  std::_Exit(0);
}

std::string levels() {
  std::string list;
  for (const SimdLevel level : available_simd()) {
    list += std::string(list.empty() ? "" : ", ") + simd_name(level);
  }
  return list;
}

TEST(SimdDeathTest, EnvironmentNamesTheLevel) {
  for (const SimdLevel level : available_simd()) {
    EXPECT_EXIT(report_level(simd_name(level)), testing::ExitedWithCode(0),
                std::string("level ") + simd_name(level));
  }
}

TEST(SimdDeathTest, BestLevelWithoutEnvironment) {
  const std::string expected = std::string("level ") + simd_name(available_simd().back());
  EXPECT_EXIT(report_level(nullptr), testing::ExitedWithCode(0), expected);
  EXPECT_EXIT(report_level(""), testing::ExitedWithCode(0), expected);
}

TEST(SimdDeathTest, UnknownLevelListsTheAvailableOnes) {
  EXPECT_EXIT(report_level("sse9"), testing::ExitedWithCode(1),
              "HATA_SIMD is 'sse9'; available here: " + levels());
  EXPECT_EXIT(report_level("AVX2 "), testing::ExitedWithCode(1), "HATA_SIMD is 'AVX2 '");
}

TEST(Simd, ForceChangesTheLevel) {
  for (const SimdLevel level : available_simd()) {
    force_simd(level);
    EXPECT_EQ(simd_level(), level);
  }
}

TEST(Simd, ForcingAnUnavailableLevelIsAnError) {
  const std::vector<SimdLevel> available = available_simd();
  EXPECT_EQ(available.front(), SimdLevel::scalar);
  for (const SimdLevel level : {SimdLevel::avx2, SimdLevel::avx512vpopcnt}) {
    if (std::find(available.begin(), available.end(), level) != available.end()) continue;
    EXPECT_THROW(force_simd(level), Error);
  }
}

}  // namespace
}  // namespace hata
