#include "fused.cuh"

namespace hata::cuda {

cudaError_t launch_fused_f16_64(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream,
                                int* active) {
  return launch_fused_of<__half, 64>(p, n_blocks, bytes, stream, active);
}

}  // namespace hata::cuda
