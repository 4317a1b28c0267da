#include "ggml/device_lane.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "ggml/log.h"

namespace hata::host {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
constexpr size_t kAlign = 256;
constexpr int kSleepMs = 30;  // of the test of events

// To see what waiting by events is worth, or to do without.
bool events_are_off() {
  const char* value = std::getenv("HATA_CUDA_EVENTS");
  return value != nullptr && std::strcmp(value, "off") == 0;
}

}  // namespace

DeviceLane::DeviceLane(const Real& real, const CudaLibrary& cuda, ggml_backend_dev_t dev,
                       int device)
    : real_(real), cuda_(cuda), dev_(dev), device_(device) {
  const OnCudaDevice on(cuda, device);
  bool made = cuda.hata_cuda_stream_new(&stream_) == HATA_CUDA_OK;
  for (Slot& slot : slots_) {
    made = made && cuda.hata_cuda_event_new(&slot.read) == HATA_CUDA_OK;
  }
  if (!made) throw std::bad_alloc();
}

DeviceLane::~DeviceLane() {
  const OnCudaDevice on(cuda_, device_);
  cuda_.hata_cuda_stream_finish(stream_);
  for (Slot& slot : slots_) {
    for (Chunk& chunk : slot.chunks) cuda_.hata_cuda_free_host(chunk.host);
    if (slot.read != nullptr) cuda_.hata_cuda_event_free(slot.read);
  }
  if (stream_ != nullptr) cuda_.hata_cuda_stream_free(stream_);
  if (ggmls_ != nullptr) real_.ggml_backend_event_free(ggmls_);
  if (ours_ != nullptr) real_.ggml_backend_event_free(ours_);
}

bool DeviceLane::begin_graph() {
  slot_ = (slot_ + 1) % kSlots;
  Slot& slot = slots_[slot_];
  if (slot.in_use && cuda_.hata_cuda_event_finish(slot.read) != HATA_CUDA_OK) return false;
  for (Chunk& chunk : slot.chunks) chunk.used = 0;
  slot.in_use = true;
  return true;
}

void DeviceLane::end_graph() { cuda_.hata_cuda_event_record(slots_[slot_].read, stream_); }

DeviceLane::Chunk* DeviceLane::room_for(size_t bytes) {
  std::vector<Chunk>& chunks = slots_[slot_].chunks;
  for (Chunk& chunk : chunks) {
    if (chunk.device.bytes() - chunk.used >= bytes) return &chunk;
  }
  Chunk chunk;
  const size_t size = std::max(kChunk, bytes);
  try {
    chunk.device = DeviceMemory(cuda_, device_, size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  if (cuda_.hata_cuda_malloc_host(&chunk.host, size) != HATA_CUDA_OK) return nullptr;
  chunks.push_back(std::move(chunk));
  return &chunks.back();
}

const void* DeviceLane::upload(const void* bytes, size_t n) {
  Chunk* chunk = room_for(n);
  if (chunk == nullptr) return nullptr;
  auto* host = static_cast<std::byte*>(chunk->host) + chunk->used;
  auto* device = chunk->device.as<std::byte>() + chunk->used;
  std::memcpy(host, bytes, n);
  chunk->used += std::min((n + kAlign - 1) / kAlign * kAlign, chunk->device.bytes() - chunk->used);
  return cuda_.hata_cuda_to_device(device, host, n, stream_) == HATA_CUDA_OK ? device : nullptr;
}

const DeviceMemory* DeviceLane::workspace(int64_t pairs, size_t bytes) {
  DeviceMemory& memory = workspaces_[pairs];
  if (memory.bytes() >= bytes) return &memory;
  try {
    memory = DeviceMemory();
    memory = DeviceMemory(cuda_, device_, bytes + bytes / 2);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  const bool zero =
      cuda_.hata_cuda_zero(memory.as<void>(), memory.bytes(), stream_) == HATA_CUDA_OK;
  return zero ? &memory : nullptr;
}

// --- order ------------------------------------------------------------------------------------

// An event of ggml's is {device, the backend's own event}; test_events() proves it.
hata_cuda_event DeviceLane::cuda_event(ggml_backend_event_t event) {
  void* words[2];
  std::memcpy(words, event, sizeof(words));
  return static_cast<hata_cuda_event>(words[1]);
}

// Our stream sleeps; the backend is told to wait for it and records an event behind that. Where the
// two events are CUDA's and the waits hold, the second one happens after the sleep and not before.
void DeviceLane::test_events(ggml_backend_t backend) {
  using Clock = std::chrono::steady_clock;
  tested_ = true;
  events_failed_ = true;
  if (events_are_off()) return;
  ggmls_ = real_.ggml_backend_event_new(dev_);
  ours_ = real_.ggml_backend_event_new(dev_);
  if (ggmls_ == nullptr || ours_ == nullptr) return;
  for (ggml_backend_event_t event : {ggmls_, ours_}) {
    void* first;
    std::memcpy(&first, event, sizeof(first));
    if (first != dev_ || cuda_.hata_cuda_event_done(cuda_event(event)) != 1) return;
  }
  real_.ggml_backend_synchronize(backend);
  const auto start = Clock::now();
  const bool enqueued = cuda_.hata_cuda_stream_sleep(kSleepMs, stream_) == HATA_CUDA_OK &&
                        cuda_.hata_cuda_event_record(cuda_event(ours_), stream_) == HATA_CUDA_OK;
  if (!enqueued) return;
  real_.ggml_backend_event_wait(backend, ours_);
  real_.ggml_backend_event_record(ggmls_, backend);
  const bool pending = cuda_.hata_cuda_event_done(cuda_event(ggmls_)) == 0;
  const bool waited = cuda_.hata_cuda_event_finish(cuda_event(ggmls_)) == HATA_CUDA_OK &&
                      Clock::now() - start > std::chrono::milliseconds(kSleepMs / 2);
  events_failed_ = !(pending && waited);
}

bool DeviceLane::follow(ggml_backend_t backend) {
  if (!tested_) {
    test_events(backend);
    if (events_failed_ && !cuda_.stands_in) {
      note("events of this ggml's CUDA backend are not usable; the host waits in every layer");
    }
  }
  if (events_failed_) {
    real_.ggml_backend_synchronize(backend);
    return true;
  }
  real_.ggml_backend_event_record(ggmls_, backend);
  return cuda_.hata_cuda_event_wait(cuda_event(ggmls_), stream_) == HATA_CUDA_OK;
}

bool DeviceLane::lead(ggml_backend_t backend) {
  if (events_failed_) return finish();
  if (cuda_.hata_cuda_event_record(cuda_event(ours_), stream_) != HATA_CUDA_OK) return false;
  real_.ggml_backend_event_wait(backend, ours_);
  return true;
}

}  // namespace hata::host
