// Codes and lengths of keys that lie in the cache: a prefill's, or those that have changed.
#include "encode.cuh"
#include "launch.h"

namespace hata::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kKeys = 64;  // of a block
constexpr int kEach = 8;   // keys of a thread, all under one column of W

/// grid: (blocks of keys, KV heads). Shared memory: W's slab [head_dim][32], x [head_dim][kKeys].
template <int kWords>
__global__ void __launch_bounds__(kThreads) encode_kernel(const __grid_constant__ EncodeParams p) {
  extern __shared__ __align__(16) float encode_memory[];
  __shared__ int64_t slots[kKeys];
  float* slab = encode_memory;
  float* x = encode_memory + p.head_dim * kWarp;
  const int head = blockIdx.y, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const Cells cells(p, p.sequence, head);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kKeys;
  const auto cell_of = [&](int i) -> int64_t {
    if (first + i >= p.count) return -1;
    return p.cells != nullptr ? p.cells[first + i] : p.first + first + i;
  };
  // x, its columns the keys; lengths on the way, 16 lanes a key.
  const float* mean =
      p.projection.key_means != nullptr ? p.projection.key_means + head * p.head_dim : nullptr;
  const int lane16 = threadIdx.x % 16;
  for (int i = threadIdx.x / 16; i < kKeys; i += kThreads / 16) {
    const int64_t cell = cell_of(i);
    const void* key = cell < 0 ? nullptr : cells.key(static_cast<int>(cell));
    const float norm2 = norm2_of(p.head_dim, lane16, [&](int at) {
      const float v = key == nullptr ? 0.0f : element(key, p.cache.type, at);
      x[at * kKeys + i] = mean != nullptr ? __fsub_rn(v, mean[at]) : v;
      return v;
    });
    if (lane16 == 0) {
      slots[i] = cell < 0 ? -1 : cells.slot(static_cast<int>(cell));
      if (cell >= 0 && p.codes.lengths != nullptr) {
        store_length(p.codes.lengths, slots[i], length_of(norm2, p.projection.inv_units[head]));
      }
    }
  }
  const float* w = p.projection.keys + static_cast<int64_t>(head) * p.head_dim * p.rbit;
  for (int word = 0; word < kWords; ++word) {
    __syncthreads();
    for (int i = threadIdx.x; i < p.head_dim * kWarp; i += kThreads) {
      slab[i] = w[static_cast<int64_t>(i / kWarp) * p.rbit + word * kWarp + i % kWarp];
    }
    __syncthreads();
    float sums[kEach] = {};
    const float* mine = x + warp * kEach;
#pragma unroll 4
    for (int i = 0; i < p.head_dim; ++i) {
      const float weight = slab[i * kWarp + lane];
      const float4 a = *reinterpret_cast<const float4*>(mine + i * kKeys);
      const float4 b = *reinterpret_cast<const float4*>(mine + i * kKeys + 4);
      sums[0] = __fmaf_rn(a.x, weight, sums[0]);
      sums[1] = __fmaf_rn(a.y, weight, sums[1]);
      sums[2] = __fmaf_rn(a.z, weight, sums[2]);
      sums[3] = __fmaf_rn(a.w, weight, sums[3]);
      sums[4] = __fmaf_rn(b.x, weight, sums[4]);
      sums[5] = __fmaf_rn(b.y, weight, sums[5]);
      sums[6] = __fmaf_rn(b.z, weight, sums[6]);
      sums[7] = __fmaf_rn(b.w, weight, sums[7]);
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const unsigned bits = __ballot_sync(kAll, sums[i] > 0.0f);
      const int64_t slot = slots[warp * kEach + i];
      if (lane == 0 && slot >= 0) p.codes.codes[slot * kWords + word] = bits;
    }
  }
}
static_assert(kKeys == kThreads / kWarp * kEach);

// A few keys, those of a decode step: for one key the kernel above takes 34 us (H200, 2026-11-26),
// all of it waiting for W's slabs one after the other. Here a warp makes one word of one code, and
// asks for its columns of W 32 rows at a time.
/// grid: (keys, KV heads, words of a code).
template <int kWords>
__global__ void __launch_bounds__(kWarp) encode_few_kernel(const __grid_constant__ EncodeParams p) {
  constexpr int kMostDims = 256;
  __shared__ float x[kMostDims];
  const int head = blockIdx.y, word = blockIdx.z, lane = threadIdx.x;
  const int64_t cell = p.cells != nullptr ? p.cells[blockIdx.x] : p.first + blockIdx.x;
  if (cell < 0) return;
  const Cells cells(p, p.sequence, head);
  const void* key = cells.key(static_cast<int>(cell));
  const int64_t slot = cells.slot(static_cast<int>(cell));
  const float* mean =
      p.projection.key_means != nullptr ? p.projection.key_means + head * p.head_dim : nullptr;
  for (int i = lane; i < p.head_dim; i += kWarp) {
    const float v = element(key, p.cache.type, i);
    x[i] = mean != nullptr ? __fsub_rn(v, mean[i]) : v;
  }
  __syncwarp();
  const float* w =
      p.projection.keys + static_cast<int64_t>(head) * p.head_dim * p.rbit + word * kWarp + lane;
  float sum = 0.0f;
#pragma unroll 32
  for (int i = 0; i < p.head_dim; ++i) {
    sum = __fmaf_rn(x[i], __ldg(w + static_cast<int64_t>(i) * p.rbit), sum);
  }
  const unsigned bits = __ballot_sync(kAll, sum > 0.0f);
  if (lane == 0) p.codes.codes[slot * kWords + word] = bits;
  if (word > 0 || p.codes.lengths == nullptr) return;
  const float norm2 =
      norm2_of(p.head_dim, lane % 16, [&](int i) { return element(key, p.cache.type, i); });
  if (lane == 0) {
    store_length(p.codes.lengths, slot, length_of(norm2, p.projection.inv_units[head]));
  }
}

template <int kWords>
cudaError_t launch(const EncodeParams& p, cudaStream_t stream) {
  constexpr int64_t kFew = 32;
  if (p.count <= kFew) {
    const dim3 grid(static_cast<unsigned>(p.count), static_cast<unsigned>(p.n_kv_heads), kWords);
    return launch_kernel(encode_few_kernel<kWords>, grid, kWarp, 0, {}, stream, p);
  }
  const int bytes = p.head_dim * (kWarp + kKeys) * static_cast<int>(sizeof(float));
  const dim3 grid(static_cast<unsigned>((p.count + kKeys - 1) / kKeys),
                  static_cast<unsigned>(p.n_kv_heads));
  return launch_kernel(encode_kernel<kWords>, grid, kThreads, bytes, {}, stream, p);
}

}  // namespace

cudaError_t launch_encode(const EncodeParams& p, cudaStream_t stream) {
  switch (p.rbit) {
    case 64:
      return launch<2>(p, stream);
    case 128:
      return launch<4>(p, stream);
    default:
      return launch<8>(p, stream);
  }
}

}  // namespace hata::cuda
