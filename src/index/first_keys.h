// What a store measures on the first keys it sees, and then freezes.
#pragma once

#include <cstdint>

#include "hata/team.h"

namespace hata {

class FirstKeys {
 public:
  /// Calls found = measure(head) for every KV head, each time until head 0 has found keys: a cache
  /// may begin with unused cells alone. All threads of the team call it alike.
  template <class Fn>
  void measure_once(int n_heads, const Worker& worker, Fn&& measure) {
    const bool measured = measured_;
    worker.barrier();  // all have read measured_
    if (measured) return;
    worker.share(n_heads, [&](int64_t head) {
      const bool found = measure(static_cast<int>(head));
      if (head == 0) measured_ = found;
    });
  }

 private:
  bool measured_ = false;
};

}  // namespace hata
