// include/hata/cuda_runtime.h
#include <cuda.h>
#include <cuda_runtime.h>

#include <chrono>
#include <cstdint>
#include <thread>

#include "hata/cuda_runtime.h"

namespace {

thread_local cudaError_t last_error = cudaSuccess;

// An error stays the runtime's own last one, too, until it is asked for: later launches would find
// it.
hata_cuda_status result(cudaError_t error) {
  if (error == cudaSuccess) return HATA_CUDA_OK;
  last_error = error;
  (void)cudaGetLastError();
  return error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? HATA_CUDA_NO_DEVICE
                                                                            : HATA_CUDA_FAILED;
}

void sleep_of(void* milliseconds) {
  std::this_thread::sleep_for(
      std::chrono::milliseconds(reinterpret_cast<std::intptr_t>(milliseconds)));
}

/// A function of the driver, which the runtime has loaded: nothing is linked for it.
template <class Fn>
Fn* driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found);
  if (result(error) != HATA_CUDA_OK || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<Fn*>(function);
}

CUcontext current_context() {
  static const auto current = driver_function<CUresult(CUcontext*)>("cuCtxGetCurrent");
  CUcontext context = nullptr;
  if (current != nullptr) current(&context);
  return context;
}

/// The context that the runtime uses for the device, as this thread has seen it.
CUcontext& known_context(int device) {
  constexpr int kMost = 64;
  thread_local CUcontext known[kMost + 1] = {};
  return known[device >= 0 && device < kMost ? device : kMost];
}

}  // namespace

const char* hata_cuda_runtime_error(void) { return cudaGetErrorString(last_error); }

int hata_cuda_device_of(const void* address) {
  cudaPointerAttributes attributes{};
  if (result(cudaPointerGetAttributes(&attributes, address)) != HATA_CUDA_OK) return -1;
  return attributes.type == cudaMemoryTypeDevice ? attributes.device : -1;
}

// The context and not the runtime's device number: another copy of the runtime on this thread may
// have set it. Mostly it is the right one already; to set it again would cost a microsecond.
hata_cuda_status hata_cuda_enter_device(int device, void** before) {
  const CUcontext context = current_context();
  *before = context;
  int now = -1;
  if (context != nullptr && context == known_context(device) &&
      cudaGetDevice(&now) == cudaSuccess && now == device) {
    return HATA_CUDA_OK;
  }
  const hata_cuda_status status = result(cudaSetDevice(device));
  if (status == HATA_CUDA_OK) known_context(device) = current_context();
  return status;
}

void hata_cuda_leave_device(void* before) {
  static const auto set_current = driver_function<CUresult(CUcontext)>("cuCtxSetCurrent");
  if (current_context() == before || set_current == nullptr) return;
  set_current(static_cast<CUcontext>(before));
}

hata_cuda_status hata_cuda_malloc(void** memory, size_t bytes) {
  return result(cudaMalloc(memory, bytes));
}
hata_cuda_status hata_cuda_free(void* memory) { return result(cudaFree(memory)); }
hata_cuda_status hata_cuda_malloc_host(void** memory, size_t bytes) {
  return result(cudaMallocHost(memory, bytes));
}
hata_cuda_status hata_cuda_free_host(void* memory) { return result(cudaFreeHost(memory)); }

hata_cuda_status hata_cuda_stream_new(hata_cuda_stream* stream) {
  return result(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
}
hata_cuda_status hata_cuda_stream_free(hata_cuda_stream stream) {
  return result(cudaStreamDestroy(stream));
}
hata_cuda_status hata_cuda_stream_finish(hata_cuda_stream stream) {
  return result(cudaStreamSynchronize(stream));
}

hata_cuda_status hata_cuda_to_device(void* to, const void* from, size_t bytes,
                                     hata_cuda_stream stream) {
  return result(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
}
hata_cuda_status hata_cuda_to_host(void* to, const void* from, size_t bytes,
                                   hata_cuda_stream stream) {
  return result(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
}
hata_cuda_status hata_cuda_zero(void* memory, size_t bytes, hata_cuda_stream stream) {
  return result(cudaMemsetAsync(memory, 0, bytes, stream));
}

hata_cuda_status hata_cuda_event_new(hata_cuda_event* event) {
  return result(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
}
hata_cuda_status hata_cuda_event_free(hata_cuda_event event) {
  return result(cudaEventDestroy(event));
}
hata_cuda_status hata_cuda_event_record(hata_cuda_event event, hata_cuda_stream stream) {
  return result(cudaEventRecord(event, stream));
}
hata_cuda_status hata_cuda_event_wait(hata_cuda_event event, hata_cuda_stream stream) {
  return result(cudaStreamWaitEvent(stream, event, 0));
}
hata_cuda_status hata_cuda_event_finish(hata_cuda_event event) {
  return result(cudaEventSynchronize(event));
}
int hata_cuda_event_done(hata_cuda_event event) {
  const cudaError_t now = cudaEventQuery(event);
  if (now == cudaSuccess) return 1;
  (void)cudaGetLastError();
  return now == cudaErrorNotReady ? 0 : -1;
}

hata_cuda_status hata_cuda_stream_sleep(int milliseconds, hata_cuda_stream stream) {
  return result(cudaLaunchHostFunc(
      stream, sleep_of, reinterpret_cast<void*>(static_cast<std::intptr_t>(milliseconds))));
}
