#include "split.cuh"

namespace hata::cuda {

cudaError_t launch_split_f16(const StepParams& p, cudaStream_t stream) {
  return launch_split_of<__half>(p, stream);
}

}  // namespace hata::cuda
