#include "core/huge_pages.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>

namespace hata {
namespace {

constexpr uintptr_t kSmall = 4096;
constexpr uintptr_t kHuge = 2 << 20;

#ifdef MADV_COLLAPSE
constexpr int kCollapse = MADV_COLLAPSE;
#else
constexpr int kCollapse = 25;  // Linux 6.1; older C libraries do not name it
#endif

int advise(uintptr_t begin, uintptr_t end, int advice) {
  if (begin >= end) return 0;
  return madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

void prefer_huge_pages(void* data, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const int error = errno;
  advise((begin + kSmall - 1) / kSmall * kSmall, (begin + bytes) / kSmall * kSmall, MADV_HUGEPAGE);
  errno = error;
}

size_t move_to_huge_pages(void* data, size_t bytes) {
  prefer_huge_pages(data, bytes);
  const int error = errno;
  const uintptr_t end = reinterpret_cast<uintptr_t>(data) + bytes;
  size_t moved = 0;
  for (uintptr_t page = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge;
       page + kHuge <= end; page += kHuge) {
    if (advise(page, page + kHuge, kCollapse) != 0) break;  // the next ones would fail, too
    moved += kHuge;
  }
  errno = error;
  return moved;
}

}  // namespace hata
