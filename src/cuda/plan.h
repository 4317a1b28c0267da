// How a step is laid out over a device: blocks, and what lies in their shared memory.
#pragma once

#include "launch.h"

namespace hata::cuda {

constexpr int kStaticBytes = 3072;    ///< static shared memory of the step kernel, at most
constexpr int kReservedBytes = 1024;  ///< of a block, by the system

struct Plan {
  int n_blocks = 0;  ///< of a cluster; 0: this device cannot do it
  int shared_bytes = 0;
  StepParams params{};
};

/// `fused`: the kernel attends, too.
Plan plan_step(const StepParams& p, const Device& device, bool fused);

}  // namespace hata::cuda
