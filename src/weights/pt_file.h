// The tensors of a file that torch.save wrote (PyTorch 1.6 or later): a zip file of one pickle,
// */data.pkl, which describes them, and their elements, */data/KEY. Nothing in it is run.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace hata::weights {

struct PtTensor {
  /// The dict keys and list indices that lead to it, joined by dots; empty: it is all there is.
  std::string name;
  std::vector<int64_t> shape;
  std::string dtype;          ///< of the file: "f64", "f32", "f16" or "bf16"
  std::vector<float> values;  ///< the elements, last dimension fastest
};

/// Throws Error naming the file, the place in it, the value and the way out.
std::vector<PtTensor> read_pt(const std::string& path);

/// Of a pickle alone. read(key, size) gives the bytes of a storage, which must be `size`.
/// `name` begins every error.
using ReadStorage = std::function<std::string(const std::string& key, uint64_t size)>;
std::vector<PtTensor> pt_tensors(std::string_view pickle, const ReadStorage& read,
                                 const std::string& name);

}  // namespace hata::weights
