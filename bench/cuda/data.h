// Random caches on the device, several of them so that a benchmark never finds one in the L2, and
// the clock: CUDA graphs of many steps, over all caches in turn.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "hata/cuda.h"

namespace hata::bench {

/// Throws with the text of a CUDA error.
void check(cudaError_t error, const char* what);
void check(hata_cuda_status status, const char* what);

/// Device memory.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t n) : n_(n) {
    if (n > 0) check(cudaMalloc(reinterpret_cast<void**>(&data_), n * sizeof(T)), "cudaMalloc");
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(n_, other.n_);
    return *this;
  }
  T* get() const { return data_; }
  size_t size() const { return n_; }
  void zero() { check(cudaMemset(data_, 0, n_ * sizeof(T)), "cudaMemset"); }

 private:
  T* data_ = nullptr;
  size_t n_ = 0;
};

/// Fills with values of a normal distribution, about.
/// period > 0: about a mean of its own for each of `period` neighbours, three times as large as
/// what differs, as keys of real models are alike.
void fill_normal(void* to, hata_cuda_type type, size_t n, uint64_t seed, float scale,
                 cudaStream_t stream, int period = 0);
/// A permutation of 0 .. n - 1 (n a power of two), as a block table of pages out of order.
void fill_permutation(int32_t* to, int n, uint64_t seed, cudaStream_t stream);

/// GB/s of a kernel that only reads, the best of a few launches.
double read_bandwidth(cudaStream_t stream);

struct Time {
  double median, min, max;  ///< microseconds a call
};
/// One CUDA graph of calls that take the sets in turn, replayed.
Time time_graph(const std::function<void(int set)>& enqueue, int n_sets, double expected_us,
                cudaStream_t stream);

}  // namespace hata::bench
