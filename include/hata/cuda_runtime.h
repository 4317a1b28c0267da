// The little of the CUDA runtime that an engine needs around hata/cuda.h: for programs that load
// libhata-cuda while they run and link no CUDA themselves. Streams and events are CUDA's own, and
// work together with those of any other user of the same device.
//
// Every call says by its status whether it worked; hata_cuda_runtime_error() has CUDA's words.
#pragma once

#include "hata/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/// A cudaEvent_t.
typedef struct CUevent_st* hata_cuda_event;

/// Why the last call of this thread failed (host text, never NULL).
const char* hata_cuda_runtime_error(void);

/// The device whose memory this address lies in; -1: none's (host memory, or no address of CUDA's).
int hata_cuda_device_of(const void* address);

/// The thread's calls go to this device until hata_cuda_leave_device(before), which puts back what
/// was current before, whoever else uses CUDA on this thread.
hata_cuda_status hata_cuda_enter_device(int device, void** before);
void hata_cuda_leave_device(void* before);

// Device memory, and host memory that copies run from and to without waiting. To free NULL is
// nothing.
hata_cuda_status hata_cuda_malloc(void** memory, size_t bytes);
hata_cuda_status hata_cuda_free(void* memory);
hata_cuda_status hata_cuda_malloc_host(void** memory, size_t bytes);
hata_cuda_status hata_cuda_free_host(void* memory);

hata_cuda_status hata_cuda_stream_new(hata_cuda_stream* stream);
hata_cuda_status hata_cuda_stream_free(hata_cuda_stream stream);
/// Waits until all that was enqueued has run.
hata_cuda_status hata_cuda_stream_finish(hata_cuda_stream stream);

hata_cuda_status hata_cuda_to_device(void* to, const void* from, size_t bytes,
                                     hata_cuda_stream stream);
hata_cuda_status hata_cuda_to_host(void* to, const void* from, size_t bytes,
                                   hata_cuda_stream stream);
hata_cuda_status hata_cuda_zero(void* memory, size_t bytes, hata_cuda_stream stream);

hata_cuda_status hata_cuda_event_new(hata_cuda_event* event);
hata_cuda_status hata_cuda_event_free(hata_cuda_event event);
hata_cuda_status hata_cuda_event_record(hata_cuda_event event, hata_cuda_stream stream);
/// What is enqueued from now on waits for the event; the caller does not.
hata_cuda_status hata_cuda_event_wait(hata_cuda_event event, hata_cuda_stream stream);
/// The caller waits for it.
hata_cuda_status hata_cuda_event_finish(hata_cuda_event event);
/// 1: it has happened. 0: not yet. -1: this is no event of CUDA's.
int hata_cuda_event_done(hata_cuda_event event);

/// Holds the stream up for so long, for tests of order.
hata_cuda_status hata_cuda_stream_sleep(int milliseconds, hata_cuda_stream stream);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
