#include "weights/gguf_writer.h"

#include "core/f16.h"
#include "core/files.h"

namespace hata::weights {
namespace {

constexpr size_t kAlignment = 32;
constexpr uint32_t kUint32 = 4, kInt32 = 5, kFloat32 = 6, kString = 8, kArray = 9;  // of values
constexpr uint32_t kTensorF32 = 0, kTensorF16 = 1;

void append_text(std::string& out, const std::string& text) {
  out += bytes_of(static_cast<uint64_t>(text.size()));
  out += text;
}

void pad(std::string& out) { out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment); }

}  // namespace

void GgufWriter::put(const std::string& key, const std::string& value) {
  append_text(metadata_, key);
  metadata_ += bytes_of(kString);
  append_text(metadata_, value);
  ++n_metadata_;
}

void GgufWriter::put(const std::string& key, uint32_t value) {
  append_text(metadata_, key);
  metadata_ += bytes_of(kUint32);
  metadata_ += bytes_of(value);
  ++n_metadata_;
}

void GgufWriter::put(const std::string& key, float value) {
  append_text(metadata_, key);
  metadata_ += bytes_of(kFloat32);
  metadata_ += bytes_of(value);
  ++n_metadata_;
}

void GgufWriter::put(const std::string& key, const std::vector<int32_t>& values) {
  append_text(metadata_, key);
  metadata_ += bytes_of(kArray);
  metadata_ += bytes_of(kInt32);
  metadata_ += bytes_of(static_cast<uint64_t>(values.size()));
  metadata_ += bytes_of(values);
  ++n_metadata_;
}

void GgufWriter::tensor(const std::string& name, const std::vector<uint64_t>& shape, uint32_t type,
                        const std::string& bytes) {
  append_text(tensors_, name);
  tensors_ += bytes_of(static_cast<uint32_t>(shape.size()));
  for (const uint64_t size : shape) tensors_ += bytes_of(size);
  tensors_ += bytes_of(type);
  tensors_ += bytes_of(static_cast<uint64_t>(data_.size()));
  data_ += bytes;
  pad(data_);
  ++n_tensors_;
}

void GgufWriter::tensor_f32(const std::string& name, const std::vector<uint64_t>& shape,
                            const std::vector<float>& x) {
  std::string bytes;
  for (const float value : x) bytes += bytes_of(value);
  tensor(name, shape, kTensorF32, bytes);
}

void GgufWriter::tensor_f16(const std::string& name, const std::vector<uint64_t>& shape,
                            const std::vector<float>& x) {
  std::string bytes;
  for (const float value : x) bytes += bytes_of(f32_to_f16(value));
  tensor(name, shape, kTensorF16, bytes);
}

void GgufWriter::write(const std::string& path) const {
  std::string head = "GGUF";
  head += bytes_of(uint32_t{3});
  head += bytes_of(n_tensors_);
  head += bytes_of(n_metadata_);
  head += metadata_;
  head += tensors_;
  pad(head);
  write_file_whole(path, {head, data_});
}

}  // namespace hata::weights
