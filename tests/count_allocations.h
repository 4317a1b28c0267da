// Replaces operator new of the program that includes this, to count its allocations.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace hata::test {
inline std::atomic<int64_t> g_allocations{0};

inline void* counted(void* p) {
  g_allocations.fetch_add(1);
  return p;
}
}  // namespace hata::test

// All forms: a sanitizer provides those that are missing, and its frees do not match our mallocs.
// Not inlined: GCC would take the free below for one that does not match its own operator new.
#define HATA_NOINLINE __attribute__((noinline))

HATA_NOINLINE void* operator new(size_t size) {
  void* p = hata::test::counted(std::malloc(size));
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
HATA_NOINLINE void* operator new(size_t size, std::align_val_t align) {
  const auto bytes = static_cast<size_t>(align);
  void* p = hata::test::counted(std::aligned_alloc(bytes, (size + bytes - 1) / bytes * bytes));
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
HATA_NOINLINE void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return hata::test::counted(std::malloc(size));
}
HATA_NOINLINE void operator delete(void* p) noexcept { std::free(p); }
HATA_NOINLINE void operator delete(void* p, size_t) noexcept { std::free(p); }
HATA_NOINLINE void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
HATA_NOINLINE void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
HATA_NOINLINE void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }

#undef HATA_NOINLINE
