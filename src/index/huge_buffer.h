// A large, zeroed array that the kernel may back with huge pages: codes of a long cache span
// thousands of small pages, and every step reads all of them.
#pragma once

#include <cstddef>
#include <utility>

namespace hata {

class HugeBuffer {
 public:
  /// `bytes` zeroed bytes, page-aligned; memory is taken when it is first written.
  /// Throws std::bad_alloc.
  explicit HugeBuffer(size_t bytes);
  ~HugeBuffer();
  HugeBuffer(HugeBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace hata
