// Stage 4 on the GPU: softmax(scale q.k + ...) v over tiles of 16 cells, by tensor cores, one warp
// a tile. Keys are the rows of the products, the query heads of the group their columns, so a group
// of up to 8 costs one matrix product a tile. Accumulation in f32; logarithms are to base 2.
#pragma once

#include "cells.cuh"
#include "device.cuh"
#include "encode.cuh"

namespace hata::cuda {

constexpr float kLog2e = 1.4426950408889634f;

/// Shared memory of a warp for one tile of keys (or of values): rows of head_dim elements, 16 bytes
/// apart, so that the eight rows of a matrix lie in different banks.
template <int kDim>
struct Tile {
  static constexpr int kChunks = kDim * 2 / 16;
  static constexpr int kRowBytes = (kChunks + 1) * 16;
  static constexpr int kBytes = kTileKeys * kRowBytes;
};

/// Floats between the heads of a warp's result in shared memory (conflict-free as it is written).
template <int kDim>
constexpr int kHeadStride = kDim + 4;

/// Begins a warp's first tiles, as many as there are slots for: keys, then values, of each in turn.
template <class Copies, class CellAt>
__device__ __forceinline__ void begin_in_turn(const Copies& copies, int first, int n_warps,
                                              int n_tiles, CellAt cell_at) {
#pragma unroll 1
  for (int i = 0; i < 2 * Copies::kStages; ++i) {
    copies.begin(first + i / 2 * n_warps, n_tiles, i / 2, i % 2 != 0, cell_at);
  }
}

/// The rows of tiles on their way to a warp's shared memory: kStages slots, each for the keys and
/// the values of a tile. Every slot's copies are begun by all lanes, in turn: keys, then values.
/// kBulk: by the copy engine, a lane a row: 3 % more bandwidth where there is much to copy, and 1
/// us later to begin with (H200, 2026-11).
template <int kDim, int kSlots, bool kWantsBulk>
struct TileCopies {
  static constexpr int kStages = kSlots;
  static constexpr bool kBulk = kWantsBulk && HATA_CLUSTERS;
  static constexpr int kBytes = kStages * 2 * Tile<kDim>::kBytes;
  static constexpr int kArrivals = 2 * kStages;  ///< barriers of 8 bytes

  const Cells& cells;
  uint32_t buffer;    ///< kBytes, of this warp
  uint32_t arrivals;  ///< kArrivals barriers, of this warp

  /// Before the first copies.
  __device__ __forceinline__ void init() const {
    if constexpr (kBulk) {
      if (threadIdx.x % kWarp == 0) {
#pragma unroll 1
        for (int i = 0; i < kArrivals; ++i) init_arrival(arrivals + 8 * i);
        publish_arrivals();
      }
      __syncwarp();
    }
  }
  __device__ __forceinline__ uint32_t at(int slot, bool values) const {
    return buffer + (2 * slot + (values ? 1 : 0)) * Tile<kDim>::kBytes;
  }
  __device__ __forceinline__ uint32_t arrival(int slot, bool values) const {
    return arrivals + 8 * (2 * slot + (values ? 1 : 0));
  }

  /// The copies that the warp begins with: its first kStages tiles.
  template <class CellAt>
  __device__ __forceinline__ void begin_all(int first, int n_warps, int n_tiles,
                                            CellAt cell_at) const {
    if constexpr (kStages == 1 && !kBulk) {
      if (first < n_tiles) {
        Rows rows(*this, first, cell_at);
        rows.begin(at(0, false), false);
        commit_copies();
        rows.from_values(cells);
        rows.begin(at(0, true), true);
      } else {
        commit_copies();
      }
      commit_copies();
    } else {
      begin_in_turn(*this, first, n_warps, n_tiles, cell_at);
    }
  }

  template <class CellAt>
  __device__ __forceinline__ void begin(int tile, int n_tiles, int slot, bool values,
                                        CellAt cell_at) const {
    const uint32_t to = at(slot, values);
    if constexpr (kBulk) {
      if (tile < n_tiles) begin_bulk(tile, to, arrival(slot, values), values, cell_at);
    } else {
      if (tile < n_tiles) begin_by_threads(tile, to, values, cell_at);
      commit_copies();
    }
  }

  template <class CellAt>
  __device__ __forceinline__ void begin_bulk(int tile, uint32_t to, uint32_t barrier, bool values,
                                             CellAt cell_at) const {
    const int lane = threadIdx.x % kWarp;
    const int cell = lane < kTileKeys ? cell_at(tile * kTileKeys + lane) : -1;
    const int n_rows = __popc(__ballot_sync(kAll, cell >= 0));
    if (lane == 0) expect_bytes(barrier, n_rows * kDim * 2);
    const uint32_t row = to + lane * Tile<kDim>::kRowBytes;
    if (values && n_rows < kTileKeys && lane < kTileKeys && cell < 0) {
      // A weight of 0 times what happens to lie here must be 0.
#pragma unroll 1
      for (int i = 0; i < kDim * 2; i += 16) store_zeros(row + i);
      writes_before_copies();
    }
    __syncwarp();
    if (cell >= 0) {
      copy_bulk(row, cells.key(cell) + (values ? cells.to_values : 0), kDim * 2, barrier);
    }
  }

  /// What a lane copies of a tile: 16 bytes of each of several rows, all addresses made at once.
  struct Rows {
    static constexpr int kChunks = Tile<kDim>::kChunks, kSteps = kTileKeys * kChunks / kWarp;
    int cell[kSteps];
    const std::byte* from[kSteps];

    template <class CellAt>
    __device__ __forceinline__ Rows(const TileCopies& copies, int tile, CellAt cell_at) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) cell[i] = cell_at(tile * kTileKeys + row(i));
      copies.cells.template rows<kSteps>(cell, from);
#pragma unroll
      for (int i = 0; i < kSteps; ++i) from[i] += chunk(i) * 16;
    }
    static __device__ __forceinline__ int row(int i) {
      return (i * kWarp + static_cast<int>(threadIdx.x) % kWarp) / kChunks;
    }
    static __device__ __forceinline__ int chunk(int i) {
      return (i * kWarp + static_cast<int>(threadIdx.x) % kWarp) % kChunks;
    }
    /// Addresses were those of keys.
    __device__ __forceinline__ void from_values(const Cells& cells) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) from[i] += cells.to_values;
    }
    __device__ __forceinline__ void begin(uint32_t to, bool values) const {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const uint32_t at = to + row(i) * Tile<kDim>::kRowBytes + chunk(i) * 16;
        copy_if(cell[i] >= 0, at, from[i]);
        // A weight of 0 times what happens to lie here must be 0.
        if (values) zero_if(cell[i] < 0, at);
      }
    }
  };
  template <class CellAt>
  __device__ __forceinline__ void begin_by_threads(int tile, uint32_t to, bool values,
                                                   CellAt cell_at) const {
    Rows rows(*this, tile, cell_at);
    if (values) rows.from_values(cells);
    rows.begin(to, values);
  }

  /// Until the oldest copies of the slot are there; parity: of how often it was used.
  __device__ __forceinline__ void wait(int slot, bool values, int parity) const {
    if constexpr (kBulk) {
      wait_arrival(arrival(slot, values), parity);
    } else {
      wait_copies<2 * kStages - 1>();
    }
    __syncwarp();
  }
  __device__ __forceinline__ void finish() const {
    if constexpr (!kBulk) wait_copies<0>();
    __syncwarp();
  }
};

/// What one warp attends with and to.
template <class T, int kDim, int kHeadTiles>
struct Attention {
  static constexpr int kSteps = kDim / 16;
  using H = Half<T>;

  uint32_t q[kHeadTiles][kSteps][2];
  float max[kHeadTiles][2], sum[kHeadTiles][2];
  float acc[kHeadTiles][kSteps][4];

  /// x: the group's queries in shared memory, [group][stride].
  __device__ __forceinline__ void begin(const float* x, int stride, int group) {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
      const int g = t * 8 + lane / 4;
      const float* at = x + (g < group ? g : 0) * stride + lane % 4 * 2;
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float2 v = *reinterpret_cast<const float2*>(at + s * 16 + half * 8);
          q[t][s][half] = g < group ? H::pack(v.x, v.y) : 0u;
          acc[t][s][2 * half] = acc[t][s][2 * half + 1] = 0.0f;
        }
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) max[t][j] = -INFINITY, sum[t][j] = 0.0f;
    }
  }

  /// Logits of the tile's keys: lane holds those of rows lane / 4 and lane / 4 + 8 for two heads.
  __device__ __forceinline__ void logits(uint32_t keys, float (&s)[kHeadTiles][4]) const {
    const int lane = threadIdx.x % kWarp;
    const uint32_t at = keys + (lane & 15) * Tile<kDim>::kRowBytes + (lane >> 4) * 16;
    float odd[kHeadTiles][4];
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
#pragma unroll
      for (int j = 0; j < 4; ++j) s[t][j] = odd[t][j] = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[4];
      load_matrices(a, at + step * 32);
#pragma unroll
      for (int t = 0; t < kHeadTiles; ++t) {
        H::mma(step % 2 != 0 ? odd[t] : s[t], a, q[t][step][0], q[t][step][1]);
      }
    }
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
#pragma unroll
      for (int j = 0; j < 4; ++j) s[t][j] += odd[t][j];
    }
  }

  /// Logits become weights; `cell_of(half)` is the cell of row lane / 4 + 8 half, negative: none.
  template <class CellOf>
  __device__ __forceinline__ void weigh(const StepParams& p, int row, int head,
                                        float (&s)[kHeadTiles][4], CellOf cell_of,
                                        float (&scales)[kHeadTiles][2]) {
    const int lane = threadIdx.x % kWarp;
    const int cells[2] = {cell_of(0), cell_of(1)};
    const bool plain = p.softcap == 0.0f && p.bias == nullptr;
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float x = s[t][j] * p.scale;
        if (!plain) {
          if (p.softcap > 0.0f) x = p.softcap * tanhf(x / p.softcap);
          const int g = t * 8 + lane % 4 * 2 + j % 2;
          if (p.bias != nullptr && cells[j / 2] >= 0 && g < p.group) {
            const auto bits = p.bias[row * p.bias_stride + cells[j / 2]];
            x += p.slopes[head * p.group + g] * __half2float(__ushort_as_half(bits));
          }
        }
        s[t][j] = cells[j / 2] >= 0 ? x * kLog2e : -INFINITY;
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float m = fmaxf(s[t][j], s[t][j + 2]);
#pragma unroll
        for (int step = 4; step < 32; step *= 2) m = fmaxf(m, __shfl_xor_sync(kAll, m, step));
        m = fmaxf(m, max[t][j]);
        const float base = m == -INFINITY ? 0.0f : m;
        scales[t][j] = exp2f(max[t][j] - base);
        max[t][j] = m;
        s[t][j] = exp2f(s[t][j] - base);
        s[t][j + 2] = exp2f(s[t][j + 2] - base);
        sum[t][j] = sum[t][j] * scales[t][j] + s[t][j] + s[t][j + 2];
      }
    }
  }

  __device__ __forceinline__ void add_values(uint32_t values, const float (&s)[kHeadTiles][4],
                                             const float (&scales)[kHeadTiles][2]) {
    const int lane = threadIdx.x % kWarp;
    const uint32_t at =
        values + ((lane & 7) + (lane >> 4) * 8) * Tile<kDim>::kRowBytes + (lane >> 3 & 1) * 16;
    uint32_t w[kHeadTiles][2];
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
      w[t][0] = transpose(H::pack(s[t][0], s[t][1]));
      w[t][1] = transpose(H::pack(s[t][2], s[t][3]));
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[4];
      load_matrices_transposed(a, at + step * 32);
#pragma unroll
      for (int t = 0; t < kHeadTiles; ++t) {
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[t][step][j] *= scales[t][j % 2];
        H::mma(acc[t][step], a, w[t][0], w[t][1]);
      }
    }
  }

  /// Tiles first, first + n_warps, ... of n_tiles, the first copies of which have begun.
  /// `cell_at(i)` is the cell of key i of the block's share, negative behind its end.
  template <class Copies, class CellAt>
  __device__ __forceinline__ void run(const StepParams& p, const Copies& copies, int row, int head,
                                      int first, int n_warps, int n_tiles, CellAt cell_at) {
    constexpr int kStages = Copies::kStages;
    const int lane = threadIdx.x % kWarp;
    int slot = 0, parity = 0;
#pragma unroll 1
    for (int tile = first; tile < n_tiles; tile += n_warps) {
      const int next = tile + kStages * n_warps;
      copies.wait(slot, false, parity);
      float s[kHeadTiles][4], scales[kHeadTiles][2];
      logits(copies.at(slot, false), s);
      __syncwarp();
      copies.begin(next, n_tiles, slot, false, cell_at);
      weigh(
          p, row, head, s,
          [&](int half) { return cell_at(tile * kTileKeys + lane / 4 + 8 * half); }, scales);
      copies.wait(slot, true, parity);
      add_values(copies.at(slot, true), s, scales);
      __syncwarp();
      copies.begin(next, n_tiles, slot, true, cell_at);
      if (++slot == kStages) slot = 0, parity ^= 1;
    }
    copies.finish();
  }

  /// The warp's result in shared memory: acc [group][kHeadStride], ml [group][2].
  __device__ __forceinline__ void put(int group, float* to, float* ml) {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float total = sum[t][j];
#pragma unroll
        for (int step = 4; step < 32; step *= 2) total += __shfl_xor_sync(kAll, total, step);
        const int g = t * 8 + lane % 4 * 2 + j;
        if (g >= group) continue;
        if (lane < 4) ml[2 * g] = max[t][j], ml[2 * g + 1] = total;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          to[g * kHeadStride<kDim> + step * 16 + lane / 4] = acc[t][step][j];
          to[g * kHeadStride<kDim> + step * 16 + lane / 4 + 8] = acc[t][step][j + 2];
        }
      }
    }
  }
};

/// The maximum over the lanes of a warp, by the order that floats have as integers. No NaN.
__device__ __forceinline__ float max_warp(float v) {
  const int bits = __float_as_int(v);
  const int ordered = bits ^ (bits >> 31 & 0x7fffffff);
  const int max = __reduce_max_sync(kAll, ordered);
  return __int_as_float(max ^ (max >> 31 & 0x7fffffff));
}

/// The maximum of n partial softmaxes of one head, and their sum relative to it, by one warp;
/// `ml(i)` gives those of part i.
struct Common {
  float max, sum;
};
template <class Ml>
__device__ __forceinline__ Common common_of(int n, Ml ml) {
  const int lane = threadIdx.x % kWarp;
  float m = -INFINITY;
  for (int i = lane; i < n; i += kWarp) m = fmaxf(m, ml(i).x);
  m = max_warp(m);
  const float base = m == -INFINITY ? 0.0f : m;
  float total = 0.0f;
  for (int i = lane; i < n; i += kWarp) {
    const float2 part = ml(i);
    total += exp2f(part.x - base) * part.y;
  }
#pragma unroll
  for (int step = 1; step < 32; step *= 2) total += __shfl_xor_sync(kAll, total, step);
  return {m, total};
}

/// What the weighted sum of values is multiplied by in the end. A row without keys gives zeros.
__device__ __forceinline__ float normaliser(const StepParams& p, int q_head, Common common) {
  float scale = 1.0f;
  if (p.sinks != nullptr) {
    const float sink = p.sinks[q_head] * kLog2e;
    const float m = fmaxf(common.max, sink);
    scale = exp2f(common.max - m);
    common.sum = common.sum * scale + exp2f(sink - m);
  }
  return common.sum > 0.0f ? scale / common.sum : 0.0f;
}

__device__ __forceinline__ void store_out(const StepParams& p, int row, int q_head, int i,
                                          float v) {
  const int64_t at = row * p.out_row_stride + q_head * p.out_head_stride + i;
  switch (p.out_type) {
    case HATA_CUDA_F16:
      static_cast<__half*>(p.out)[at] = __float2half(v);
      break;
    case HATA_CUDA_BF16:
      static_cast<__nv_bfloat16*>(p.out)[at] = __float2bfloat16(v);
      break;
    default:
      static_cast<float*>(p.out)[at] = v;
  }
}

}  // namespace hata::cuda
