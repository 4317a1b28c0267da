// Attention steps on a GPU, timed: HATA, its stages, the exact path, Quest and Loki.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "hata/cuda.h"

namespace hata::bench {

/// One shape of step.
struct Cell {
  int batch = 1;
  int n_q_heads = 32, n_kv_heads = 8, head_dim = 128;
  int n_kv = 32768;
  hata_cuda_type type = HATA_CUDA_F16;
  int page_size = 0;  ///< 0: contiguous

  int pairs() const { return batch * n_kv_heads; }
  double row_bytes() const { return 2.0 * head_dim; }
  /// Keys and values.
  double cache_bytes() const { return 2.0 * pairs() * n_kv * row_bytes(); }
  /// Throws on "B:n_q_heads:n_kv_heads:n_kv[:f16|bf16[:page]]" that is none.
  static Cell parse(const std::string& text);
};

struct Options {
  std::vector<Cell> cells;
  std::vector<double> budgets = {512, 1.0 / 64};  ///< keys; below 1: a part of n_kv
  std::vector<std::string> methods = {"dense", "hata", "auto"};
  int rbit = 128;
  bool lengths = true;
  hata_cuda_score score = HATA_CUDA_SUM;  ///< of methods that name none
  bool alike = false;                     ///< keys about a common mean
  int late = 0;         ///< so many of the last keys are long, so that most are chosen there
  bool clocks = false;  ///< also: the parts of HATA's kernel
  double memory_gb = 70.0;
  double seconds = 1e9;  ///< no new cell is begun after this time
};

/// What `methods` may name, one a line.
const char* methods_help();

struct Row {
  Cell cell;
  std::string method, stage;
  int budget = 0;
  double us = 0, us_min = 0, us_max = 0;
  double bytes = 0;  ///< least that must be read and written
};

/// Calls `row` for each measurement as it comes. Returns the measured read bandwidth, GB/s.
double run(const Options& options, const std::function<void(double bandwidth)>& begin,
           const std::function<void(const Row&)>& row);

}  // namespace hata::bench
