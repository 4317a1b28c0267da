#include "split.cuh"

namespace hata::cuda {

cudaError_t launch_split_q8_0(const StepParams& p, cudaStream_t stream) {
  switch (p.head_dim) {
    case 64:
      return launch_split_of_dim<Q8, 64>(p, stream);
    case 96:
      return launch_split_of_dim<Q8, 96>(p, stream);
    case 128:
      return launch_split_of_dim<Q8, 128>(p, stream);
    default:
      return launch_split_of_dim<Q8, 256>(p, stream);
  }
}

}  // namespace hata::cuda
