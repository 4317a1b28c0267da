// Quest on the GPU. Measured notes: docs/cuda.md.

#include "cuda/rivals_rank.cuh"

namespace hata::cuda {
namespace {

using namespace rivals;

/// Block: one page of one segment; a thread per channel.
template <class T>
__global__ void build_kernel(Args a) {
  const int index = static_cast<int>(blockIdx.y);
  const int row = index / a.n_kv_heads;
  const int head = index % a.n_kv_heads;
  const int sequence = a.sequences != nullptr ? a.sequences[row] : row;
  const int n = a.n_kv != nullptr ? a.n_kv[row] : a.max_n_kv;
  const int page = static_cast<int>(blockIdx.x);
  const int first = page * a.page;
  if (first >= n) return;
  const int i = static_cast<int>(threadIdx.x);
  T least = key_of<T>(a, sequence, first, head)[i];
  T largest = least;
  for (int cell = first + 1; cell < min(first + a.page, n); ++cell) {
    const T x = key_of<T>(a, sequence, cell, head)[i];
    if (widen_one(x) < widen_one(least)) least = x;
    if (widen_one(x) > widen_one(largest)) largest = x;
  }
  T* out = static_cast<T*>(a.store) +
           ((static_cast<int64_t>(sequence) * a.n_kv_heads + head) * a.store_capacity + page) * 2 *
               a.head_dim;
  out[i] = least;
  out[a.head_dim + i] = largest;
}

bool quest_supports(const hata_cuda_step& step, const QuestPages& pages) {
  return supported(step) && (step.shape.head_dim == 64 || step.shape.head_dim == 128) &&
         (pages.page == 16 || pages.page == 32) && pages.bounds != nullptr &&
         pages.capacity * pages.page >= step.max_n_kv;
}

int64_t pool_of(const hata_cuda_step& step, const QuestPages& pages) {
  return (step.max_n_kv + pages.page - 1) / pages.page;
}

Args quest_args(const hata_cuda_step& step, const QuestPages& pages, int32_t* lists,
                int32_t* counts, int64_t capacity, void* scores) {
  Args a = args_of(step, lists, counts, capacity);
  a.store = pages.bounds;
  a.store_capacity = pages.capacity;
  a.page = pages.page;
  a.scores = static_cast<uint32_t*>(scores);
  a.score_stride = score_stride(pool_of(step, pages));
  return a;
}

template <class T>
hata_cuda_status enqueue_quest(const hata_cuda_step& step, const QuestPages& pages, RivalPath path,
                               const Args& a, cudaStream_t stream) {
  const int64_t pool = pool_of(step, pages);
  if (step.shape.head_dim == 64) {
    return enqueue<Quest<T, 64>>(a, segments_of(step), pool, path, stream);
  }
  return enqueue<Quest<T, 128>>(a, segments_of(step), pool, path, stream);
}

hata_cuda_status enqueue_quest(const hata_cuda_step& step, const QuestPages& pages, RivalPath path,
                               const Args& a, cudaStream_t stream) {
  return step.cache.type == HATA_CUDA_F16
             ? enqueue_quest<__half>(step, pages, path, a, stream)
             : enqueue_quest<__nv_bfloat16>(step, pages, path, a, stream);
}

}  // namespace

size_t quest_store_size(const hata_cuda_step& step, int n_sequences, const QuestPages& pages) {
  return static_cast<size_t>(n_sequences) * static_cast<size_t>(step.shape.n_kv_heads) *
         static_cast<size_t>(pages.capacity) * static_cast<size_t>(step.shape.head_dim) * 4;
}

size_t quest_score_bytes(const hata_cuda_step& step, const QuestPages& pages) {
  return static_cast<size_t>(segments_of(step)) * static_cast<size_t>(pool_of(step, pages)) *
         static_cast<size_t>(step.shape.head_dim) * 4;
}

size_t quest_workspace_size(const hata_cuda_step& step, const QuestPages& pages) {
  return Workspace(step, pool_of(step, pages)).size();
}

hata_cuda_status quest_build(const hata_cuda_step& step, const QuestPages& pages,
                             hata_cuda_stream stream) {
  if (!quest_supports(step, pages)) return HATA_CUDA_BAD_ARGUMENT;
  const Args a = quest_args(step, pages, nullptr, nullptr, 0, nullptr);
  const dim3 grid(static_cast<unsigned>(pool_of(step, pages)),
                  static_cast<unsigned>(segments_of(step)));
  auto* kernel =
      step.cache.type == HATA_CUDA_F16 ? build_kernel<__half> : build_kernel<__nv_bfloat16>;
  kernel<<<grid, static_cast<unsigned>(step.shape.head_dim), 0, stream>>>(a);
  return status_of(cudaGetLastError());
}

hata_cuda_status quest_select(const hata_cuda_step& step, const QuestPages& pages, RivalPath path,
                              int32_t* lists, int32_t* counts, int64_t capacity, void* workspace,
                              size_t workspace_size, hata_cuda_stream stream) {
  if (!quest_supports(step, pages)) return HATA_CUDA_BAD_ARGUMENT;
  const Workspace w(step, pool_of(step, pages));
  if (workspace_size < w.scores || capacity % 32 != 0 ||
      capacity < std::min<int64_t>(std::max(step.budget, pages.page), step.max_n_kv)) {
    return HATA_CUDA_BAD_ARGUMENT;
  }
  return enqueue_quest(step, pages, path,
                       quest_args(step, pages, lists, counts, capacity, workspace), stream);
}

hata_cuda_status quest_step(const hata_cuda_step& step, const QuestPages& pages, RivalPath path,
                            void* workspace, size_t workspace_size, void* attend_workspace,
                            size_t attend_workspace_size, hata_cuda_stream stream) {
  if (!quest_supports(step, pages)) return HATA_CUDA_BAD_ARGUMENT;
  const Workspace w(step, pool_of(step, pages));
  if (workspace_size < w.size()) return HATA_CUDA_BAD_ARGUMENT;
  char* base = static_cast<char*>(workspace);
  auto* lists = reinterpret_cast<int32_t*>(base);
  auto* counts = reinterpret_cast<int32_t*>(base + w.lists);
  const int64_t capacity = list_capacity(step);
  const hata_cuda_status status = quest_select(step, pages, path, lists, counts, capacity,
                                               base + w.lists + w.counts, w.scores, stream);
  if (status != HATA_CUDA_OK) return status;
  return attend_lists(step, lists, counts, capacity, attend_workspace, attend_workspace_size,
                      stream);
}

}  // namespace hata::cuda
