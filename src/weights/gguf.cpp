#include "weights/gguf.h"

#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <unordered_set>

#include "hata/types.h"

namespace hata::weights {
namespace {

constexpr uint64_t kMaxKey = 65535;
constexpr uint64_t kMaxTensorName = 63;  // ggml's GGML_MAX_NAME, less the final zero
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxKeptArray = 1 << 16;
constexpr uint64_t kDefaultAlignment = 32;

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
  kValueTypes
};

// Bytes of a value of fixed size; 0 for text and arrays.
uint64_t value_size(uint32_t type) {
  constexpr uint64_t kSizes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kSizes[type];
}

// Elements and bytes of a block of a tensor type (ggml.h, enum ggml_type).
struct TensorType {
  uint32_t id;
  uint64_t block;
  uint64_t bytes;
};
constexpr TensorType kTensorTypes[] = {
    {0, 1, 4},      {1, 1, 2},      {2, 32, 18},   {3, 32, 20},    {6, 32, 22},    {7, 32, 24},
    {8, 32, 34},    {9, 32, 36},    {10, 256, 84}, {11, 256, 110}, {12, 256, 144}, {13, 256, 176},
    {14, 256, 210}, {15, 256, 292}, {16, 256, 66}, {17, 256, 74},  {18, 256, 98},  {19, 256, 50},
    {20, 32, 18},   {21, 256, 110}, {22, 256, 82}, {23, 256, 136}, {24, 1, 1},     {25, 1, 2},
    {26, 1, 4},     {27, 1, 8},     {28, 1, 8},    {29, 256, 56},  {30, 1, 2},     {34, 256, 54},
    {35, 256, 66},  {39, 32, 17}};

const TensorType* find_type(uint32_t id) {
  for (const TensorType& type : kTensorTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

class Reader {
 public:
  explicit Reader(const std::string& path) {
    file_.path = path;
    struct stat status;
    if (stat(path.c_str(), &status) != 0) throw Error(path + ": " + std::strerror(errno));
    if (S_ISDIR(status.st_mode)) throw Error(path + ": is a directory; give a GGUF file");
    in_.open(path, std::ios::binary);
    if (!in_) throw Error(path + ": cannot open it: " + std::strerror(errno));
    file_.size = static_cast<uint64_t>(status.st_size);
  }

  GgufFile read() {
    read_header();
    for (uint64_t i = 0; i < n_metadata_; ++i) read_pair();
    for (uint64_t i = 0; i < n_tensors_; ++i) read_tensor();
    place_tensors();
    return std::move(file_);
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& value,
                         const std::string& why) const {
    throw Error(file_.path + ": " + field + " at byte " + std::to_string(at_) + ": " + value +
                ": " + why);
  }

  void need(uint64_t bytes, const std::string& field) const {
    if (bytes > file_.size - at_) {
      fail(field, "needs " + std::to_string(bytes) + " bytes",
           "the file ends after " + std::to_string(file_.size - at_) +
               " more; it is truncated: fetch it again");
    }
  }

  template <class T>
  T fixed(const std::string& field) {
    static_assert(std::endian::native == std::endian::little, "GGUF is little-endian");
    need(sizeof(T), field);
    T value;
    in_.read(reinterpret_cast<char*>(&value), sizeof(T));
    if (!in_) fail(field, "cannot be read", std::strerror(errno));
    at_ += sizeof(T);
    return value;
  }

  std::string string(const std::string& field, uint64_t max_length) {
    const uint64_t start = at_;
    const auto length = fixed<uint64_t>(field + " (length)");
    if (length > max_length || length > file_.size - at_) {
      at_ = start;
      fail(field + " (length)", std::to_string(length),
           "more than the file or the format allows; the file is damaged or truncated");
    }
    std::string text(length, '\0');
    in_.read(text.data(), static_cast<std::streamsize>(length));
    if (!in_) fail(field, "cannot be read", std::strerror(errno));
    at_ += length;
    return text;
  }

  void skip(uint64_t bytes, const std::string& field) {
    need(bytes, field);
    in_.seekg(static_cast<std::streamoff>(bytes), std::ios::cur);
    at_ += bytes;
  }

  void read_header() {
    char magic[4];
    need(sizeof(magic), "magic");
    in_.read(magic, sizeof(magic));
    if (std::memcmp(magic, "GGUF", sizeof(magic)) != 0) {
      fail("magic", "is not 'GGUF'", "not a GGUF file; convert the model to GGUF first");
    }
    at_ = sizeof(magic);
    const uint64_t version_at = at_;
    file_.version = fixed<uint32_t>("version");
    if (file_.version != 2 && file_.version != 3) {
      at_ = version_at;
      const bool swapped = (file_.version & 0xffff) == 0 && file_.version != 0;
      fail("version", std::to_string(file_.version),
           swapped ? "a big-endian file; convert it for this machine" : "2 and 3 can be read");
    }
    n_tensors_ = count("tensor count", 8 + 1 + 4 + 8 + 4 + 8);
    n_metadata_ = count("metadata count", 8 + 1 + 4 + 1);
  }

  // A count of things that take at least `min_bytes` each.
  uint64_t count(const std::string& field, uint64_t min_bytes) {
    const uint64_t start = at_;
    const auto n = fixed<uint64_t>(field);
    if (n > (file_.size - at_) / min_bytes) {
      at_ = start;
      fail(field, std::to_string(n),
           "more than the file can hold; it is damaged or truncated: fetch it again");
    }
    return n;
  }

  uint32_t value_type(const std::string& field) {
    const uint64_t start = at_;
    const auto type = fixed<uint32_t>(field + " (type)");
    if (type >= kValueTypes) {
      at_ = start;
      fail(field + " (type)", std::to_string(type), "unknown; 0 to 12 are defined");
    }
    return type;
  }

  void read_pair() {
    const std::string key = string("metadata key", kMaxKey);
    const std::string field = "metadata '" + key + "'";
    if (key.empty()) fail("metadata key", "is empty", "the file is damaged");
    const uint32_t type = value_type(field);
    if (!file_.metadata.emplace(key, read_value(type, field)).second) {
      fail(field, "occurs twice", "the file is damaged");
    }
  }

  GgufValue read_value(uint32_t type, const std::string& field) {
    switch (type) {
      case kFloat32:
        return static_cast<double>(fixed<float>(field));
      case kFloat64:
        return fixed<double>(field);
      case kBool:
        return fixed<uint8_t>(field) != 0;
      case kString:
        return string(field, file_.size);
      case kArray:
        return read_array(field);
      default:
        return read_integer(type, field);
    }
  }

  int64_t read_integer(uint32_t type, const std::string& field) {
    switch (type) {
      case kUint8:
      case kBool:
        return fixed<uint8_t>(field);
      case kInt8:
        return fixed<int8_t>(field);
      case kUint16:
        return fixed<uint16_t>(field);
      case kInt16:
        return fixed<int16_t>(field);
      case kUint32:
        return fixed<uint32_t>(field);
      case kInt32:
        return fixed<int32_t>(field);
      default:
        return fixed<int64_t>(field);
    }
  }

  GgufArray read_array(const std::string& field) {
    GgufArray array;
    array.type = value_type(field);
    if (array.type == kArray) fail(field, "an array of arrays", "such files cannot be read");
    const uint64_t size = value_size(array.type);
    array.count = count(field + " (count)", size > 0 ? size : sizeof(uint64_t));
    if (array.type == kString) {
      for (uint64_t i = 0; i < array.count; ++i) skip(fixed<uint64_t>(field), field);
    } else if (array.type == kFloat32 || array.type == kFloat64 || array.count > kMaxKeptArray) {
      skip(array.count * size, field);
    } else {
      for (uint64_t i = 0; i < array.count; ++i) {
        array.integers.push_back(read_integer(array.type, field));
      }
    }
    return array;
  }

  void read_tensor() {
    GgufTensor tensor;
    tensor.name = string("tensor name", kMaxTensorName);
    const std::string field = "tensor '" + tensor.name + "'";
    if (!names_.insert(tensor.name).second) fail(field, "occurs twice", "the file is damaged");
    const auto n_dims = fixed<uint32_t>(field + " (dimensions)");
    if (n_dims > kMaxDims) {
      fail(field + " (dimensions)", std::to_string(n_dims), "at most 4 are allowed");
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < n_dims; ++i) {
      const auto size = fixed<uint64_t>(field + " (shape)");
      if (size == 0 || size > static_cast<uint64_t>(INT64_MAX) / elements) {
        fail(field + " (shape)", std::to_string(size),
             "zero, or more elements than can be counted");
      }
      elements *= size;
      tensor.shape.push_back(size);
    }
    tensor.type = fixed<uint32_t>(field + " (type)");
    tensor.offset = fixed<uint64_t>(field + " (offset)");
    if (const TensorType* type = find_type(tensor.type)) {
      const uint64_t row = tensor.shape.empty() ? 1 : tensor.shape[0];
      if (row % type->block != 0) {
        fail(field + " (shape)", std::to_string(row),
             "not a multiple of its type's block of " + std::to_string(type->block));
      }
      if (elements / type->block > static_cast<uint64_t>(INT64_MAX) / type->bytes) {
        fail(field + " (shape)", std::to_string(elements) + " elements", "too many");
      }
      tensor.bytes = elements / type->block * type->bytes;
    }
    file_.tensors.push_back(std::move(tensor));
  }

  void place_tensors() {
    const auto alignment =
        static_cast<uint64_t>(file_.integer("general.alignment").value_or(kDefaultAlignment));
    if (!std::has_single_bit(alignment) || alignment > (1u << 20)) {
      fail("metadata 'general.alignment'", std::to_string(alignment), "not a power of two");
    }
    const uint64_t data = (at_ + alignment - 1) / alignment * alignment;
    for (GgufTensor& tensor : file_.tensors) {
      const std::string field = "tensor '" + tensor.name + "'";
      if (tensor.offset % alignment != 0) {
        fail(field + " (offset)", std::to_string(tensor.offset),
             "not a multiple of the alignment " + std::to_string(alignment));
      }
      const uint64_t space = file_.size > data ? file_.size - data : 0;
      const uint64_t bytes = tensor.bytes.value_or(0);
      if (tensor.offset > space || bytes > space - tensor.offset) {
        at_ = data;
        fail(field,
             "needs " + std::to_string(bytes) + " bytes from " + std::to_string(tensor.offset) +
                 " of the data on",
             "the data has " + std::to_string(space) + "; the file is truncated: fetch it again");
      }
      tensor.offset += data;
    }
  }

  GgufFile file_;
  std::ifstream in_;
  uint64_t at_ = 0;
  uint64_t n_tensors_ = 0, n_metadata_ = 0;
  std::unordered_set<std::string> names_;
};

template <class T>
const T* find(const GgufFile& file, const std::string& key) {
  const auto found = file.metadata.find(key);
  return found == file.metadata.end() ? nullptr : std::get_if<T>(&found->second);
}

template <class T>
std::optional<T> copy_of(const T* value) {
  return value == nullptr ? std::nullopt : std::optional<T>(*value);
}

}  // namespace

std::optional<int64_t> GgufFile::integer(const std::string& key) const {
  return copy_of(find<int64_t>(*this, key));
}
std::optional<double> GgufFile::number(const std::string& key) const {
  return copy_of(find<double>(*this, key));
}
std::optional<std::string> GgufFile::text(const std::string& key) const {
  return copy_of(find<std::string>(*this, key));
}
const GgufArray* GgufFile::array(const std::string& key) const {
  return find<GgufArray>(*this, key);
}

GgufFile read_gguf(const std::string& path) { return Reader(path).read(); }

std::string tensor_bytes(const GgufFile& file, const GgufTensor& tensor) {
  std::string bytes(tensor.bytes.value_or(0), '\0');
  std::ifstream in(file.path, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(tensor.offset));
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!in) throw Error(file.path + ": tensor '" + tensor.name + "': cannot be read");
  return bytes;
}

}  // namespace hata::weights
