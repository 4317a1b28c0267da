// How methods size their memory and divide their work.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace hata {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Memory only grows: a step of a size seen before allocates nothing.
template <class T>
void grow(std::vector<T>& memory, size_t size) {
  if (memory.size() < size) memory.resize(size);
}

/// Into how many parts a cache is cut for each KV head. Four items a thread keep threads busy that
/// are slowed down; what is chosen must not depend on it.
inline int64_t parts_per_head(int n_threads, int n_heads, int64_t most) {
  const int64_t wanted = n_threads == 1 ? 1 : ceil_div(int64_t{4} * n_threads, n_heads);
  return std::clamp<int64_t>(wanted, 1, most);
}

}  // namespace hata
