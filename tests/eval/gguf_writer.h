// Writes GGUF headers byte by byte, also wrong ones.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace hata::weights {

struct GgufBytes {
  std::string bytes;

  template <class T>
  GgufBytes& put(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  GgufBytes& text(const std::string& s) {
    put<uint64_t>(s.size());
    bytes += s;
    return *this;
  }
  GgufBytes& header(uint64_t n_tensors, uint64_t n_metadata, uint32_t version = 3) {
    bytes += "GGUF";
    return put(version).put(n_tensors).put(n_metadata);
  }
  GgufBytes& u32(const std::string& key, uint32_t value) {
    return text(key).put<uint32_t>(4).put(value);
  }
  GgufBytes& string(const std::string& key, const std::string& value) {
    return text(key).put<uint32_t>(8).text(value);
  }
  GgufBytes& i32_array(const std::string& key, const std::vector<int32_t>& values) {
    text(key).put<uint32_t>(9).put<uint32_t>(5).put<uint64_t>(values.size());
    for (const int32_t v : values) put(v);
    return *this;
  }
  GgufBytes& tensor(const std::string& name, const std::vector<uint64_t>& shape, uint32_t type,
                    uint64_t offset) {
    text(name).put(static_cast<uint32_t>(shape.size()));
    for (const uint64_t n : shape) put(n);
    return put(type).put(offset);
  }
  GgufBytes& data(size_t n, size_t alignment = 32) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    bytes.append(n, '\7');
    return *this;
  }
};

/// A file that is gone at the end of the test.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& bytes) {
    char name[] = "/tmp/hata_test_XXXXXX";
    close(mkstemp(name));
    path_ = name;
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace hata::weights
