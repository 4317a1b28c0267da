// Why an attention node is left to ggml. Each is said once, and counted.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

namespace hata::host {

enum class Reason : uint8_t {
  none,
  // Normal, not said:
  prefill,
  // Said once:
  device,
  no_flash_attention,
  graph_plan,
  no_cache,
  f32_cache,
  cache_type,
  mla,
  computed_mask,
  own_sparsity,
  shape,
  layout,
  written_after,
  computed_rows,
  memory,
  unobserved,
  weights,
  rotation,
  needs,
  cuda,
  cuda_method,
  cuda_inputs,
  cuda_failed,
  count
};

/// "prefill", "cache_type", ... as in the statistics.
std::string_view reason_name(Reason reason);

/// Counts, and the line for the first time.
class Reasons {
 public:
  /// detail() words what was met; it is called the first time alone.
  template <class Detail>
  void add(Reason reason, Detail&& detail) {
    if (counts_[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed) == 0) {
      tell(reason, detail());
    }
  }
  void add(Reason reason) {
    add(reason, [] { return std::string(); });
  }
  int64_t count(Reason reason) const {
    return counts_[static_cast<size_t>(reason)].load(std::memory_order_relaxed);
  }
  void reset();

 private:
  void tell(Reason reason, const std::string& detail);

  std::array<std::atomic<int64_t>, static_cast<size_t>(Reason::count)> counts_{};
  std::array<std::atomic<bool>, static_cast<size_t>(Reason::count)> told_{};
};

}  // namespace hata::host
