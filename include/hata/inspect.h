// What one attention step chose, for evaluation: see hata_ggml_set_inspector (hata/ggml.h).
#pragma once

#include <span>

#include "hata/index.h"
#include "hata/selector.h"

namespace hata {

/// A step with a sparse row, after it was attended to. All of it is valid during the call alone,
/// which comes on one of the step's threads while the others wait.
struct Inspection {
  int layer;
  const Step& step;
  std::span<const RowPlan> plans;  ///< [row]; budget 0: the row stayed dense
  const Selection& selection;      ///< of the sparse rows
  const CellIndex& index;
};

/// A batch of many rows (a prefill) of one stream, its keys in the cache: on a CPU after it was
/// attended to; on a CUDA device before, a copy without values and outputs. See
/// hata_ggml_set_prefill_inspector.
struct PrefillInspection {
  int layer;
  const Step& step;
};

}  // namespace hata
