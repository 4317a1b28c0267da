// The functions that stand in the place of ggml's. Each one marks what the call will write, then
// forwards: at the entry, because a call that fails half-way has written, too.
#include "ggml/gate.h"
#include "ggml/host.h"
#include "ggml/log.h"
#include "ggml/real.h"

#define HATA_CALLER __builtin_return_address(0)
#define HATA_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using hata::host::Caches;
using hata::host::Hook;
using hata::host::Host;
using hata::host::Range;
using hata::host::Real;
using hata::host::real_for;
using hata::host::SelfTest;

void mark_write(Hook hook, const ggml_tensor* tensor, size_t offset, size_t size) {
  if (SelfTest* test = SelfTest::running()) {
    test->fired(hook, static_cast<const char*>(tensor->data) + offset);
    return;
  }
  Caches& caches = Host::get().caches();
  if (caches.empty() || tensor == nullptr || tensor->data == nullptr) return;
  caches.written(Range::of(static_cast<const char*>(tensor->data) + offset, size));
}

void mark_write_2d(Hook hook, const ggml_tensor* tensor, size_t offset, size_t size, size_t n,
                   size_t stride) {
  mark_write(hook, tensor, offset, n > 0 ? (n - 1) * stride + size : 0);
}

void mark_copy(Hook hook, const Real& real, const ggml_tensor* dst) {
  mark_write(hook, dst, 0, dst != nullptr ? real.ggml_nbytes(dst) : 0);
}

// Inputs of a device's graphs are remembered as they go there; what else writes makes us forget.
void see_input(const Real& real, const ggml_tensor* tensor, const void* data, size_t offset,
               size_t size) {
  if (SelfTest::running() != nullptr) return;
  Host::get().device_inputs().written(real, tensor, data, offset, size);
}

void forget_input(const Real& real, const ggml_tensor* tensor) {
  if (SelfTest::running() != nullptr || tensor == nullptr || tensor->data == nullptr) return;
  Host::get().device_inputs().forget(Range::of(tensor->data, real.ggml_nbytes(tensor)));
}

Range bytes_of(const Real& real, ggml_backend_buffer_t buffer) {
  return Range::of(real.ggml_backend_buffer_get_base(buffer),
                   real.ggml_backend_buffer_get_size(buffer));
}

void forget_inputs(const Real& real, ggml_backend_buffer_t buffer) {
  hata::host::DeviceInputs& inputs = Host::get().device_inputs();
  if (!inputs.empty() && buffer != nullptr) inputs.forget(bytes_of(real, buffer));
}

}  // namespace

HATA_EXPORT ggml_status ggml_backend_graph_compute_async(ggml_backend_t backend,
                                                         ggml_cgraph* graph) {
  const Real& real = real_for(HATA_CALLER);
  if (SelfTest* test = SelfTest::running()) return test->compute(backend, graph);
  return Host::get().compute(real, backend, graph);
}

HATA_EXPORT ggml_status ggml_backend_graph_plan_compute(ggml_backend_t backend,
                                                        ggml_backend_graph_plan_t plan) {
  Host::get().plan_compute();
  return real_for(HATA_CALLER).ggml_backend_graph_plan_compute(backend, plan);
}

HATA_EXPORT void ggml_backend_tensor_set(ggml_tensor* tensor, const void* data, size_t offset,
                                         size_t size) {
  const Real& real = real_for(HATA_CALLER);
  mark_write(Hook::ggml_backend_tensor_set, tensor, offset, size);
  see_input(real, tensor, data, offset, size);
  real.ggml_backend_tensor_set(tensor, data, offset, size);
}

HATA_EXPORT void ggml_backend_tensor_set_async(ggml_backend_t backend, ggml_tensor* tensor,
                                               const void* data, size_t offset, size_t size) {
  const Real& real = real_for(HATA_CALLER);
  mark_write(Hook::ggml_backend_tensor_set_async, tensor, offset, size);
  see_input(real, tensor, data, offset, size);
  real.ggml_backend_tensor_set_async(backend, tensor, data, offset, size);
}

HATA_EXPORT void ggml_backend_tensor_set_2d(ggml_tensor* tensor, const void* data, size_t offset,
                                            size_t size, size_t n_copies, size_t stride_tensor,
                                            size_t stride_data) {
  const Real& real = real_for(HATA_CALLER);
  mark_write_2d(Hook::ggml_backend_tensor_set_2d, tensor, offset, size, n_copies, stride_tensor);
  forget_input(real, tensor);
  real.ggml_backend_tensor_set_2d(tensor, data, offset, size, n_copies, stride_tensor, stride_data);
}

HATA_EXPORT void ggml_backend_tensor_set_2d_async(ggml_backend_t backend, ggml_tensor* tensor,
                                                  const void* data, size_t offset, size_t size,
                                                  size_t n_copies, size_t stride_tensor,
                                                  size_t stride_data) {
  const Real& real = real_for(HATA_CALLER);
  mark_write_2d(Hook::ggml_backend_tensor_set_2d_async, tensor, offset, size, n_copies,
                stride_tensor);
  forget_input(real, tensor);
  real.ggml_backend_tensor_set_2d_async(backend, tensor, data, offset, size, n_copies,
                                        stride_tensor, stride_data);
}

HATA_EXPORT void ggml_backend_tensor_memset(ggml_tensor* tensor, uint8_t value, size_t offset,
                                            size_t size) {
  const Real& real = real_for(HATA_CALLER);
  mark_write(Hook::ggml_backend_tensor_memset, tensor, offset, size);
  forget_input(real, tensor);
  real.ggml_backend_tensor_memset(tensor, value, offset, size);
}

HATA_EXPORT void ggml_backend_tensor_copy(const ggml_tensor* src, ggml_tensor* dst) {
  const Real& real = real_for(HATA_CALLER);
  mark_copy(Hook::ggml_backend_tensor_copy, real, dst);
  forget_input(real, dst);
  real.ggml_backend_tensor_copy(src, dst);
}

HATA_EXPORT void ggml_backend_tensor_copy_async(ggml_backend_t backend_src,
                                                ggml_backend_t backend_dst, const ggml_tensor* src,
                                                ggml_tensor* dst) {
  const Real& real = real_for(HATA_CALLER);
  mark_copy(Hook::ggml_backend_tensor_copy_async, real, dst);
  forget_input(real, dst);
  real.ggml_backend_tensor_copy_async(backend_src, backend_dst, src, dst);
}

HATA_EXPORT bool ggml_backend_buffer_copy_tensor(const ggml_tensor* src, ggml_tensor* dst) {
  const Real& real = real_for(HATA_CALLER);
  mark_copy(Hook::ggml_backend_buffer_copy_tensor, real, dst);
  forget_input(real, dst);
  return real.ggml_backend_buffer_copy_tensor(src, dst);
}

HATA_EXPORT void ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
  const Real& real = real_for(HATA_CALLER);
  Caches& caches = Host::get().caches();
  if (!caches.empty() && buffer != nullptr) caches.written(bytes_of(real, buffer));
  forget_inputs(real, buffer);
  real.ggml_backend_buffer_clear(buffer, value);
}

HATA_EXPORT void ggml_backend_buffer_free(ggml_backend_buffer_t buffer) {
  const Real& real = real_for(HATA_CALLER);
  if (SelfTest* test = SelfTest::running()) test->fired(Hook::ggml_backend_buffer_free);
  Caches& caches = Host::get().caches();
  if (!caches.empty() && buffer != nullptr) caches.forget(bytes_of(real, buffer));
  forget_inputs(real, buffer);
  real.ggml_backend_buffer_free(buffer);
}

HATA_EXPORT gguf_context* gguf_init_from_file(const char* path, gguf_init_params params) {
  const Real& real = real_for(HATA_CALLER);
  Host::get().model_opened(path);
  return real.gguf_init_from_file(path, params);
}
