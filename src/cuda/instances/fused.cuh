// The fused step for one type of cache; included by the files that instantiate it.
#pragma once

#include "../launch.h"
#include "../step.cuh"

namespace hata::cuda {

template <int kWarps, class T, int kDim>
cudaError_t launch_fused_by(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream,
                            int* active) {
  const dim3 grid(static_cast<unsigned>(n_blocks), static_cast<unsigned>(p.n_kv_heads),
                  static_cast<unsigned>(p.n_rows));
  const LaunchOptions options{.cluster = n_blocks, .early = p.early, .active = active};
  const auto launch = [&](auto kernel) {
    return launch_kernel(kernel, grid, kWarps * kWarp, bytes, options, stream, p);
  };
  if (p.squares) {
    switch (n_head_pairs(p.group)) {
      case 1:
        return launch(step_kernel<kWarps, T, kDim, 1, SquaresQuery<4, 1>>);
      case 2:
        return launch(step_kernel<kWarps, T, kDim, 1, SquaresQuery<4, 2>>);
      default:
        return launch(step_kernel<kWarps, T, kDim, 1, SquaresQuery<4, 4>>);
    }
  }
  switch (n_planes(p.group)) {
    case 1:
      return launch(step_kernel<kWarps, T, kDim, 1, SumQuery<4, 1>>);
    case 2:
      return launch(step_kernel<kWarps, T, kDim, 1, SumQuery<4, 2>>);
    default:
      return launch(step_kernel<kWarps, T, kDim, 1, SumQuery<4, 3>>);
  }
}

template <class T, int kDim>
cudaError_t launch_fused_of(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream,
                            int* active) {
  return p.n_warps == kHalfWarps
             ? launch_fused_by<kHalfWarps, T, kDim>(p, n_blocks, bytes, stream, active)
             : launch_fused_by<kStepWarps, T, kDim>(p, n_blocks, bytes, stream, active);
}

}  // namespace hata::cuda
