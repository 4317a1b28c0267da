// Waiting for another thread: a short spin, then the core is given to others.
#pragma once

#include <sched.h>

namespace hata {

inline void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until ready() is true.
template <class Ready>
void spin_until(Ready&& ready) {
  constexpr int kSpins = 2000;  // some 20 to 50 us: phases of a step end within that
  for (int i = 0; i < kSpins; ++i) {
    if (ready()) return;
    cpu_pause();
  }
  while (!ready()) sched_yield();
}

}  // namespace hata
