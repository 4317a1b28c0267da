// The fused step for one type of cache; included by the files that instantiate it.
#pragma once

#include "../launch.h"
#include "../step.cuh"

namespace hata::cuda {

template <class T, int kDim>
cudaError_t launch_fused_of(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream,
                            int* active) {
  const dim3 grid(static_cast<unsigned>(n_blocks), static_cast<unsigned>(p.n_kv_heads),
                  static_cast<unsigned>(p.n_rows));
  const LaunchOptions options{.cluster = n_blocks, .early = p.early, .active = active};
  const auto launch = [&](auto kernel) {
    return launch_kernel(kernel, grid, kStepThreads, bytes, options, stream, p);
  };
  switch (n_planes(p.group)) {
    case 1:
      return launch(step_kernel<T, kDim, 1, 4, 1>);
    case 2:
      return launch(step_kernel<T, kDim, 1, 4, 2>);
    default:
      return launch(step_kernel<T, kDim, 1, 4, 3>);
  }
}

}  // namespace hata::cuda
