// An attention node whose tensors lie on a device, as a step that the host can read.
#pragma once

#include <array>
#include <vector>

#include "ggml/node.h"

namespace hata::host {

/// Memory that is used again from node to node.
class HostCopy {
 public:
  /// Queries, keys, values and mask of a node of one stream come to the host; what computes them
  /// must have run. The step is valid until the next call.
  Step fetch(const Real& real, const Attention& attention);

 private:
  ggml_tensor* copy(const Real& real, const ggml_tensor* tensor, size_t slot);

  static constexpr size_t kCopies = 4;
  std::array<std::vector<std::byte>, kCopies> bytes_;
  std::array<ggml_tensor, kCopies> tensors_;
  ggml_tensor node_;
  std::vector<Row> rows_;
};

}  // namespace hata::host
