// Which instruction set the CPU stages use. All give the same codes, scores and selected sets bit
// for bit (the scalar reference is the truth); attention agrees within 1e-5 of the largest value.
#pragma once

#include <string_view>
#include <vector>

namespace hata {

enum class SimdLevel { scalar, avx2, avx512vpopcnt };

const char* simd_name(SimdLevel level);

/// The levels this build holds and this CPU runs, slowest first; never empty.
std::vector<SimdLevel> available_simd();

/// The level in use: the best available one, or the one that the environment variable
/// HATA_SIMD=scalar|avx2|avx512vpopcnt names. Decided at the first call.
/// Throws Error (listing the available levels) where HATA_SIMD names another.
SimdLevel simd_level();

/// Forces a level from now on; for tests and benchmarks, not while a step runs.
/// Throws Error where it is not available.
void force_simd(SimdLevel level);

}  // namespace hata
