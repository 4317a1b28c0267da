// One decode step, top to bottom: which keys are valid -> what is kept of them is brought up to
// date -> the selector chooses -> attend.
#pragma once

#include <memory>

#include "hata/selector.h"

namespace hata {

/// When a row is sparse.
struct SparseRule {
  Budget budget;
  int64_t min_ctx = 1024;  ///< rows with fewer valid keys attend to all of them
};

/// Runs steps; holds the memory they need (grown, never shrunk: no allocation in the steady
/// state). One per set of threads that run a step together.
class Decoder {
 public:
  explicit Decoder(std::shared_ptr<const Selector> selector);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// Attends for every row of `step`. All threads of the team call it with the same arguments.
  /// cache nullptr (or a rule that keeps a row dense): all valid keys, the exact path.
  /// The view's cells follow one another in memory as they do in the index.
  void step(const Step& step, LayerCache* cache, const SparseRule& rule, const Worker& worker);

  const StageCounters& counters() const;
  void reset_counters();
  const Selector& selector() const;

  /// The keys chosen in the last step (rows that stayed dense have none); for tests and
  /// evaluation.
  const Selection& selection() const;
  std::span<const RowPlan> plans() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hata
