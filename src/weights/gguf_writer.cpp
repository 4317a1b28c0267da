#include "weights/gguf_writer.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/f16.h"
#include "hata/types.h"

namespace hata::weights {
namespace {

constexpr size_t kAlignment = 32;
constexpr uint32_t kUint32 = 4, kFloat32 = 6, kString = 8;  // types of values
constexpr uint32_t kTensorF32 = 0, kTensorF16 = 1;

template <class T>
void append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void append_text(std::string& out, const std::string& text) {
  append(out, static_cast<uint64_t>(text.size()));
  out += text;
}

void pad(std::string& out) { out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment); }

}  // namespace

void GgufWriter::put(const std::string& key, const std::string& value) {
  append_text(metadata_, key);
  append(metadata_, kString);
  append_text(metadata_, value);
  ++n_metadata_;
}

void GgufWriter::put(const std::string& key, uint32_t value) {
  append_text(metadata_, key);
  append(metadata_, kUint32);
  append(metadata_, value);
  ++n_metadata_;
}

void GgufWriter::put(const std::string& key, float value) {
  append_text(metadata_, key);
  append(metadata_, kFloat32);
  append(metadata_, value);
  ++n_metadata_;
}

void GgufWriter::tensor(const std::string& name, const std::vector<uint64_t>& shape, uint32_t type,
                        const std::string& bytes) {
  append_text(tensors_, name);
  append(tensors_, static_cast<uint32_t>(shape.size()));
  for (const uint64_t size : shape) append(tensors_, size);
  append(tensors_, type);
  append(tensors_, static_cast<uint64_t>(data_.size()));
  data_ += bytes;
  pad(data_);
  ++n_tensors_;
}

void GgufWriter::tensor_f32(const std::string& name, std::vector<uint64_t> shape,
                            const std::vector<float>& x) {
  std::string bytes;
  for (const float value : x) append(bytes, value);
  tensor(name, shape, kTensorF32, bytes);
}

void GgufWriter::tensor_f16(const std::string& name, std::vector<uint64_t> shape,
                            const std::vector<float>& x) {
  std::string bytes;
  for (const float value : x) append(bytes, f32_to_f16(value));
  tensor(name, shape, kTensorF16, bytes);
}

void GgufWriter::write(const std::string& path) const {
  std::string head = "GGUF";
  append(head, uint32_t{3});
  append(head, n_tensors_);
  append(head, n_metadata_);
  head += metadata_;
  head += tensors_;
  pad(head);
  const std::string partial = path + ".partial";
  std::ofstream out(partial, std::ios::binary);
  if (!out) throw Error(path + ": cannot be written: " + std::strerror(errno));
  out << head << data_;
  out.close();
  if (!out) {
    const std::string why = std::strerror(errno);
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw Error(path + ": cannot be written: " + why);
  }
  std::filesystem::rename(partial, path);
}

}  // namespace hata::weights
