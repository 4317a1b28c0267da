// Decoding with HATA in an engine of your own: one attention layer over a paged cache, random
// weights.
//   nvcc -std=c++17 cuda_decode.cu -lhata-cuda
#include <cuda_fp16.h>

#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "hata/cuda.h"

constexpr int kQHeads = 32, kKvHeads = 8, kDim = 128, kRbit = 128;
constexpr int kPage = 64, kPages = 512, kPrompt = 30000, kSteps = 8;  // pages of one sequence

__global__ void fill(__half* x, size_t n, unsigned seed) {
  for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    const unsigned r = (static_cast<unsigned>(i) * 2654435761u ^ seed) * 2246822519u;
    x[i] = __float2half(static_cast<float>(r >> 8) / (1 << 23) - 1.0f);
  }
}
template <class T>
T* device(size_t n) {
  T* p = nullptr;
  if (cudaMalloc(&p, n * sizeof(T)) != cudaSuccess) std::exit(1);
  cudaMemset(p, 0, n * sizeof(T));
  return p;
}
template <class T>
T* upload(const std::vector<T>& v) {
  T* p = device<T>(v.size());
  cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice);
  return p;
}

int main() {
  if (hata_cuda_available() != HATA_CUDA_OK)
    return std::printf("no GPU: %s\n", hata_cuda_error()), 77;
  const size_t cells = static_cast<size_t>(kPages) * kPage, row = kKvHeads * kDim;
  __half *keys = device<__half>(cells * row), *values = device<__half>(cells * row);
  __half *q = device<__half>(kQHeads * kDim), *out = device<__half>(kQHeads * kDim);
  fill<<<512, 256>>>(keys, cells * row, 1), fill<<<512, 256>>>(values, cells * row, 2);
  std::vector<int> pages(kPages), n_kv{kPrompt};
  std::iota(pages.rbegin(), pages.rend(), 0);  // pages lie in any order
  std::vector<float> w(kKvHeads * kDim * kRbit), units(kKvHeads, 8.0f / 6.53f);  // 8 / mean |key|
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i * 7919 % 1009) - 504.0f;

  hata_cuda_step step{};
  step.shape = {kQHeads, kKvHeads, kDim, kRbit};
  step.cache = {keys,     values,        HATA_CUDA_F16, 0,     row * 2,
                kDim * 2, upload(pages), kPages,        kPage, kPage * row * 2};
  step.codes = {device<uint32_t>(cells * kKvHeads * kRbit / 32),
                device<uint8_t>(cells * kKvHeads / 2), 0};
  step.projection = {upload(w), nullptr, upload(units), nullptr};
  step.n_rows = 1, step.q = q, step.out = out, step.q_type = step.out_type = HATA_CUDA_F16;
  step.q_head_stride = step.out_head_stride = kDim;
  step.max_n_kv = static_cast<int>(cells), step.n_kv = upload(n_kv);
  step.budget = 512, step.sink = 1, step.recent = 32, step.encode_last = 1, step.scale = 0.088f;

  const hata_cuda_encode prompt{step.shape, step.cache, step.codes, step.projection,
                                0,          0,          kPrompt,    nullptr};
  hata_cuda_status status = hata_cuda_encode_keys(&prompt, nullptr);
  const size_t size = hata_cuda_workspace_size(&step);
  void* workspace = device<char>(size);
  for (int i = 0; i < kSteps && status == HATA_CUDA_OK; ++i) {
    n_kv[0] = kPrompt + i + 1;  // an engine writes the new key and value of the cell before that
    cudaMemcpy(const_cast<int*>(step.n_kv), n_kv.data(), sizeof(int), cudaMemcpyHostToDevice);
    fill<<<16, 256>>>(q, kQHeads * kDim, 3 + i);
    status = hata_cuda_decode(&step, workspace, size, nullptr);
  }
  __half first;
  if (status != HATA_CUDA_OK) return std::printf("failed: %s\n", hata_cuda_error()), 1;
  if (cudaMemcpy(&first, out, sizeof(first), cudaMemcpyDeviceToHost) != cudaSuccess) return 1;
  std::printf("%d steps over %d keys; out[0] = %.5f\n", kSteps, n_kv[0], __half2float(first));
}
