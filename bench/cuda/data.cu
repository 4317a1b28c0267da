#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "data.h"

namespace hata::bench {
namespace {

__device__ __forceinline__ uint32_t mixed(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
  return static_cast<uint32_t>(x >> 32);
}

// A sum of four bytes: near enough to normal, and cheap for gigabytes.
__device__ __forceinline__ float normal_of(uint32_t bits) {
  const int sum =
      static_cast<int>((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24));
  return (static_cast<float>(sum) - 510.0f) / 147.8f;
}

template <class T>
__global__ void fill_kernel(T* to, size_t n, uint64_t seed, float scale, int period) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n; i += step) {
    const float mean = period > 0 ? 3.0f * normal_of(mixed(i % period + 0x51ed27ull)) : 0.0f;
    to[i] = static_cast<T>(scale * (mean + normal_of(mixed(i + seed * 0xd1342543de82ef95ull))));
  }
}

__global__ void permutation_kernel(int32_t* to, int n, uint32_t odd, uint32_t add) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    to[i] =
        static_cast<int32_t>((static_cast<uint32_t>(i) * odd + add) & static_cast<uint32_t>(n - 1));
  }
}

__global__ void read_kernel(const uint4* from, size_t n, uint32_t* out) {
  uint32_t sum = 0;
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x;
  for (; i + 7 * step < n; i += 8 * step) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(from + i + j * step);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x5a5a1234u) *out = sum;  // never, but the compiler cannot know
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

void check(hata_cuda_status status, const char* what) {
  if (status != HATA_CUDA_OK)
    throw std::runtime_error(std::string(what) + ": " + hata_cuda_error());
}

void fill_normal(void* to, hata_cuda_type type, size_t n, uint64_t seed, float scale,
                 cudaStream_t stream, int period) {
  constexpr int kBlocks = 2048, kThreads = 256;
  switch (type) {
    case HATA_CUDA_F16:
      fill_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<__half*>(to), n, seed, scale,
                                                    period);
      break;
    case HATA_CUDA_BF16:
      fill_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(to), n, seed, scale,
                                                    period);
      break;
    default:
      fill_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<float*>(to), n, seed, scale,
                                                    period);
  }
  check(cudaGetLastError(), "fill");
}

void fill_permutation(int32_t* to, int n, uint64_t seed, cudaStream_t stream) {
  permutation_kernel<<<64, 256, 0, stream>>>(to, n, static_cast<uint32_t>(seed * 2654435761u) | 1u,
                                             static_cast<uint32_t>(seed * 40503u));
  check(cudaGetLastError(), "permutation");
}

double read_bandwidth(cudaStream_t stream) {
  constexpr size_t kBytes = size_t{4} << 30;
  Buffer<std::byte> buffer(kBytes);
  Buffer<uint32_t> out(1);
  fill_normal(buffer.get(), HATA_CUDA_F32, kBytes / 4, 1, 1.0f, stream);
  int multiprocessors = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0), "device");
  double best = 0.0;
  for (const int blocks : {4, 8, 16, 32}) {
    const Time t = time_graph(
        [&](int) {
          read_kernel<<<static_cast<unsigned>(multiprocessors * blocks), 256, 0, stream>>>(
              reinterpret_cast<const uint4*>(buffer.get()), kBytes / 16, out.get());
        },
        1, 1000.0, stream);
    best = std::max(best, static_cast<double>(kBytes) / t.median / 1e3);
  }
  return best;
}

Time time_graph(const std::function<void(int)>& enqueue, int n_sets, double expected_us,
                cudaStream_t stream) {
  constexpr int kReplays = 21;
  constexpr double kGraphUs = 2000.0;
  enqueue(0);
  check(cudaStreamSynchronize(stream), "the first step");
  const int rounds = std::max(1, static_cast<int>(kGraphUs / expected_us) / n_sets);
  const int calls = rounds * n_sets;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < calls; ++i) enqueue(i % n_sets);
  cudaGraph_t graph;
  check(cudaStreamEndCapture(stream, &graph), "capture");
  cudaGraphExec_t exec;
  check(cudaGraphInstantiate(&exec, graph, 0), "graph");
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int i = 0; i < kReplays + 2; ++i) {
    check(cudaEventRecord(begin, stream), "event");
    check(cudaGraphLaunch(exec, stream), "graph");
    check(cudaEventRecord(end, stream), "event");
    check(cudaEventSynchronize(end), "graph");
    float ms = 0.0f;
    check(cudaEventElapsedTime(&ms, begin, end), "event");
    if (i >= 2) times.push_back(ms * 1e3 / calls);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

}  // namespace hata::bench
