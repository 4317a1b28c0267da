// What llama.cpp hands to a device with a graph, and the host has to know: which cells a row's mask
// leaves valid, and which cells of a cache are written. Seen on its way to the device, so that
// nothing needs to be read back.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "ggml/caches.h"
#include "ggml/real.h"

namespace hata::host {

/// An f16 mask [n_kv, rows, 1, streams], read.
struct MaskBits {
  MaskBits(const uint16_t* mask, int64_t n_kv, int64_t n_rows);

  int64_t n_words() const { return (n_kv + 63) / 64; }
  const uint64_t* row(int64_t r) const { return valid.data() + r * n_words(); }

  int64_t n_kv;
  int64_t n_rows;                ///< of all streams
  std::vector<uint64_t> valid;   ///< [row][n_words] bit per cell
  std::vector<int64_t> n_valid;  ///< [row]
  bool has_values = false;       ///< other than 0 and -inf
};

/// The last of them; any thread.
class DeviceInputs {
 public:
  /// Cheap, for the many calls of programs without a device.
  bool empty() const { return empty_.load(std::memory_order_relaxed); }

  /// Before the tensor, in a device's memory, gets these bytes.
  void written(const Real& real, const ggml_tensor* tensor, const void* data, size_t offset,
               size_t size);
  /// It changes in a way that is not seen, or goes.
  void forget(const Range& range);

  /// Of a tensor in host memory, or one that was seen; nullptr: it was not.
  std::shared_ptr<const MaskBits> mask(const Real& real, const ggml_tensor* tensor) const;
  /// The numbers of an I64 or I32 vector. False: it was not seen.
  bool numbers(const Real& real, const ggml_tensor* tensor, std::vector<int64_t>& out) const;

 private:
  struct Seen {
    Range range;
    std::shared_ptr<const MaskBits> mask;
    std::vector<int64_t> numbers;
  };
  const Seen* find(const void* data, size_t size) const;
  void forget_in(const Range& range);

  static constexpr size_t kMost = 64;        // a graph has a few inputs on each device
  static constexpr int64_t kMostRows = 256;  // a batch with more is a prefill
  static constexpr int64_t kMostNumbers = 1 << 17;

  mutable std::mutex mutex_;
  std::atomic<bool> empty_{true};
  std::vector<Seen> seen_;  ///< the oldest first
};

}  // namespace hata::host
