// The host's state: one per process, made at the first use and never destroyed (buffers are freed
// during exit).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ggml/caches.h"
#include "ggml/device_inputs.h"
#include "ggml/device_run.h"
#include "ggml/gate.h"
#include "ggml/graph_run.h"
#include "ggml/models.h"
#include "ggml/options.h"
#include "ggml/reasons.h"
#include "ggml/stats.h"

namespace hata::host {

class Host {
 public:
  static Host& get();

  // --- from the hooks -------------------------------------------------------------------------
  ggml_status compute(const Real& real, ggml_backend_t backend, ggml_cgraph* graph);
  void plan_compute();
  Caches& caches() { return caches_; }
  DeviceInputs& device_inputs() { return device_inputs_; }
  void model_opened(const char* path);

  // --- from the C interface -------------------------------------------------------------------
  /// Throws Error on bad options.
  void configure(std::string_view options);
  /// -1: no ggml; 0: failed, `reason` says why; 1: passed.
  int self_test(std::string& reason);
  bool at_work(std::string& reason);
  std::string stats_json();
  /// Empty where there is nothing to tell (a program without ggml, or without the option stats).
  std::string stats_text();
  void reset_stats();
  void set_inspector(const InspectorCall& inspector) { inspector_ = inspector; }
  void set_prefill_inspector(const InspectorCall& inspector) { prefill_inspector_ = inspector; }

 private:
  /// The self-test's result.
  struct Gate {
    const Real* real = nullptr;
    bool passed = false;
    std::string failure;
    Ops ops{};
    GraphLayout layout{};
  };

  Stats stats();
  std::shared_ptr<const Config> config();
  void set_config(const Options& options);
  /// cpu: the device to test with; nullptr: ggml's registry is asked for it.
  const Gate* gate(const Real& real, ggml_backend_dev_t cpu);
  Gate test(const Real& real, ggml_backend_dev_t cpu);
  Shared shared(const Gate& gate);
  ggml_status run(const Gate& gate, std::shared_ptr<const Config> config, ggml_backend_t backend,
                  ggml_cgraph* graph, bool on_device);
  ggml_status run_on_cpu(const Gate& gate, const std::shared_ptr<const Config>& config,
                         ggml_backend_t backend, ggml_cgraph* graph, uint64_t number);
  ggml_status run_on_device(const Gate& gate, const std::shared_ptr<const Config>& config,
                            ggml_backend_t backend, ggml_cgraph* graph, uint64_t number);
  template <class Run>
  std::unique_ptr<Run> take_idle(std::vector<std::unique_ptr<Run>>& idle, const Config& config);
  template <class Run>
  void give_back(std::vector<std::unique_ptr<Run>>& idle, std::unique_ptr<Run> run);
  void note_device(const Gate& gate, ggml_backend_t backend, ggml_cgraph* graph);

  std::mutex mutex_;
  std::shared_ptr<const Config> config_;
  std::string bad_options_;
  std::vector<std::unique_ptr<GraphRun>> idle_runs_;
  std::vector<std::unique_ptr<DeviceRun>> idle_device_runs_;
  Totals totals_;
  int stale_lines_ = 0;
  Models models_;
  std::atomic<uint64_t> next_graph_{1};

  std::mutex gate_mutex_;
  Gate gate_;
  std::atomic<const Gate*> tested_{nullptr};
  std::atomic<bool> several_told_{false};

  DeviceInputs device_inputs_;
  Caches caches_{&device_inputs_};
  Reasons reasons_;
  InspectorCall inspector_, prefill_inspector_;
};

}  // namespace hata::host
