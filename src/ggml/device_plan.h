// What the rows of an attention node on a device choose from, and how many keys. Layers with the
// same mask and the same history of writes share a plan.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ggml/device_inputs.h"
#include "ggml/device_lane.h"
#include "ggml/node.h"
#include "hata/decode.h"
#include "hata/weights.h"
#include "methods/window.h"

namespace hata::host {

/// All that a plan depends on, besides the options.
struct PlanKey {
  PlanKey(const Attention& a, std::shared_ptr<const MaskBits> bits, const LayerCache& cache,
          const Window& forced);
  bool operator==(const PlanKey&) const = default;

  std::shared_ptr<const MaskBits> mask;
  int64_t n_rows;  ///< per stream
  int64_t n_streams;
  int64_t first_cell;
  int64_t stream_cells;
  const KeptMass* kept_mass;
  uint64_t history;  ///< of the layer's CellIndex
  Window window;     ///< keys that are always kept
};

class DevicePlan {
 public:
  DevicePlan(PlanKey key, const SparseRule& rule, const Attention& attention);

  const PlanKey& key() const { return key_; }
  int64_t n_kv() const { return key_.mask->n_kv; }
  int64_t first_cell(int64_t stream) const { return key_.first_cell + stream * key_.stream_cells; }

  /// [stream][row]; budget 0: the row attends to all its keys.
  std::span<const RowPlan> rows() const { return rows_; }
  std::span<const RowPlan> rows(int64_t stream) const;
  /// Whether a row chooses: of any stream, or of this one.
  bool sparse() const { return sparse_; }
  bool sparse(int64_t stream) const;
  /// That any row attends to.
  int64_t most_keys() const { return most_keys_; }

  // --- on the device -------------------------------------------------------------------------
  /// What hata_cuda_step asks for of these names. Without bits, a row's keys are its first n_kv
  /// cells, and it always keeps the first `sink` and the last `recent` of them: one sequence that
  /// was written from the front on. The kernels are much faster then.
  struct OnDevice {
    const uint32_t* valid = nullptr;
    const uint32_t* forced = nullptr;
    int64_t bit_stride = 0;
    const int32_t* n_kv = nullptr;
    int max_n_kv = 0;
    int sink = 0, recent = 0;
    const int32_t* budgets = nullptr;  ///< nullptr: there is nothing on the device yet
    const int32_t* sequences = nullptr;
  };
  /// Enqueues the copy. codes_cells: cells of a stream of the cache. False: it failed.
  bool upload(const CellIndex& index, int64_t codes_cells, DeviceLane& lane);
  /// After upload().
  const OnDevice& on_device() const { return on_device_; }
  bool by_bits() const { return on_device_.valid != nullptr; }

 private:
  void plan_row(int64_t r, int64_t of_mask, const SparseRule& rule, int n_heads);
  bool upload_bits(const CellIndex& index, DeviceLane& lane);
  bool is_plain(const CellIndex& index);
  bool upload_rows(int64_t codes_cells, DeviceLane& lane);

  PlanKey key_;
  std::vector<RowPlan> rows_;
  bool sparse_ = false;
  int64_t most_keys_ = 0;
  OnDevice on_device_;
};

}  // namespace hata::host
