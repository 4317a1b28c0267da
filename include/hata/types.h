// Shapes and views that every stage shares. No stage owns the memory it reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace hata {

/// Bad input to a setup function. The text names what was given, why it cannot work and the way
/// out. Stages that run once per decode step do not throw.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Element types of a KV cache.
enum class DType : uint8_t { f32, f16 };

/// Bytes of one element.
constexpr size_t dtype_size(DType type) { return type == DType::f32 ? 4 : 2; }
const char* dtype_name(DType type);

/// Heads of one attention layer (grouped-query attention: query head h reads KV head h / group()).
struct HeadShape {
  int n_q_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;  ///< d: elements of a query, key and value (64 to 256, a multiple of 16)

  int group() const { return n_q_heads / n_kv_heads; }
  bool operator==(const HeadShape&) const = default;
};

/// Throws Error where the library has no kernel for this shape, naming field and value.
void check_shape(const HeadShape& shape);

/// The keys (or the values) of one cache: the row of cell c and KV head h starts
/// `c * cell_stride + h * head_stride` bytes behind `data` and holds head_dim elements of `type`.
/// Cells are slots of the cache; their order need not be the order of positions.
struct CacheView {
  const std::byte* data = nullptr;
  DType type = DType::f16;
  size_t cell_stride = 0;  ///< bytes from one cell to the next
  size_t head_stride = 0;  ///< bytes from one KV head to the next

  const std::byte* row(int64_t cell, int head) const {
    return data + static_cast<size_t>(cell) * cell_stride + static_cast<size_t>(head) * head_stride;
  }
};

/// Bits of one code are kept in 64-bit words: bit j of a code is bit j % 64 of word j / 64.
constexpr int kCodeWordBits = 64;

constexpr int kMinHeadDim = 64;
constexpr int kMaxHeadDim = 256;
constexpr int kMaxRbit = 256;   ///< bits per code
constexpr int kMaxGroup = 128;  ///< query heads per KV head

}  // namespace hata
