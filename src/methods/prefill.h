// Dense attention of steps with many rows (a prefill). Where decoding reads each key once for a few
// rows, a prefill is bound by arithmetic, so that it has a kernel of its own (cpu/prefill.h).
#pragma once

#include <vector>

#include "cpu/prefill.h"
#include "hata/selector.h"
#include "hata/team.h"

namespace hata {

struct PrefillCounters {
  int64_t steps = 0;
  int64_t rows = 0;
  int64_t ns = 0;

  PrefillCounters& operator+=(const PrefillCounters& other);
};

/// Runs steps; keeps their memory (grown, never shrunk). One per set of threads that run a step
/// together.
class Prefill {
 public:
  /// False where the instruction set in use has no fast kernel.
  static bool fast();

  /// All rows of the step attend to all their valid keys. All threads of the team call it with the
  /// same arguments; a row's result depends neither on the threads nor on the other rows.
  void step(const Step& step, const Worker& worker);

  const PrefillCounters& counters() const { return counters_; }
  void reset_counters() { counters_ = {}; }

 private:
  void prepare(const Step& step, int n_threads);
  void read_mask(const Step& step, int64_t row);
  void run_item(const Step& step, int64_t item, int thread);

  int64_t n_tiles_ = 0;  ///< of a row's mask
  int rows_per_item_ = 0;
  int64_t items_per_head_ = 0;
  std::vector<const uint16_t*> masks_;  ///< [row]
  std::vector<cpu::TileMask> tiles_;    ///< [row][n_tiles]
  std::vector<float> slopes_;           ///< [n_q_heads]
  std::vector<float> memory_;           ///< [thread][thread_floats]
  int64_t thread_floats_ = 0;
  PrefillCounters counters_;
};

}  // namespace hata
