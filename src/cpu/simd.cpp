#include "hata/simd.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "cpu/kernels.h"
#include "hata/types.h"

namespace hata {
namespace {

std::atomic<const cpu::Kernels*> g_kernels{nullptr};

bool cpu_has(SimdLevel level) {
#ifdef HATA_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi2") &&
                      __builtin_cpu_supports("avx512vpopcntdq");
  if (level == SimdLevel::avx2) return avx2;
  if (level == SimdLevel::avx512vpopcnt) return avx512;
#endif
  return level == SimdLevel::scalar;
}

const cpu::Kernels& table(SimdLevel level) {
#ifdef HATA_X86
  if (level == SimdLevel::avx2) return cpu::kAvx2Kernels;
  if (level == SimdLevel::avx512vpopcnt) return cpu::kAvx512Kernels;
#endif
  (void)level;
  return cpu::kScalarKernels;
}

std::string level_list() {
  std::string list;
  for (const SimdLevel level : available_simd()) {
    if (!list.empty()) list += ", ";
    list += simd_name(level);
  }
  return list;
}

const cpu::Kernels& choose() {
  const std::vector<SimdLevel> levels = available_simd();
  const char* name = std::getenv("HATA_SIMD");
  if (name == nullptr || *name == '\0') return table(levels.back());
  for (const SimdLevel level : levels) {
    if (std::string_view(name) == simd_name(level)) return table(level);
  }
  throw Error("HATA_SIMD is '" + std::string(name) + "'; available here: " + level_list());
}

}  // namespace

const cpu::Kernels& cpu::kernels() {
  const Kernels* current = g_kernels.load(std::memory_order_relaxed);
  if (current == nullptr) {
    const Kernels* chosen = &choose();
    // Threads that race here choose alike; a level forced meanwhile stays.
    if (g_kernels.compare_exchange_strong(current, chosen)) current = chosen;
  }
  return *current;
}

const char* simd_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::avx2:
      return "avx2";
    case SimdLevel::avx512vpopcnt:
      return "avx512vpopcnt";
    case SimdLevel::scalar:
      break;
  }
  return "scalar";
}

std::vector<SimdLevel> available_simd() {
  std::vector<SimdLevel> levels;
  for (const SimdLevel level : {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512vpopcnt}) {
    if (cpu_has(level)) levels.push_back(level);
  }
  return levels;
}

SimdLevel simd_level() { return cpu::kernels().level; }

void force_simd(SimdLevel level) {
  if (!cpu_has(level)) {
    throw Error("instruction set '" + std::string(simd_name(level)) +
                "' is not available; available here: " + level_list());
  }
  g_kernels.store(&table(level));
}

}  // namespace hata
