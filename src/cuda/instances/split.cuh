// The split kernel for one type of cache; included by the files that instantiate it.
#pragma once

#include <type_traits>

#include "../launch.h"
#include "../split.cuh"

namespace hata::cuda {

template <class T, int kDim>
cudaError_t launch_split_of_dim(const StepParams& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(p.n_rows * p.n_kv_heads * p.splits + p.encoders));
  const LaunchOptions options{.cluster = 1, .early = p.early};
  const auto launch = [&](auto kernel) {
    return launch_kernel(kernel, grid, kSplitThreads, kSplitBytes<T, kDim>, options, stream, p);
  };
  if (p.group > 8) return launch(split_kernel<T, kDim, 2, false>);
  constexpr bool kMayBulk = !std::is_same_v<T, Q8>;  // its rows do not start on 16 bytes
  return launch(p.bulk && kMayBulk ? split_kernel<T, kDim, 1, kMayBulk>
                                   : split_kernel<T, kDim, 1, false>);
}

template <class T>
cudaError_t launch_split_of(const StepParams& p, cudaStream_t stream) {
  if constexpr (!std::is_same_v<T, Q8>) {  // whose blocks are of 32
    if (p.head_dim == 80) return launch_split_of_dim<T, 80>(p, stream);
  }
  switch (p.head_dim) {
    case 64:
      return launch_split_of_dim<T, 64>(p, stream);
    case 96:
      return launch_split_of_dim<T, 96>(p, stream);
    case 128:
      return launch_split_of_dim<T, 128>(p, stream);
    default:
      return launch_split_of_dim<T, 256>(p, stream);
  }
}

}  // namespace hata::cuda
