// The header of a GGUF file (metadata and tensor list, versions 2 and 3), read strictly: every
// length is checked against the file before it is used, and an error names the file, the field,
// the value, the byte and the way out.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace hata::weights {

struct GgufArray {
  uint32_t type = 0;  ///< of its elements, as GGUF numbers them
  uint64_t count = 0;
  std::vector<int64_t> integers = {};  ///< the elements, where they are integers or booleans
};

/// Integers of every width, floats, booleans, text, arrays.
using GgufValue = std::variant<int64_t, double, bool, std::string, GgufArray>;

struct GgufTensor {
  std::string name;
  std::vector<uint64_t> shape;         ///< elements, fastest dimension first
  uint32_t type = 0;                   ///< as ggml numbers them
  uint64_t offset = 0;                 ///< from the start of the file
  std::optional<uint64_t> bytes = {};  ///< nothing for types that came after this was written
};

struct GgufFile {
  std::string path;
  uint32_t version = 0;
  uint64_t size = 0;  ///< bytes of the whole file
  std::map<std::string, GgufValue> metadata;
  std::vector<GgufTensor> tensors;

  /// The value of a key; nothing where it is missing or of another type.
  std::optional<int64_t> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  const GgufArray* array(const std::string& key) const;
};

/// Throws Error on a file that is missing, unreadable, truncated or malformed.
GgufFile read_gguf(const std::string& path);

/// The bytes of one of its tensors. Throws Error where the file has changed or cannot be read.
std::string tensor_bytes(const GgufFile& file, const GgufTensor& tensor);

}  // namespace hata::weights
