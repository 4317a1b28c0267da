#include "split.cuh"

namespace hata::cuda {

cudaError_t launch_split_bf16(const StepParams& p, cudaStream_t stream) {
  return launch_split_of<__nv_bfloat16>(p, stream);
}

}  // namespace hata::cuda
