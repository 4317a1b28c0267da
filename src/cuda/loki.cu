// Loki on the GPU. Measured notes: docs/cuda.md.

#include "cuda/rivals_rank.cuh"

namespace hata::cuda {
namespace {

using namespace rivals;

constexpr int kBuildWarps = 8;
constexpr int kBuildCells = 256;  ///< of a block

/// Block: some cells of one segment; a warp per key, a lane per channel.
template <class T>
__global__ void build_kernel(Args a) {
  __shared__ float basis[kMaxHeadDim * kLokiChannels];
  const int index = static_cast<int>(blockIdx.y);
  const int row = index / a.n_kv_heads;
  const int head = index % a.n_kv_heads;
  const int sequence = a.sequences != nullptr ? a.sequences[row] : row;
  const int n = a.n_kv != nullptr ? a.n_kv[row] : a.max_n_kv;
  const int first = static_cast<int>(blockIdx.x) * kBuildCells;
  if (first >= n) return;
  const int tid = static_cast<int>(threadIdx.x);
  for (int i = tid; i < a.head_dim * kLokiChannels; i += kBuildWarps * 32) {
    basis[i] = a.basis[static_cast<int64_t>(head) * a.head_dim * kLokiChannels + i];
  }
  __syncthreads();
  const int lane = tid % 32;
  T* out = static_cast<T*>(a.store) + (static_cast<int64_t>(sequence) * a.n_kv_heads + head) *
                                          a.store_capacity * kLokiChannels;
  for (int cell = first + tid / 32; cell < min(first + kBuildCells, n); cell += kBuildWarps) {
    const T* key = key_of<T>(a, sequence, cell, head);
    float sum = 0.0f;
    for (int i = 0; i < a.head_dim; i += 32) {
      const float mine = i + lane < a.head_dim ? widen_one(key[i + lane]) : 0.0f;
#pragma unroll
      for (int j = 0; j < 32; ++j) {
        const float x = __shfl_sync(0xffffffffu, mine, j);
        if (i + j < a.head_dim) sum += x * basis[(i + j) * kLokiChannels + lane];
      }
    }
    out[static_cast<int64_t>(cell) * kLokiChannels + lane] = narrow<T>(sum);
  }
}

bool loki_supports(const hata_cuda_step& step, const LokiKeys& keys) {
  return supported(step) && step.shape.head_dim <= kMaxHeadDim && keys.channels != nullptr &&
         keys.basis != nullptr && keys.capacity >= step.max_n_kv;
}

Args loki_args(const hata_cuda_step& step, const LokiKeys& keys, int32_t* lists, int32_t* counts,
               int64_t capacity, void* scores) {
  Args a = args_of(step, lists, counts, capacity);
  a.store = keys.channels;
  a.store_capacity = keys.capacity;
  a.basis = keys.basis;
  a.page = 1;
  a.scores = static_cast<uint32_t*>(scores);
  a.score_stride = score_stride(step.max_n_kv);
  return a;
}

}  // namespace

size_t loki_store_size(const hata_cuda_step& step, int n_sequences, const LokiKeys& keys) {
  return static_cast<size_t>(n_sequences) * static_cast<size_t>(step.shape.n_kv_heads) *
         static_cast<size_t>(keys.capacity) * kLokiChannels * 2;
}

size_t loki_score_bytes(const hata_cuda_step& step, const LokiKeys&) {
  return static_cast<size_t>(segments_of(step)) * static_cast<size_t>(step.max_n_kv) *
         kLokiChannels * 2;
}

size_t loki_workspace_size(const hata_cuda_step& step, const LokiKeys&) {
  return Workspace(step, step.max_n_kv).size();
}

hata_cuda_status loki_build(const hata_cuda_step& step, const LokiKeys& keys,
                            hata_cuda_stream stream) {
  if (!loki_supports(step, keys)) return HATA_CUDA_BAD_ARGUMENT;
  const Args a = loki_args(step, keys, nullptr, nullptr, 0, nullptr);
  const dim3 grid(static_cast<unsigned>((step.max_n_kv + kBuildCells - 1) / kBuildCells),
                  static_cast<unsigned>(segments_of(step)));
  auto* kernel =
      step.cache.type == HATA_CUDA_F16 ? build_kernel<__half> : build_kernel<__nv_bfloat16>;
  kernel<<<grid, kBuildWarps * 32, 0, stream>>>(a);
  return status_of(cudaGetLastError());
}

hata_cuda_status loki_select(const hata_cuda_step& step, const LokiKeys& keys, RivalPath path,
                             int32_t* lists, int32_t* counts, int64_t capacity, void* workspace,
                             size_t workspace_size, hata_cuda_stream stream) {
  if (!loki_supports(step, keys)) return HATA_CUDA_BAD_ARGUMENT;
  const Workspace w(step, step.max_n_kv);
  if (workspace_size < w.scores || capacity < std::min(step.budget, step.max_n_kv)) {
    return HATA_CUDA_BAD_ARGUMENT;
  }
  const Args a = loki_args(step, keys, lists, counts, capacity, workspace);
  if (step.cache.type == HATA_CUDA_F16) {
    return enqueue<Loki<__half>>(a, segments_of(step), step.max_n_kv, path, stream);
  }
  return enqueue<Loki<__nv_bfloat16>>(a, segments_of(step), step.max_n_kv, path, stream);
}

hata_cuda_status loki_step(const hata_cuda_step& step, const LokiKeys& keys, RivalPath path,
                           void* workspace, size_t workspace_size, void* attend_workspace,
                           size_t attend_workspace_size, hata_cuda_stream stream) {
  if (!loki_supports(step, keys)) return HATA_CUDA_BAD_ARGUMENT;
  const Workspace w(step, step.max_n_kv);
  if (workspace_size < w.size()) return HATA_CUDA_BAD_ARGUMENT;
  char* base = static_cast<char*>(workspace);
  auto* lists = reinterpret_cast<int32_t*>(base);
  auto* counts = reinterpret_cast<int32_t*>(base + w.lists);
  const int64_t capacity = list_capacity(step);
  const hata_cuda_status status = loki_select(step, keys, path, lists, counts, capacity,
                                              base + w.lists + w.counts, w.scores, stream);
  if (status != HATA_CUDA_OK) return status;
  return attend_lists(step, lists, counts, capacity, attend_workspace, attend_workspace_size,
                      stream);
}

}  // namespace hata::cuda
