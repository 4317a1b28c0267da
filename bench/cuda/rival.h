// What the dense rivals that are built from CUDA sources share: cells, data, the check against
// plain attention, and timing by the rule of hata-bench-cuda: one CUDA graph of back-to-back calls
// that rotate over sets of data larger in sum than the L2, medians of 21 replays. Writes the same
// CSV to standard output, line by line. One source includes it and ends in
//   int main(int argc, char** argv) { return rival_main(argc, argv, "name=version", run); }
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "rival_cells.h"

namespace rival {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}
#define CHECK(call) check((call), #call)

/// Device or pinned host memory, freed with the cell.
class Memory {
 public:
  explicit Memory(size_t bytes, bool host = false) : host_(host) {
    check(host ? cudaMallocHost(&data_, bytes) : cudaMalloc(&data_, bytes), "memory");
  }
  Memory(const Memory&) = delete;
  ~Memory() { host_ ? cudaFreeHost(data_) : cudaFree(data_); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  bool host_;
};

template <class T>
__device__ T from_float(float x);
template <>
__device__ __half from_float<__half>(float x) {
  return __float2half(x);
}
template <>
__device__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16(x);
}

/// Sums of four random bytes: near enough to a normal distribution of variance 1.
template <class T>
__global__ void fill(T* out, size_t n, uint32_t seed) {
  const size_t stride = size_t{gridDim.x} * blockDim.x;
  for (size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull + seed * 0xd1b54a32d192ed03ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    const float sum =
        float(x & 255) + float(x >> 8 & 255) + float(x >> 16 & 255) + float(x >> 24 & 255);
    out[i] = from_float<T>((sum - 510.0f) / 147.8f);
  }
}

/// Plain attention, a block per query head: 32 warps with a running softmax each, then merged.
template <class T>
__global__ void reference(const T* q, const T* k, const T* v, float* out, int n, int n_kv_heads,
                          int group) {
  __shared__ float largest[32], sums[32], rows[32][kHeadDim];
  const int head = blockIdx.x;
  const int b = blockIdx.y;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const size_t query = (size_t(b) * gridDim.x + head) * kHeadDim;
  float m = -INFINITY, sum = 0, acc[4] = {}, x[4];
  for (int i = 0; i < 4; ++i) x[i] = float(q[query + lane * 4 + i]) * kScale;
  for (int cell = warp; cell < n; cell += 32) {
    const size_t at = ((size_t(b) * n + cell) * n_kv_heads + head / group) * kHeadDim + lane * 4;
    float logit = 0;
    for (int i = 0; i < 4; ++i) logit += x[i] * float(k[at + i]);
    for (int s = 16; s > 0; s /= 2) logit += __shfl_xor_sync(~0u, logit, s);
    const float next = fmaxf(m, logit);
    const float scale = expf(m - next), p = expf(logit - next);
    sum = sum * scale + p;
    for (int i = 0; i < 4; ++i) acc[i] = acc[i] * scale + p * float(v[at + i]);
    m = next;
  }
  if (lane == 0) largest[warp] = m, sums[warp] = sum;
  for (int i = 0; i < 4; ++i) rows[warp][lane * 4 + i] = acc[i];
  __syncthreads();
  if (threadIdx.x >= kHeadDim) return;
  float top = -INFINITY, all = 0, row = 0;
  for (int w = 0; w < 32; ++w) top = fmaxf(top, largest[w]);
  for (int w = 0; w < 32; ++w) {
    const float scale = sums[w] > 0 ? expf(largest[w] - top) : 0;
    all += sums[w] * scale;
    row += rows[w][threadIdx.x] * scale;
  }
  out[query + threadIdx.x] = row / all;
}

/// The sets of data of a cell, and what is done with all rivals.
template <class T>
class Bench {
 public:
  Bench(const Cell& cell, cudaStream_t stream, Clock::time_point end)
      : c_(cell),
        stream_(stream),
        end_(end),
        set_(cell.keys()),
        queries_(cell.queries()),
        n_sets_(cell.sets()),
        k_(n_sets_ * set_ * sizeof(T)),
        v_(n_sets_ * set_ * sizeof(T)),
        q_(n_sets_ * queries_ * sizeof(T)),
        out_(n_sets_ * queries_ * sizeof(T)) {
    fill<<<2048, 256, 0, stream>>>(keys(0), n_sets_ * set_, 1);
    fill<<<2048, 256, 0, stream>>>(values(0), n_sets_ * set_, 2);
    fill<<<64, 256, 0, stream>>>(query(0), n_sets_ * queries_, 3);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream));
    prepare_reference();
  }

 protected:
  T* keys(int set) const { return k_.template as<T>() + set * set_; }
  T* values(int set) const { return v_.template as<T>() + set * set_; }
  T* query(int set) const { return q_.template as<T>() + set * queries_; }
  T* result(int set) const { return out_.template as<T>() + set * queries_; }

  /// Runs fn; where it fails says so, and goes on unless the context is lost.
  template <class Fn>
  void guard(const char* what, Fn&& fn) {
    try {
      fn();
    } catch (const std::exception& e) {
      std::printf("# failed: %s %d:%d:%d:%d: %s\n", what, c_.batch, c_.n_q_heads, c_.n_kv_heads,
                  c_.n, e.what());
      std::fflush(stdout);
      const cudaError_t state = cudaDeviceSynchronize();
      if (state != cudaSuccess) throw;  // the context is lost
      cudaGetLastError();
    }
  }

  /// Times call(set) and prints a line. Layouts `...-hnd` are not checked: `reference` is of NHD.
  void report(const std::string& method, const char* layout, const std::function<void(int)>& call) {
    if (Clock::now() > end_) return;
    CHECK(cudaMemset(out_.template as<T>(), 0xff, n_sets_ * queries_ * sizeof(T)));
    call(0);
    CHECK(cudaStreamSynchronize(stream_));
    if (!want_.empty() && std::strstr(layout, "-hnd") == nullptr) {
      std::vector<T> got(queries_);
      CHECK(cudaMemcpy(got.data(), out_.template as<T>(), queries_ * sizeof(T),
                       cudaMemcpyDeviceToHost));
      double off = 0, of = 0;
      for (size_t i = 0; i < queries_; ++i) {
        const double x = double(float(got[i])) - want_[i];
        off += x * x;
        of += double(want_[i]) * want_[i];
      }
      const double error = std::sqrt(off / of);
      if (!(error < (c_.bf16 ? 1e-2 : 2e-3))) {
        std::printf("# WRONG: %s differs from plain attention by %.2g\n", method.c_str(), error);
      }
    }
    const int calls = c_.calls(2000);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    std::string trouble;
    try {
      for (int i = 0; i < calls; ++i) call(i % n_sets_);
    } catch (const std::exception& e) {
      trouble = e.what();
    }
    check(cudaStreamEndCapture(stream_, &graph), trouble.empty() ? "capture" : trouble.c_str());
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    std::vector<float> us;
    for (int i = 0; i < kReplays + 2; ++i) {  // two to warm up
      CHECK(cudaEventRecord(begin, stream_));
      CHECK(cudaGraphLaunch(exec, stream_));
      CHECK(cudaEventRecord(end, stream_));
      CHECK(cudaEventSynchronize(end));
      float ms = 0;
      CHECK(cudaEventElapsedTime(&ms, begin, end));
      if (i >= 2) us.push_back(ms * 1e3f / float(calls));
    }
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    print_row(method.c_str(), c_, layout, std::move(us));
  }

 private:
  // Of the NHD layout; only small cells are checked.
  void prepare_reference() {
    if (double(c_.batch) * c_.n_q_heads * c_.n > 1.7e7) return;
    const Memory out(queries_ * 4);
    reference<T><<<dim3(c_.n_q_heads, c_.batch), 1024, 0, stream_>>>(
        q_.template as<T>(), k_.template as<T>(), v_.template as<T>(), out.as<float>(), c_.n,
        c_.n_kv_heads, c_.n_q_heads / c_.n_kv_heads);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream_));
    want_.resize(queries_);
    CHECK(cudaMemcpy(want_.data(), out.as<float>(), queries_ * 4, cudaMemcpyDeviceToHost));
  }

 protected:
  Cell c_;
  cudaStream_t stream_;
  Clock::time_point end_;
  size_t set_, queries_;  ///< elements of one set's K, and of its queries
  int n_sets_;

 private:
  Memory k_, v_, q_, out_;
  std::vector<float> want_;
};

/// run(cell, stream, end) for all cells; `versions`: what is timed.
template <class Run>
int rival_main(int argc, char** argv, const char* versions, Run&& run) {
  Cells cells(argc, argv);
  cudaStream_t stream;
  cudaDeviceProp device{};
  try {
    CHECK(cudaGetDeviceProperties(&device, 0));
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  } catch (const std::exception& e) {
    std::printf("# failed: %s\n", e.what());
    return 1;
  }
  std::printf("# device=%s %s\n", device.name, versions);
  std::fflush(stdout);
  const auto fits = [](const Cell& c) {
    size_t room = 0, all = 0;
    cudaMemGetInfo(&room, &all);
    return std::max(8.0 * double(c.keys()), 4e8) + 1.5e9 <= double(room);
  };
  const int status = cells.run(
      fits, [&](const Cell& c) { run(c, stream, cells.end()); },
      [] { return cudaDeviceSynchronize() != cudaSuccess; });
  if (status == 0) cells.print_seconds(versions);
  return status;
}

}  // namespace rival
