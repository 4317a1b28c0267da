// Rows of a q8_0 cache for attention: they come to shared memory as they are, and a tile becomes
// f16 there when its turn comes.
#pragma once

#include "attend.cuh"

namespace hata::cuda {

/// In the place of an element's type: the cache is q8_0.
struct Q8 {};

/// As TileCopies, with kSlots slots for tiles as they lie in the cache, blocks one behind the
/// other, and one tile of f16, made from the keys or values that are waited for: d * q, which is
/// exact in f32, rounded to f16 once. A cell that there is none of gives zeros.
template <int kDim, int kSlots>
struct QuantisedCopies {
  static_assert(kDim % kQ8Block == 0);
  static constexpr int kStages = kSlots;
  static constexpr int kArrivals = 1;  ///< not used
  static constexpr int kBlocks = kDim / kQ8Block;
  static constexpr int kRowBytes = kBlocks * kQ8Bytes;
  static constexpr int kRawBytes = kTileKeys * kRowBytes;
  static constexpr int kBytes = Tile<kDim>::kBytes + kStages * 2 * kRawBytes;
  /// A row has 17 parts, so that 16 lanes copy it but for the last one, and rows are begun in
  /// pairs; the last parts of all rows are begun together.
  static constexpr int kParts = 17, kPart = kRowBytes / kParts, kSteps = kTileKeys / 2 + 1;
  static_assert(kPart * kParts == kRowBytes && kRawBytes % 16 == 0 && kParts == kTileKeys + 1);

  const Cells& cells;
  uint32_t buffer;    ///< kBytes, of this warp
  uint32_t arrivals;  ///< not used

  __device__ __forceinline__ void init() const {}
  /// The tile that was waited for last.
  __device__ __forceinline__ uint32_t at(int, bool) const { return buffer; }
  __device__ __forceinline__ uint32_t raw(int slot, bool values) const {
    return buffer + Tile<kDim>::kBytes + (2 * slot + (values ? 1 : 0)) * kRawBytes;
  }

  template <class CellAt>
  __device__ __forceinline__ void begin_all(int first, int n_warps, int n_tiles,
                                            CellAt cell_at) const {
    begin_in_turn(*this, first, n_warps, n_tiles, cell_at);
  }

  template <class CellAt>
  __device__ __forceinline__ void begin(int tile, int n_tiles, int slot, bool values,
                                        CellAt cell_at) const {
    if (tile < n_tiles) {
      // A lane has one row's address.
      const int lane = threadIdx.x % kWarp;
      const int cell = lane < kTileKeys ? cell_at(tile * kTileKeys + lane) : -1;
      const std::byte* row = cells.keys;  // where there is none, any will do
      if (cell >= 0) row = cells.key(cell) + (values ? cells.to_values : 0);
      const auto address = reinterpret_cast<unsigned long long>(row);
      const unsigned there = __ballot_sync(kAll, cell >= 0);
      if (parts_are_aligned()) {
        copy_parts(raw(slot, values), address, there);
      } else {
        copy_halves(raw(slot, values), address, there);
      }
    }
    commit_copies();
  }

  /// Whether all rows start on a multiple of a part that can be copied asynchronously. Where caches
  /// are laid out as llama.cpp does, those of all sizes but 96 do.
  __device__ __forceinline__ bool parts_are_aligned() const {
    if constexpr (kPart != 4 && kPart != 8 && kPart != 16) return false;
    const auto bits =
        reinterpret_cast<unsigned long long>(cells.keys) |
        static_cast<unsigned long long>(cells.to_values) |
        static_cast<unsigned long long>(cells.cell_stride) |
        (cells.table != nullptr ? static_cast<unsigned long long>(cells.page_stride) : 0);
    return bits % kPart == 0;
  }

  /// What this lane does in a step: part `part` of row `row`, or nothing.
  struct Share {
    int row, part;
    bool active;
    __device__ __forceinline__ explicit Share(int step) {
      const int lane = static_cast<int>(threadIdx.x) % kWarp;
      const bool last = step == kSteps - 1;
      row = last ? lane % kTileKeys : 2 * step + lane / kTileKeys;
      part = last ? kParts - 1 : lane % kTileKeys;
      active = !last || lane < kTileKeys;
    }
    __device__ __forceinline__ int offset() const { return row * kRowBytes + part * kPart; }
  };

  __device__ __forceinline__ void copy_parts(uint32_t to, unsigned long long address,
                                             unsigned there) const {
    if constexpr (kPart == 4 || kPart == 8 || kPart == 16) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const Share share(step);
        const auto from = __shfl_sync(kAll, address, share.row) + share.part * kPart;
        const bool ok = (there >> share.row & 1) != 0;
        if (share.active) {
          copy_async<kPart>(to + share.offset(), reinterpret_cast<const void*>(from), ok);
        }
      }
    }
  }

  /// By 16 bits through registers: slower, and rows may start anywhere.
  __device__ __forceinline__ void copy_halves(uint32_t to, unsigned long long address,
                                              unsigned there) const {
    constexpr int kHalves = kPart / 2, kAtOnce = kDim <= 128 ? kSteps : 3;
    static_assert(kHalves * 2 == kPart && kSteps % kAtOnce == 0);
#pragma unroll 1
    for (int first = 0; first < kSteps; first += kAtOnce) {
      uint16_t v[kAtOnce][kHalves];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const Share share(first + i);
        const auto from = __shfl_sync(kAll, address, share.row) + share.part * kPart;
        const bool ok = share.active && (there >> share.row & 1) != 0;
#pragma unroll
        for (int j = 0; j < kHalves; ++j) {
          v[i][j] = ok ? reinterpret_cast<const uint16_t*>(from)[j] : uint16_t{0};
        }
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const Share share(first + i);
#pragma unroll
        for (int j = 0; j < kHalves; ++j) {
          if (share.active) store_shared(to + share.offset() + 2 * j, v[i][j]);
        }
      }
    }
  }

  /// Until the oldest copies of the slot are there; then they are made f16.
  __device__ __forceinline__ void wait(int slot, bool values, int) const {
    wait_copies<2 * kStages - 1>();
    __syncwarp();
    widen_tile(raw(slot, values));
    __syncwarp();
  }

  /// A lane takes whole blocks: the words of shared memory that they lie in, in which every other
  /// block starts in the middle.
  __device__ __forceinline__ void widen_tile(uint32_t from) const {
    constexpr int kAllBlocks = kTileKeys * kBlocks, kQuads = kQ8Block / 4;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < (kAllBlocks + kWarp - 1) / kWarp; ++i) {
      const int block = i * kWarp + lane;
      if (kAllBlocks % kWarp != 0 && block >= kAllBlocks) continue;
      const uint32_t middle = block % 2 * 16;  // bits before the block
      const uint32_t words = from + block * kQ8Bytes - middle / 8;
      uint32_t w[kQuads + 1];
#pragma unroll
      for (int j = 0; j <= kQuads; ++j) w[j] = load_shared(words + 4 * j);
      const __half scale = __ushort_as_half(static_cast<uint16_t>(w[0] >> middle));
      uint32_t pairs[2 * kQuads];
#pragma unroll
      for (int j = 0; j < kQuads; ++j) {
        // q + 128 in the low bits of 1024 is 1152 + q.
        const uint32_t quad = __funnelshift_rc(w[j], w[j + 1], 16 + middle) ^ 0x80808080u;
        pairs[2 * j] = times(__byte_perm(quad, 0x64646464u, 0x4140), scale);
        pairs[2 * j + 1] = times(__byte_perm(quad, 0x64646464u, 0x4342), scale);
      }
      const uint32_t to =
          buffer + block / kBlocks * Tile<kDim>::kRowBytes + block % kBlocks * kQ8Block * 2;
#pragma unroll
      for (int j = 0; j < 2 * kQuads; j += 4) {
        store_shared(to + 4 * j, make_uint4(pairs[j], pairs[j + 1], pairs[j + 2], pairs[j + 3]));
      }
    }
  }
  static __device__ __forceinline__ uint32_t times(uint32_t pair, __half scale) {
    const __half2 biased = *reinterpret_cast<const __half2*>(&pair);
    const __half2 q = __hsub2(biased, __half2half2(__ushort_as_half(0x6480)));  // 1152, exact
    const __half2 v = __hmul2(q, __half2half2(scale));
    return *reinterpret_cast<const uint32_t*>(&v);
  }

  __device__ __forceinline__ void finish() const {
    wait_copies<0>();
    __syncwarp();
  }
};

}  // namespace hata::cuda
