#include "ggml/host_copy.h"

namespace hata::host {

// The bytes that a view spans, gaps included: its strides stay true.
ggml_tensor* HostCopy::copy(const Real& real, const ggml_tensor* tensor, size_t slot) {
  std::vector<std::byte>& bytes = bytes_[slot];
  bytes.resize(real.ggml_nbytes(tensor));
  real.ggml_backend_tensor_get(tensor, bytes.data(), 0, bytes.size());
  tensors_[slot] = *tensor;
  tensors_[slot].data = bytes.data();
  return &tensors_[slot];
}

Step HostCopy::fetch(const Real& real, const Attention& attention) {
  node_ = *attention.node;
  node_.src[kQ] = copy(real, node_.src[kQ], 0);
  node_.src[kK] = copy(real, node_.src[kK], 1);
  node_.src[kV] = copy(real, node_.src[kV], 2);
  if (node_.src[kMask] != nullptr) node_.src[kMask] = copy(real, node_.src[kMask], 3);
  Attention copied = attention;
  copied.node = &node_;
  rows_.resize(static_cast<size_t>(attention.n_rows));
  Step step = copied.step(0, rows_);
  for (Row& row : rows_) row.out = nullptr;
  return step;
}

}  // namespace hata::host
