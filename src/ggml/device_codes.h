// The codes and lengths of one layer's keys, in the memory of the CUDA device where the keys lie.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ggml/cuda_library.h"
#include "ggml/rotation.h"
#include "hata/selector.h"
#include "index/key_coder.h"

namespace hata::host {

/// Memory of a device.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  /// Throws std::bad_alloc.
  DeviceMemory(const CudaLibrary& cuda, int device, size_t bytes);
  ~DeviceMemory() { reset(); }
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void reset();
  void swap(DeviceMemory& other);

  const CudaLibrary* cuda_ = nullptr;
  int device_ = 0;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// As hata_cuda_codes lays them out, with a sequence for each stream of the cache.
class DeviceCodes final : public KeyStore {
 public:
  /// stream_cells: cells of a stream, a multiple of 64. Throws std::bad_alloc, and Error where the
  /// device refuses a copy.
  DeviceCodes(const CudaLibrary& cuda, int device, const KeyCoder& coder, bool lengths,
              int64_t n_cells, int64_t stream_cells);

  int device() const { return device_; }
  int64_t stream_cells() const { return stream_cells_; }
  int rbit() const { return coder_.weights().projection.rbit; }
  hata_cuda_codes codes() const;
  hata_cuda_projection projection() const;

  /// The mean lengths are not known yet.
  bool to_measure() const { return lengths_.bytes() > 0 && coder_.measures() && !measured_; }
  /// Measures them on these keys, `n` copies of rows one after the other, in ascending order of
  /// their cells. False: more keys may be needed, if there are any (`all`: there are none).
  bool measure(const CacheView& keys, int32_t n, bool all);
  /// Enqueues the copy of what was measured.
  bool upload_units(hata_cuda_stream stream) const;

  // --- KeyStore: what the host asks for -----------------------------------------------------
  size_t bytes() const override;
  /// Encoding is enqueued by the step itself.
  void update(const CacheView&, const CacheView&, std::span<const int32_t>,
              const Worker&) override {}
  /// Of a cell that fetch() has brought here; `keys` are in host memory.
  bool matches(const CacheView& keys, int64_t cell) const override;
  /// Copies what is kept of the first n cells of a stream, and waits for it.
  bool fetch(int64_t sequence, int64_t n, hata_cuda_stream stream);

 private:
  DeviceMemory upload(std::span<const float> values) const;

  const CudaLibrary& cuda_;
  int device_;
  KeyCoder coder_;
  bool measured_ = false;
  int64_t stream_cells_;
  int64_t capacity_;  ///< of a stream
  DeviceMemory codes_, lengths_;
  DeviceMemory keys_, queries_, units_, means_;  ///< the projection

  int64_t fetched_first_ = 0;  ///< cell
  int64_t fetched_cells_ = 0;  ///< per head
  std::vector<uint64_t> fetched_codes_;
  std::vector<uint8_t> fetched_lengths_;
};

/// The method as it is on a CUDA device: its stores are DeviceCodes there (nullptr where the device
/// has no memory for them, or the method keeps no codes). Queries and keys come rotated.
std::shared_ptr<const Selector> on_cuda(std::shared_ptr<const Selector> method,
                                        const CudaLibrary& cuda, int device, int64_t stream_cells,
                                        Rotation rotation);

}  // namespace hata::host
