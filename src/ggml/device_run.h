// One computation of a graph on a CUDA device: it is computed in parts, and between them our
// kernels take the place of attention nodes that choose keys. All other nodes, dense attention
// among them, are ggml's own.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ggml/cuda_library.h"
#include "ggml/device_codes.h"
#include "ggml/device_inputs.h"
#include "ggml/device_lane.h"
#include "ggml/device_plan.h"
#include "ggml/graph_cut.h"
#include "ggml/graph_run.h"
#include "ggml/host_copy.h"

namespace hata::host {

/// Kept from graph to graph; used by one at a time.
class DeviceRun {
 public:
  DeviceRun(std::shared_ptr<const Config> config, const Shared& shared, const GraphLayout& layout,
            const DeviceInputs& inputs);

  const Config& config() const { return *config_; }

  /// In the place of ggml_backend_graph_compute_async.
  ggml_status compute(ggml_backend_t backend, ggml_cgraph* graph, uint64_t number);

  int64_t sparse_steps() const { return sparse_steps_; }
  int64_t dense_steps() const { return dense_steps_; }
  const StageCounters& counters() const { return counters_; }
  VerifyCounts take_verify_counts();
  void reset_counters();

 private:
  struct Candidate {
    Attention attention;
    std::shared_ptr<Cache> cache;  ///< nullptr: the options keep the layer dense
    int node;
  };

  struct Task {
    Attention attention;
    std::shared_ptr<Cache> cache;
    int node;
    DevicePlan* plan;
  };

  // --- before the graph is computed ---------------------------------------------------------
  DeviceLane* find_lane(ggml_backend_dev_t dev, const ggml_tensor* cache);
  std::string make_lane(ggml_backend_dev_t dev, const ggml_tensor* cache);
  void find_attention(ggml_backend_t backend);
  Reason qualifies(ggml_tensor* node, Attention& attention) const;
  std::shared_ptr<Cache> cache_for(const Attention& attention);
  void plan_tasks();
  Reason plan_task(const Candidate& candidate);
  std::shared_ptr<const MaskBits> mask_of(const Attention& attention);
  DevicePlan& plan_for(const Candidate& candidate, std::shared_ptr<const MaskBits> mask);
  void count(const Attention& attention, const Cache& cache, const DevicePlan& plan);

  // --- while it is computed: false says that the node is left to ggml ------------------------
  ggml_status compute_part(ggml_backend_t backend, ggml_cgraph* graph, int first, int n);
  ggml_status compute_parts(ggml_backend_t backend, ggml_cgraph* graph);
  ggml_status compute_watched(ggml_backend_t backend, ggml_cgraph* graph);
  bool worked(hata_cuda_status status);
  bool done(bool by_the_lane);
  bool upload_slopes(const Attention& attention);
  bool run_task(Task& task, ggml_backend_t backend);
  bool encodes_in_passing(const Task& task);
  bool refresh(const Task& task, int64_t stream);
  bool measure(const Cache& cache, DeviceCodes& codes);
  bool copy_rows(const Cache& cache, std::span<const int32_t> cells);
  CacheView host_rows(const Cache& cache);
  bool decode(const Task& task, bool encode_last);
  hata_cuda_cache cache_of(const Task& task) const;
  hata_cuda_shape shape_of(const Task& task) const;

  // --- with the option verify ----------------------------------------------------------------
  Step host_step(const Task& task, int64_t stream) const;
  void verify_before(const Task& task);
  void verify_after(const Task& task);
  void verify_mask(const Task& task);

  std::shared_ptr<const Config> config_;
  Shared shared_;
  GraphLayout layout_;
  const DeviceInputs& inputs_;
  const std::optional<ScoreRule> score_;  ///< nothing: it is not one for devices
  const CudaLibrary* cuda_ = nullptr;
  uint64_t number_ = 0;

  std::vector<std::unique_ptr<DeviceLane>> lanes_;
  std::map<ggml_backend_dev_t, std::string> unusable_;  ///< devices, and why

  // Of the graph at hand:
  std::span<ggml_tensor* const> nodes_;
  DeviceLane* lane_ = nullptr;
  std::vector<Candidate> candidates_;
  std::vector<std::pair<const ggml_tensor*, std::shared_ptr<const MaskBits>>> masks_;
  std::deque<DevicePlan> plans_;
  std::vector<Task> tasks_;
  const int64_t* cells_on_device_ = nullptr;  ///< uploaded_cells_
  const float* slopes_on_device_ = nullptr;   ///< slopes_
  std::string failure_;                       ///< of the last CUDA call that failed

  // Memory that is used again:
  std::vector<int32_t> stale_;  // cells of one stream's view
  std::vector<int64_t> cells_;  // the same, from the stream's first cell on
  std::vector<int64_t> uploaded_cells_;
  std::vector<float> slopes_;
  std::vector<std::byte> rows_;   // keys that came to the host
  std::vector<float> wide_rows_;  // the same of q8_0
  HostCopy host_copy_;

  std::deque<Verifier> verifiers_;  // [stream]
  int64_t wrong_masks_ = 0;
  StageCounters counters_;
  int64_t sparse_steps_ = 0;
  int64_t dense_steps_ = 0;
};

}  // namespace hata::host
