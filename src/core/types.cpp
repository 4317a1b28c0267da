#include "hata/types.h"

namespace hata {

const char* dtype_name(DType type) { return type == DType::f32 ? "f32" : "f16"; }

void check_shape(const HeadShape& shape) {
  if (shape.head_dim < kMinHeadDim || shape.head_dim > kMaxHeadDim || shape.head_dim % 16 != 0) {
    throw Error("head_dim is " + std::to_string(shape.head_dim) +
                "; supported: multiples of 16 from " + std::to_string(kMinHeadDim) + " to " +
                std::to_string(kMaxHeadDim));
  }
  if (shape.n_kv_heads < 1) {
    throw Error("n_kv_heads is " + std::to_string(shape.n_kv_heads) + "; it must be 1 or more");
  }
  if (shape.n_q_heads < 1 || shape.n_q_heads % shape.n_kv_heads != 0) {
    throw Error("n_q_heads is " + std::to_string(shape.n_q_heads) +
                "; it must be a multiple of n_kv_heads = " + std::to_string(shape.n_kv_heads));
  }
  if (shape.group() > kMaxGroup) {
    throw Error("n_q_heads / n_kv_heads is " + std::to_string(shape.group()) + "; at most " +
                std::to_string(kMaxGroup) + " query heads may share a KV head");
  }
}

}  // namespace hata
