// The step as far as the chosen cells, for one size of codes; included by the files that
// instantiate it.
#pragma once

#include "../launch.h"
#include "../step.cuh"

namespace hata::cuda {

template <int kWords>
cudaError_t launch_choose_of(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(n_blocks), static_cast<unsigned>(p.n_kv_heads),
                  static_cast<unsigned>(p.n_rows));
  const LaunchOptions options{.cluster = n_blocks, .early = p.early};
  const auto launch = [&](auto kernel) {
    return launch_kernel(kernel, grid, kStepWarps * kWarp, bytes, options, stream, p);
  };
  if (p.squares) {
    switch (n_head_pairs(p.group)) {
      case 1:
        return launch(step_kernel<kStepWarps, __half, 0, 1, SquaresQuery<kWords, 1>>);
      case 2:
        return launch(step_kernel<kStepWarps, __half, 0, 1, SquaresQuery<kWords, 2>>);
      case 4:
        return launch(step_kernel<kStepWarps, __half, 0, 1, SquaresQuery<kWords, 4>>);
      default:
        return launch(step_kernel<kStepWarps, __half, 0, 1, SquaresQuery<kWords, 8>>);
    }
  }
  switch (n_planes(p.group)) {
    case 1:
      return launch(step_kernel<kStepWarps, __half, 0, 1, SumQuery<kWords, 1>>);
    case 2:
      return launch(step_kernel<kStepWarps, __half, 0, 1, SumQuery<kWords, 2>>);
    case 3:
      return launch(step_kernel<kStepWarps, __half, 0, 1, SumQuery<kWords, 3>>);
    default:
      return launch(step_kernel<kStepWarps, __half, 0, 1, SumQuery<kWords, 4>>);
  }
}

}  // namespace hata::cuda
