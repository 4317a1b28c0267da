// Writes small GGUF files (version 3): metadata of a few types, tensors in f32 and f16.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hata::weights {

class GgufWriter {
 public:
  void put(const std::string& key, const std::string& value);
  void put(const std::string& key, uint32_t value);
  void put(const std::string& key, float value);
  void put(const std::string& key, const std::vector<int32_t>& values);

  /// shape: elements, fastest dimension first.
  void tensor_f32(const std::string& name, const std::vector<uint64_t>& shape,
                  const std::vector<float>& x);
  void tensor_f16(const std::string& name, const std::vector<uint64_t>& shape,
                  const std::vector<float>& x);

  /// The file is whole, or as it was. Throws Error.
  void write(const std::string& path) const;

 private:
  void tensor(const std::string& name, const std::vector<uint64_t>& shape, uint32_t type,
              const std::string& bytes);

  uint64_t n_metadata_ = 0, n_tensors_ = 0;
  std::string metadata_, tensors_, data_;
};

}  // namespace hata::weights
