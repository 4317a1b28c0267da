// hata bench attn --device cuda: the step of a GPU, by the same measurements as hata-bench-cuda.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hata/selector.h"
#include "output.h"

namespace hata::cli {

struct CudaAttnOptions {
  std::vector<int64_t> depths;
  HeadShape shape;
  std::string type;
  std::vector<Budget> budgets;
  int batch = 1;
  std::vector<std::string> methods;  ///< empty: dense, hata and auto
  int rbit = 128;
  bool lengths = true;
  ScoreRule score = ScoreRule::sum;  ///< of `hata`, `hata-early` and `auto`
  double memory_gb = 8.0;
  Format format = Format::md;
};

/// Throws Error where there is no device, or the program was built without CUDA's compiler.
void bench_attn_cuda(const CudaAttnOptions& options);

}  // namespace hata::cli
