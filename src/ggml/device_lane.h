// Our own stream on one CUDA device: what is copied to the device for a graph, and how our work and
// that of ggml's backend wait for one another without the host waiting for either.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "ggml/cuda_library.h"
#include "ggml/device_codes.h"
#include "ggml/real.h"

namespace hata::host {

/// One graph at a time uses it. Calls that return false have failed; cuda_error() says why.
class DeviceLane {
 public:
  /// Throws std::bad_alloc.
  DeviceLane(const Real& real, const CudaLibrary& cuda, ggml_backend_dev_t dev, int device);
  ~DeviceLane();
  DeviceLane(const DeviceLane&) = delete;
  DeviceLane& operator=(const DeviceLane&) = delete;

  ggml_backend_dev_t dev() const { return dev_; }
  int device() const { return device_; }
  hata_cuda_stream stream() const { return stream_; }

  // --- a graph ------------------------------------------------------------------------------
  /// Memory of earlier uploads is free again; waits where the device has yet to read it.
  bool begin_graph();
  void end_graph();
  /// Enqueues a copy of these bytes, which may change at once. nullptr: failed. The copy lasts as
  /// long as the graph.
  const void* upload(const void* bytes, size_t n);
  /// The library's workspace for steps of so many rows times KV heads: it keeps counters in it
  /// whose number they give. nullptr: no memory.
  const DeviceMemory* workspace(int64_t pairs, size_t bytes);

  // --- order --------------------------------------------------------------------------------
  /// What we enqueue from now on waits for what the backend has been given.
  bool follow(ggml_backend_t backend);
  /// What the backend is given from now on waits for what we have enqueued.
  bool lead(ggml_backend_t backend);
  /// Waits for all of ours.
  bool finish() { return cuda_.hata_cuda_stream_finish(stream_) == HATA_CUDA_OK; }

  /// Whether events do it (else the host waits, twice a layer); known after the first follow().
  bool by_events() const { return tested_ && !events_failed_; }

 private:
  /// Pinned host memory and its copy on the device.
  struct Chunk {
    void* host = nullptr;
    DeviceMemory device;
    size_t used = 0;
  };
  struct Slot {
    std::vector<Chunk> chunks;
    hata_cuda_event read = nullptr;  ///< the device has read all of them
    bool in_use = false;
  };
  Chunk* room_for(size_t bytes);
  void test_events(ggml_backend_t backend);
  static hata_cuda_event cuda_event(ggml_backend_event_t event);

  static constexpr size_t kSlots = 3;  // graphs on their way

  const Real& real_;
  const CudaLibrary& cuda_;
  ggml_backend_dev_t dev_;
  int device_;
  hata_cuda_stream stream_ = nullptr;
  Slot slots_[kSlots];
  size_t slot_ = 0;
  std::map<int64_t, DeviceMemory> workspaces_;  // by pairs
  ggml_backend_event_t ggmls_ = nullptr, ours_ = nullptr;
  bool tested_ = false, events_failed_ = false;
};

}  // namespace hata::host
