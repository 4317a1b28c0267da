// How the library's kernels are launched: one function a kernel, chosen by the parameters.
#pragma once

#include <cuda_runtime.h>

#include "params.h"

namespace hata::cuda {

struct LaunchOptions {
  int cluster = 1;     ///< blocks of a cluster
  bool early = false;  ///< may start before the kernel before it has ended
  int* active =
      nullptr;  ///< not nullptr: nothing is launched, it gets how many clusters fit at once
};

constexpr int kMostBlocks = 8;  ///< of a cluster

/// Multiprocessors and memory of the current device.
struct Device {
  int multiprocessors;
  int shared_bytes;  ///< of a multiprocessor
  int block_bytes;   ///< that a block can have
  int major;
  int clusters[kMostBlocks + 1];  ///< of so many blocks of the step kernel (kStepWarps), at once
};

/// A kernel may have more shared memory than the default only after it is told so, once a device;
/// to tell it again with less would lower it.
cudaError_t allow(const void* kernel, int shared_bytes);

template <class... Args>
cudaError_t launch_kernel(void (*kernel)(Args...), dim3 grid, int threads, int shared_bytes,
                          const LaunchOptions& options, cudaStream_t stream, Args... args) {
  const auto* address = reinterpret_cast<const void*>(kernel);
  if (const cudaError_t e = allow(address, shared_bytes); e != cudaSuccess) return e;
  cudaLaunchAttribute attributes[2];
  unsigned n = 0;
  if (options.cluster > 1) {
    attributes[n].id = cudaLaunchAttributeClusterDimension;
    attributes[n].val.clusterDim = {static_cast<unsigned>(options.cluster), 1, 1};
    ++n;
  }
  if (options.early) {
    attributes[n].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[n].val.programmaticStreamSerializationAllowed = 1;
    ++n;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = n;
  if (options.active != nullptr) {
    return cudaOccupancyMaxActiveClusters(options.active, kernel, &config);
  }
  return cudaLaunchKernelEx(&config, kernel, args...);
}

// --- one function a kernel, in the files that instantiate them
// ------------------------------------

cudaError_t launch_encode(const EncodeParams& p, cudaStream_t stream);

/// The whole step, for f16 and bf16, 128-bit codes, head_dim 64 or 128 and groups of up to 8.
constexpr bool has_fused(hata_cuda_type type, int head_dim, int rbit, int group) {
  return type != HATA_CUDA_Q8_0 && rbit == 128 && (head_dim == 64 || head_dim == 128) && group <= 8;
}
cudaError_t launch_fused(const StepParams& p, int n_blocks, int shared_bytes, cudaStream_t stream,
                         int* active = nullptr);
/// As far as the chosen cells.
cudaError_t launch_choose(const StepParams& p, int n_blocks, int shared_bytes, cudaStream_t stream);
/// To p.lists, or to all valid cells.
cudaError_t launch_split(const StepParams& p, cudaStream_t stream);

}  // namespace hata::cuda
