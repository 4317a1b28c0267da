// One computation of a graph: its attention nodes call us while it lasts, and are ggml's own again
// after it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "ggml/caches.h"
#include "ggml/gate.h"
#include "ggml/models.h"
#include "ggml/options.h"
#include "ggml/reasons.h"
#include "methods/prefill.h"

namespace hata::host {

/// The options in force, and what is made from them. Immutable; a change makes a new one.
struct Config {
  Options options;
  HataOptions hata;                          ///< of the options, with the weights that they name
  std::shared_ptr<const Selector> selector;  ///< nullptr: hands off
  uint64_t generation = 0;                   ///< changes where stores must be made anew

  /// Whether the options keep a layer dense, whatever its weights say.
  bool is_dense(int layer) const {
    const DenseLayers& dense = options.dense_layers;
    return !selector->sparse() || (!dense.automatic && dense.has(layer, nullptr));
  }
};

/// Who looks at what sparse steps choose (include/hata/inspect.h); nobody where fn is nullptr.
struct InspectorCall {
  void (*fn)(const void* step, void* user) = nullptr;
  void* user = nullptr;
};

/// What the graphs of a process share.
struct Shared {
  const Real& real;
  const Ops& ops;
  Caches& caches;
  Models& models;
  Reasons& reasons;
  const InspectorCall& inspector;
  const InspectorCall& prefill_inspector;
};

/// That of a layer that stays dense.
LayerMethod dense_method(const HataOptions& hata);

/// The method for a layer whose codes are made anew: with the trained weights of its model, which
/// is told by the norm before the attention, one of the graph's nodes.
LayerMethod method_for_layer(const Shared& shared, const Config& config,
                             std::span<ggml_tensor* const> nodes, int layer);

/// Kept from graph to graph, so that the steady state allocates nothing; used by one at a time.
class GraphRun {
 public:
  GraphRun(std::shared_ptr<const Config> config, const Shared& shared);

  const Config& config() const { return *config_; }

  /// Marks what the graph will write, and takes over the attention nodes that qualify.
  void begin(ggml_cgraph* graph, uint64_t number);
  /// Gives them back.
  void end();

  int64_t sparse_steps() const { return sparse_steps_; }
  int64_t dense_steps() const { return dense_steps_; }
  VerifyCounts take_verify_counts() { return verifier_.take_counts(); }
  const StageCounters& counters() const { return decoder_.counters(); }
  const PrefillCounters& prefill_counters() const { return prefill_.counters(); }
  void reset_counters();

 private:
  struct Candidate {
    Attention attention;
    std::shared_ptr<Cache> cache;
    int node;
  };

  /// An attention node taken over.
  struct Task {
    explicit Task(GraphRun& owner);

    GraphRun& run;
    CustomCall call;
    Attention attention;
    std::shared_ptr<Cache> cache;  ///< may be nullptr where the layer stays dense
    bool prefill = false;          ///< more than max_rows rows: dense, by its own kernel
    std::vector<Row> rows;         ///< [stream][row]
    std::vector<Step> steps;       ///< [stream]
  };

  void find_attention();
  void take_over();
  bool is_prefill(const Attention& attention) const;
  Reason in_the_way(const Candidate& candidate) const;
  Reason qualifies(ggml_tensor* node, Attention& attention) const;
  std::shared_ptr<Cache> cache_for(const Attention& attention);
  Task& next_task();
  void prepare(Task& task);
  void run_prefill(const Task& task, const Step& step, const Worker& worker);
  void run_step(Task& task, const Step& step, const Worker& worker);
  void inspect(const Task& task, const Step& step) const;
  void inspect_prefill(const Task& task, const Step& step) const;
  static void run_node(ggml_tensor* node, int ith, int nth, void* task);

  std::shared_ptr<const Config> config_;
  Shared shared_;
  Decoder decoder_;
  Prefill prefill_;
  TeamState team_;
  Verifier verifier_;
  std::span<ggml_tensor* const> nodes_;  // of the graph at hand
  std::vector<Candidate> candidates_;
  std::deque<Task> tasks_;  // the first n_tasks_ are in use
  size_t n_tasks_ = 0;
  uint64_t number_ = 0;
  int64_t sparse_steps_ = 0;
  int64_t dense_steps_ = 0;
  int64_t unobserved_rows_ = 0;  ///< of the decoder's, those that were told
};

}  // namespace hata::host
