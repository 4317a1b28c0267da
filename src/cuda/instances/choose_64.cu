#include "choose.cuh"

namespace hata::cuda {

cudaError_t launch_choose_64(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream) {
  return launch_choose_of<2>(p, n_blocks, bytes, stream);
}

}  // namespace hata::cuda
