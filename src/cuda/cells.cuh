// Where the keys, values, codes and lengths of one sequence and KV head lie, contiguous or paged.
#pragma once

#include "params.h"

namespace hata::cuda {

struct Cells {
  const std::byte* keys;  ///< of the KV head; of the sequence, too, where the cache is contiguous
  int64_t to_values;      ///< from a key to its value
  int64_t cell_stride, page_stride;
  const int32_t* table;  ///< pages of the sequence; nullptr: contiguous
  int page_shift;
  int64_t first_slot;       ///< of the sequence and KV head; paged: of the KV head in page 0
  int64_t slots_of_a_page;  ///< all KV heads

  template <class Params>
  __device__ __forceinline__ Cells(const Params& p, int sequence, int head)
      : keys(static_cast<const std::byte*>(p.cache.keys) + head * p.cache.head_stride),
        to_values(static_cast<const std::byte*>(p.cache.values) -
                  static_cast<const std::byte*>(p.cache.keys)),
        cell_stride(p.cache.cell_stride),
        page_stride(p.cache.page_stride),
        table(p.cache.block_table),
        page_shift(p.page_shift),
        slots_of_a_page(0) {
    if (table == nullptr) {
      keys += sequence * p.cache.seq_stride;
      first_slot = (static_cast<int64_t>(sequence) * p.n_kv_heads + head) * p.codes.capacity;
    } else {
      table += sequence * p.cache.table_stride;
      first_slot = static_cast<int64_t>(head) << page_shift;
      slots_of_a_page = static_cast<int64_t>(p.n_kv_heads) << page_shift;
    }
  }

  /// The key of a cell; its value is to_values further.
  __device__ __forceinline__ const std::byte* key(int cell) const {
    if (table == nullptr) return keys + cell * cell_stride;
    const int in_page = cell & ((1 << page_shift) - 1);
    return keys + table[cell >> page_shift] * page_stride + in_page * cell_stride;
  }

  /// The keys of several cells; of negative ones: anywhere in the cache.
  template <int n>
  __device__ __forceinline__ void rows(const int (&cell)[n], const std::byte* (&row)[n]) const {
    if (table == nullptr) {
      // Strides are multiples of 16, and what goes into a register pair is multiplied at once.
      const auto units = static_cast<uint32_t>(cell_stride / 16);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        row[i] =
            keys + (static_cast<uint64_t>(static_cast<uint32_t>(max(cell[i], 0))) * units << 4);
      }
      return;
    }
    int page[n];
#pragma unroll
    for (int i = 0; i < n; ++i) page[i] = table[max(cell[i], 0) >> page_shift];
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const int in_page = max(cell[i], 0) & ((1 << page_shift) - 1);
      row[i] = keys + page[i] * page_stride + in_page * cell_stride;
    }
  }

  /// Index of the cell's code and length.
  __device__ __forceinline__ int64_t slot(int cell) const {
    if (table == nullptr) return first_slot + cell;
    const int in_page = cell & ((1 << page_shift) - 1);
    return first_slot + table[cell >> page_shift] * slots_of_a_page + in_page;
  }
};

/// Cells of a nibble's neighbours may be written at the same time: only this one's bits change.
__device__ __forceinline__ void store_length(uint8_t* lengths, int64_t slot, uint32_t length) {
  auto* word = reinterpret_cast<unsigned*>(lengths) + slot / 8;
  const int shift = static_cast<int>(slot % 8) * 4;
  atomicAnd(word, ~(15u << shift));
  atomicOr(word, length << shift);
}

}  // namespace hata::cuda
