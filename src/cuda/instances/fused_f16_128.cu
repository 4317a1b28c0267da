#include "fused.cuh"

namespace hata::cuda {

cudaError_t launch_fused_f16_128(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream,
                                 int* active) {
  return launch_fused_of<__half, 128>(p, n_blocks, bytes, stream, active);
}

}  // namespace hata::cuda
