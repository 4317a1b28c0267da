#include "core/huge_pages.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <numeric>
#include <vector>

namespace hata {
namespace {

TEST(HugePages, ContentsStay) {
  std::vector<uint32_t> numbers(5 << 20);  // 20 MiB, not aligned to a page
  std::iota(numbers.begin(), numbers.end(), 7u);
  const size_t bytes = numbers.size() * sizeof(uint32_t) - 12;
  errno = EXDEV;
  const size_t moved = move_to_huge_pages(numbers.data() + 3, bytes);
  EXPECT_EQ(errno, EXDEV) << "the host's errno is its own";
  EXPECT_LE(moved, bytes);
  EXPECT_EQ(moved % (2 << 20), 0u);
  if (moved == 0) std::puts("this kernel gave no huge pages");
  for (uint32_t i = 0; i < numbers.size(); ++i) ASSERT_EQ(numbers[i], i + 7);
}

TEST(HugePages, MemoryThatHoldsNoneIsLeft) {
  std::vector<char> few(3 << 20);
  EXPECT_LE(move_to_huge_pages(few.data() + 1, few.size() - 1), 2u << 20);
  EXPECT_EQ(move_to_huge_pages(few.data(), 0), 0u);
  EXPECT_EQ(move_to_huge_pages(nullptr, 0), 0u);
}

}  // namespace
}  // namespace hata
