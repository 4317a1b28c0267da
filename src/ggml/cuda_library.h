// libhata-cuda, loaded when a CUDA device's cache is first seen: this library links no CUDA.
#pragma once

#include <string>

#include "hata/cuda.h"
#include "hata/cuda_runtime.h"

// clang-format off
#define HATA_CUDA_FUNCTIONS(X)   \
  X(hata_cuda_error)             \
  X(hata_cuda_available)         \
  X(hata_cuda_encode_keys)       \
  X(hata_cuda_workspace_size)    \
  X(hata_cuda_decode)            \
  X(hata_cuda_runtime_error)     \
  X(hata_cuda_device_of)         \
  X(hata_cuda_enter_device)      \
  X(hata_cuda_leave_device)      \
  X(hata_cuda_malloc)            \
  X(hata_cuda_free)              \
  X(hata_cuda_malloc_host)       \
  X(hata_cuda_free_host)         \
  X(hata_cuda_stream_new)        \
  X(hata_cuda_stream_free)       \
  X(hata_cuda_stream_finish)     \
  X(hata_cuda_to_device)         \
  X(hata_cuda_to_host)           \
  X(hata_cuda_zero)              \
  X(hata_cuda_event_new)         \
  X(hata_cuda_event_free)        \
  X(hata_cuda_event_record)      \
  X(hata_cuda_event_wait)        \
  X(hata_cuda_event_finish)      \
  X(hata_cuda_event_done)        \
  X(hata_cuda_stream_sleep)
// clang-format on

namespace hata::host {

struct CudaLibrary {
#define HATA_DECLARE(name) decltype(&::name) name = nullptr;
  HATA_CUDA_FUNCTIONS(HATA_DECLARE)
#undef HATA_DECLARE
  /// A test's stand-in: its devices' memory is the host's, and the CPU's nodes go to it.
  bool stands_in = false;

  /// HATA_CUDA_LIB, or libhata-cuda.so beside this library; found at the first call, never
  /// unloaded. nullptr: it could not be had, and `why` says why.
  static const CudaLibrary* get(std::string& why);
  /// Whether HATA_CUDA_LIB names a stand-in. Cheap where it is not set.
  static bool stand_in();
};

/// The thread's CUDA calls go to one device while it lives.
class OnCudaDevice {
 public:
  OnCudaDevice(const CudaLibrary& cuda, int device) : cuda_(cuda) {
    cuda_.hata_cuda_enter_device(device, &before_);
  }
  ~OnCudaDevice() { cuda_.hata_cuda_leave_device(before_); }
  OnCudaDevice(const OnCudaDevice&) = delete;
  OnCudaDevice& operator=(const OnCudaDevice&) = delete;

 private:
  const CudaLibrary& cuda_;
  void* before_ = nullptr;
};

}  // namespace hata::host
