#include "ggml/host.h"

#include <algorithm>
#include <cstdlib>
#include <exception>

#include "ggml/log.h"
#include "ggml/stats.h"
#include "hata/simd.h"
#include "weights/weights_file.h"

namespace hata::host {
namespace {

constexpr int kStaleLines = 10;  // so many graphs with stale codes are reported one by one

/// The options that decide what a store holds.
bool same_store(const Options& a, const Options& b) {
  return a.method == b.method && a.hata.rbit == b.hata.rbit && a.hata.seed == b.hata.seed &&
         a.hata.lengths == b.hata.lengths && a.hata.rerank == b.hata.rerank &&
         a.weights == b.weights && a.dense_layers.automatic == b.dense_layers.automatic &&
         (a.rule.budget.mass > 0.0) == (b.rule.budget.mass > 0.0);
}

bool is_cuda(const Real& real, ggml_backend_dev_t device) {
  if (real.ggml_backend_reg_name == nullptr) return false;
  ggml_backend_reg_t reg = real.ggml_backend_dev_backend_reg(device);
  return reg != nullptr && std::string_view(real.ggml_backend_reg_name(reg)) == "CUDA";
}

/// The CPU of the loaded ggml; its backends may have to be loaded first.
ggml_backend_dev_t cpu_device() {
  const auto by_type = reinterpret_cast<decltype(&ggml_backend_dev_by_type)>(
      find_function("ggml_backend_dev_by_type"));
  if (by_type == nullptr) return nullptr;
  if (ggml_backend_dev_t cpu = by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) return cpu;
  const auto load_all =
      reinterpret_cast<decltype(&ggml_backend_load_all)>(find_function("ggml_backend_load_all"));
  if (load_all != nullptr) load_all();
  return by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

}  // namespace

Host& Host::get() {
  static auto* host = new Host;
  return *host;
}

// --- options ----------------------------------------------------------------------------------

void Host::configure(std::string_view text) {
  const Options options = parse_options(text);
  const std::lock_guard lock(mutex_);
  set_config(options);
}

std::shared_ptr<const Config> Host::config() {
  const std::lock_guard lock(mutex_);
  if (config_ == nullptr) {
    try {
      set_config(options_of_environment());
    } catch (const Error& error) {
      set_config(parse_options("method=ggml"));
      bad_options_ = error.what();
      say(bad_options_ + "; attention stays dense");
    }
  }
  return config_;
}

void Host::set_config(const Options& options) {
  auto config = std::make_shared<Config>();
  config->options = options;
  if (!options.hands_off()) {
    config->hata = options.hata;
    if (options.weights != kAutoWeights && options.weights != "off") {
      config->hata.weights = weights::shared_weights(options.weights);
    }
    config->selector = make_selector(options.method, config->hata);
    simd_level();  // throws where HATA_SIMD asks too much: better here than in a step
  }
  if (config_ != nullptr) {
    config->generation = config_->generation + (same_store(options, config_->options) ? 0 : 1);
  }
  config_ = std::move(config);
  bad_options_.clear();
  idle_runs_.clear();
  idle_device_runs_.clear();
  set_quiet(options.quiet);
  if (options.stats) print_stats_on_signal();
}

// --- the gate ---------------------------------------------------------------------------------

Host::Gate Host::test(const Real& real, ggml_backend_dev_t cpu) {
  Gate gate{.real = &real, .passed = false, .failure = {}, .ops = {}, .layout = {}};
  if (cpu == nullptr) cpu = cpu_device();
  if (cpu == nullptr) {
    gate.failure = "ggml has no CPU device";
    return gate;
  }
  SelfTest test(real, cpu);
  gate.passed = test.run();
  gate.failure = test.failure();
  gate.ops = test.ops();
  gate.layout = test.layout();
  return gate;
}

const Host::Gate* Host::gate(const Real& real, ggml_backend_dev_t cpu) {
  if (const Gate* tested = tested_.load(std::memory_order_acquire)) return tested;
  const std::lock_guard lock(gate_mutex_);
  if (const Gate* tested = tested_.load(std::memory_order_relaxed)) return tested;
  gate_ = test(real, cpu);
  if (!gate_.passed) {
    const char* version = real.ggml_version != nullptr ? real.ggml_version() : "of unknown version";
    gate_.failure = std::string("ggml ") + version + ": " + gate_.failure;
    say("the self-test failed with " + gate_.failure + "; attention stays dense");
  }
  tested_.store(&gate_, std::memory_order_release);
  return &gate_;
}

int Host::self_test(std::string& reason) {
  const Real* real = first_real();
  if (real == nullptr) {
    reason = "no ggml is loaded";
    return -1;
  }
  const Gate* result = gate(*real, nullptr);
  reason = result->failure;
  return result->passed ? 1 : 0;
}

bool Host::at_work(std::string& reason) {
  const auto now = config();
  const Gate* tested = tested_.load(std::memory_order_acquire);
  const std::lock_guard lock(mutex_);
  if (!bad_options_.empty()) {
    reason = bad_options_;
  } else if (now->options.hands_off()) {
    reason = "the method is ggml";
  } else if (several_copies()) {
    reason = "this process has loaded several copies of ggml";
  } else if (tested == nullptr) {
    reason = "no graph has been computed yet";
  } else {
    reason = tested->failure;
  }
  return reason.empty();
}

// --- graphs -----------------------------------------------------------------------------------

ggml_status Host::compute(const Real& real, ggml_backend_t backend, ggml_cgraph* graph) {
  auto now = config();
  if (now->options.hands_off() && caches_.empty()) {
    return real.ggml_backend_graph_compute_async(backend, graph);
  }
  if (several_copies()) {
    if (!several_told_.exchange(true)) {
      say("this process has loaded several copies of ggml; attention stays dense");
    }
    caches_.all_changed();
    return real.ggml_backend_graph_compute_async(backend, graph);
  }
  ggml_backend_dev_t device = real.ggml_backend_get_device(backend);
  const bool on_cpu = real.ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
  const Gate* tested = gate(real, on_cpu ? device : nullptr);
  if (!tested->passed) return real.ggml_backend_graph_compute_async(backend, graph);
  const bool on_device = on_cpu ? CudaLibrary::stand_in() : is_cuda(real, device);
  if (!on_cpu && !on_device) {
    note_device(*tested, backend, graph);
    return real.ggml_backend_graph_compute_async(backend, graph);
  }
  return run(*tested, std::move(now), backend, graph, on_device);
}

void Host::note_device(const Gate& gate, ggml_backend_t backend, ggml_cgraph* graph) {
  const Real& real = *gate.real;
  ggml_tensor** nodes = real.ggml_graph_nodes(graph);
  for (int i = 0; i < real.ggml_graph_n_nodes(graph); ++i) {
    if (nodes[i]->op != gate.ops.flash_attn) continue;
    reasons_.add(Reason::device, [&] {
      return std::string("first seen: ") +
             real.ggml_backend_dev_name(real.ggml_backend_get_device(backend));
    });
  }
}

Shared Host::shared(const Gate& gate) {
  return {.real = *gate.real,
          .ops = gate.ops,
          .caches = caches_,
          .models = models_,
          .reasons = reasons_,
          .inspector = inspector_,
          .prefill_inspector = prefill_inspector_};
}

ggml_status Host::run(const Gate& gate, std::shared_ptr<const Config> config,
                      ggml_backend_t backend, ggml_cgraph* graph, bool on_device) {
  const Real& real = *gate.real;
  const uint64_t number = next_graph_.fetch_add(1, std::memory_order_relaxed);
  if (config->options.hands_off()) {
    caches_.graph_writes(real, gate.ops, graph, number);
    const ggml_status status = real.ggml_backend_graph_compute_async(backend, graph);
    caches_.end_of_graph(number);
    return status;
  }
  return on_device ? run_on_device(gate, config, backend, graph, number)
                   : run_on_cpu(gate, config, backend, graph, number);
}

ggml_status Host::run_on_cpu(const Gate& gate, const std::shared_ptr<const Config>& config,
                             ggml_backend_t backend, ggml_cgraph* graph, uint64_t number) {
  auto run = take_idle(idle_runs_, *config);
  if (run == nullptr) run = std::make_unique<GraphRun>(config, shared(gate));
  run->begin(graph, number);
  const ggml_status status = gate.real->ggml_backend_graph_compute_async(backend, graph);
  run->end();
  {
    const std::lock_guard lock(mutex_);
    totals_.prefill += run->prefill_counters();
  }
  give_back(idle_runs_, std::move(run));
  return status;
}

ggml_status Host::run_on_device(const Gate& gate, const std::shared_ptr<const Config>& config,
                                ggml_backend_t backend, ggml_cgraph* graph, uint64_t number) {
  auto run = take_idle(idle_device_runs_, *config);
  if (run == nullptr) {
    run = std::make_unique<DeviceRun>(config, shared(gate), gate.layout, device_inputs_);
  }
  const ggml_status status = run->compute(backend, graph, number);
  {
    const std::lock_guard lock(mutex_);
    totals_.device_steps += run->sparse_steps();
  }
  give_back(idle_device_runs_, std::move(run));
  return status;
}

template <class Run>
std::unique_ptr<Run> Host::take_idle(std::vector<std::unique_ptr<Run>>& idle,
                                     const Config& config) {
  const std::lock_guard lock(mutex_);
  if (idle.empty() || &idle.back()->config() != &config) return nullptr;
  auto run = std::move(idle.back());
  idle.pop_back();
  return run;
}

template <class Run>
void Host::give_back(std::vector<std::unique_ptr<Run>>& idle, std::unique_ptr<Run> run) {
  const VerifyCounts found = run->take_verify_counts();
  const std::lock_guard lock(mutex_);
  totals_.stages += run->counters();
  totals_.sparse_steps += run->sparse_steps();
  totals_.dense_steps += run->dense_steps();
  totals_.verify += found;
  run->reset_counters();
  if (found.stale > 0 && stale_lines_ < kStaleLines) {
    ++stale_lines_;
    say("VERIFY FAILED: " + std::to_string(found.stale) + " stale codes in one graph");
  }
  if (&run->config() == config_.get()) idle.push_back(std::move(run));
}

// A plan's graph is not seen: any key may have been written.
void Host::plan_compute() {
  if (!config()->options.hands_off()) reasons_.add(Reason::graph_plan);
  caches_.all_changed();
}

void Host::model_opened(const char* path) {
  if (path != nullptr) models_.opened(path);
}

// --- statistics -------------------------------------------------------------------------------

Stats Host::stats() {
  Stats s;
  s.at_work = at_work(s.why_off);
  s.code_bytes = caches_.code_bytes();
  s.peak_code_bytes = caches_.peak_code_bytes();
  s.caches = caches_.size();
  s.reasons = &reasons_;
  const std::lock_guard lock(mutex_);
  s.options = config_->options;
  s.totals = totals_;
  s.models = models_.paths();
  s.weights = models_.weights_in_use();
  return s;
}

std::string Host::stats_json() { return to_json(stats()); }

std::string Host::stats_text() {
  if (tested_.load(std::memory_order_acquire) == nullptr || !config()->options.stats) return {};
  return to_text(stats());
}

void Host::reset_stats() {
  const std::lock_guard lock(mutex_);
  totals_ = {};
  stale_lines_ = 0;
  reasons_.reset();
}

}  // namespace hata::host
