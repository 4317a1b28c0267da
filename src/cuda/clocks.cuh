// Where a step's time goes. Built with HATA_CUDA_CLOCKS, the step kernel stamps the end of each of
// its parts, as the first thread of a block sees it; hata-bench-cuda --clocks prints them.
// Otherwise nothing of this is in the kernels.
#pragma once

#include "params.h"

namespace hata::cuda {

__device__ __forceinline__ void stamp([[maybe_unused]] const StepParams& p,
                                      [[maybe_unused]] Part part) {
#ifdef HATA_CUDA_CLOCKS
  if (threadIdx.x == 0 && p.clocks != nullptr) {
    const int64_t block =
        (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    p.clocks[block * kParts + static_cast<int>(part)] = clock64();
  }
#endif
}

}  // namespace hata::cuda
