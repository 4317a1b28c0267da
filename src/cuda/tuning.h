// What a plan decides, fixed by hand: for the benchmark that finds out what is best.
#pragma once

namespace hata::cuda {

struct Tuning {
  int n_blocks = 0;  ///< 0: as planned
  int n_warps = 0;
  int splits = 0;
  int fused = -1;               ///< 0: choose, then attend; 1: one kernel
  long long* clocks = nullptr;  ///< device memory, [blocks][kParts] (clocks.cuh)
};
Tuning& tuning();

}  // namespace hata::cuda
