#include "split.cuh"

namespace hata::cuda {

cudaError_t launch_split_q8_0(const StepParams& p, cudaStream_t stream) {
  return launch_split_of<Q8>(p, stream);
}

}  // namespace hata::cuda
