#include "ggml/graph_run.h"

#include <algorithm>
#include <string>

#include "core/huge_pages.h"
#include "hata/inspect.h"
#include "methods/totals.h"

namespace hata::host {

GraphRun::GraphRun(std::shared_ptr<const Config> config, const Shared& shared)
    : config_(std::move(config)), shared_(shared), decoder_(config_->selector) {}

GraphRun::Task::Task(GraphRun& owner)
    : run(owner), call(owner.shared_.real, owner.shared_.ops, &GraphRun::run_node, this) {}

void GraphRun::begin(ggml_cgraph* graph, uint64_t number) {
  number_ = number;
  nodes_ = {shared_.real.ggml_graph_nodes(graph),
            static_cast<size_t>(shared_.real.ggml_graph_n_nodes(graph))};
  find_attention();
  shared_.caches.graph_writes(shared_.real, shared_.ops, graph, number);
  take_over();
}

void GraphRun::end() {
  for (size_t i = 0; i < n_tasks_; ++i) {
    tasks_[i].call.take_out();
    tasks_[i].cache.reset();
  }
  n_tasks_ = 0;
  candidates_.clear();
  shared_.caches.end_of_graph(number_);
}

void GraphRun::reset_counters() {
  decoder_.reset_counters();
  unobserved_rows_ = 0;
  prefill_.reset_counters();
  sparse_steps_ = dense_steps_ = 0;
}

// Caches are made before the writes are marked, so that the first write counts, and for a prefill
// too: its order is the order of the tokens.
void GraphRun::find_attention() {
  candidates_.clear();
  for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
    ggml_tensor* node = nodes_[static_cast<size_t>(i)];
    if (node->op == shared_.ops.mul_mat) {
      if (cache_layer(root_of(node->src[0])->name) >= 0) {
        shared_.reasons.add(Reason::no_flash_attention);
      }
      continue;
    }
    if (node->op != shared_.ops.flash_attn) continue;
    Candidate candidate{.attention = {}, .cache = nullptr, .node = i};
    const Reason reason = qualifies(node, candidate.attention);
    if (reason != Reason::none) {
      shared_.reasons.add(reason, [&] { return describe(shared_.real, reason, node); });
      continue;
    }
    try {
      candidate.cache = cache_for(candidate.attention);
    } catch (const std::bad_alloc&) {
      shared_.reasons.add(Reason::memory);
      continue;
    }
    candidates_.push_back(std::move(candidate));
  }
}

Reason GraphRun::qualifies(ggml_tensor* node, Attention& attention) const {
  const Reason reason = read_attention(shared_.ops, node, attention);
  if (reason != Reason::none) return reason;
  if (attention.type != GGML_TYPE_F16) return Reason::cache_type;  // no kernels on CPUs
  const HeadShape& s = attention.shape;
  const bool known = s.head_dim >= kMinHeadDim && s.head_dim <= kMaxHeadDim &&
                     s.head_dim % 16 == 0 && s.n_q_heads % s.n_kv_heads == 0 &&
                     s.group() <= kMaxGroup;
  if (!known) return Reason::shape;
  return shared_.real.ggml_backend_buffer_is_host(attention.cache->buffer) ? Reason::none
                                                                           : Reason::device;
}

std::shared_ptr<Cache> GraphRun::cache_for(const Attention& attention) {
  if (config_->is_dense(attention.layer) && !config_->options.observe) return nullptr;
  auto cache = shared_.caches.get(
      [&] { return method_for_layer(shared_, *config_, nodes_, attention.layer); },
      config_->generation, attention, shared_.real.ggml_nbytes(attention.cache));
  if (config_->options.huge_pages && !cache->in_huge_pages) {
    cache->in_huge_pages = true;
    const ggml_tensor* values = attention.node->src[kV];
    if (values->view_src != nullptr) values = values->view_src;
    for (const ggml_tensor* tensor : {attention.cache, values}) {
      move_to_huge_pages(tensor->data, shared_.real.ggml_nbytes(tensor));
    }
  }
  if (!cache->data.why_dense.empty()) {
    shared_.reasons.add(Reason::weights, [&] { return cache->data.why_dense; });
  }
  cache->watch(config_->options.verify);
  if (config_->options.observe && cache->data.totals == nullptr) {
    cache->data.totals = std::make_unique<AttentionTotals>(cache->shape, cache->n_cells());
  }
  return cache;
}

LayerMethod dense_method(const HataOptions& hata) { return {make_selector("dense", hata), true}; }

LayerMethod method_for_layer(const Shared& shared, const Config& config,
                             std::span<ggml_tensor* const> nodes, int layer) {
  const Options& options = config.options;
  const std::string name = "blk." + std::to_string(layer) + ".attn_norm.weight";
  HataOptions hata = config.hata;
  for (const ggml_tensor* node : nodes) {
    const ggml_tensor* norm = node->src[1];
    if (norm == nullptr || name != norm->name) continue;
    std::string bytes;
    if (!read_tensor(shared.real, norm, bytes)) break;
    const ModelWeights model = shared.models.of(name, bytes, options.weights == kAutoWeights);
    hata.model = model.fingerprint;
    if (hata.weights == nullptr) hata.weights = model.weights;
    break;
  }
  const bool dense = options.dense_layers.has(layer, hata.weights.get());
  const LayerMethod method{make_selector(options.method, hata), dense};
  const bool needs = options.rule.budget.mass > 0.0 && method.selector->sparse() && !dense;
  if (needs && method.selector->kept_mass(layer) == nullptr) {
    shared.reasons.add(Reason::needs);
    return dense_method(hata);
  }
  return dense ? dense_method(hata) : method;
}

void GraphRun::take_over() {
  for (Candidate& c : candidates_) {
    const Reason reason = in_the_way(c);
    if (reason != Reason::none) {
      shared_.reasons.add(reason);
      continue;
    }
    Task& task = next_task();
    task.attention = c.attention;
    task.prefill = is_prefill(c.attention);
    task.cache = std::move(c.cache);
    prepare(task);
    task.call.put_into(c.attention.node);
  }
}

bool GraphRun::is_prefill(const Attention& attention) const {
  return attention.n_rows > config_->options.max_rows;
}

// A prefill needs no codes, so that nothing else is in its way.
Reason GraphRun::in_the_way(const Candidate& c) const {
  if (is_prefill(c.attention)) {
    return config_->options.prefill && Prefill::fast() ? Reason::none : Reason::prefill;
  }
  if (c.cache == nullptr || c.cache->graph != number_) return Reason::none;
  if (c.cache->last_write > c.node) return Reason::written_after;
  return c.cache->rows_unknown ? Reason::computed_rows : Reason::none;
}

GraphRun::Task& GraphRun::next_task() {
  if (n_tasks_ == tasks_.size()) tasks_.emplace_back(*this);
  return tasks_[n_tasks_++];
}

void GraphRun::prepare(Task& task) {
  const Attention& a = task.attention;
  task.rows.resize(static_cast<size_t>(a.n_rows * a.n_streams));
  task.steps.clear();
  for (int64_t s = 0; s < a.n_streams; ++s) {
    const std::span<Row> rows(&task.rows[static_cast<size_t>(s * a.n_rows)],
                              static_cast<size_t>(a.n_rows));
    task.steps.push_back(a.step(s, rows));
  }
}

// All of ggml's threads come here.
void GraphRun::run_node(ggml_tensor*, int ith, int nth, void* user) {
  Task& task = *static_cast<Task*>(user);
  const Worker worker{.ith = ith, .nth = nth, .team = &task.run.team_};
  for (const Step& step : task.steps) {
    if (task.prefill) {
      task.run.run_prefill(task, step, worker);
    } else {
      task.run.run_step(task, step, worker);
    }
  }
}

void GraphRun::run_prefill(const Task& task, const Step& step, const Worker& worker) {
  prefill_.step(step, worker);
  if (task.cache != nullptr && task.cache->data.totals != nullptr) {
    task.cache->data.totals->observe(step, task.cache->data.index, worker);
  }
  if (worker.ith == 0) inspect_prefill(task, step);
}

void GraphRun::run_step(Task& task, const Step& step, const Worker& worker) {
  Cache* cache = task.cache.get();
  if (cache != nullptr && (cache->dense || config_->is_dense(task.attention.layer)))
    cache = nullptr;
  const bool verify = cache != nullptr && cache->hashes != nullptr;
  if (verify) verifier_.before(step, cache->data.index, worker);
  decoder_.step(step, cache != nullptr ? &cache->data : nullptr, config_->options.rule, worker);
  if (worker.ith == 0 && decoder_.counters().unobserved_rows > unobserved_rows_) {
    unobserved_rows_ = decoder_.counters().unobserved_rows;
    shared_.reasons.add(Reason::unobserved);
  }
  const auto plans = decoder_.plans();
  const bool sparse =
      std::any_of(plans.begin(), plans.end(), [](const RowPlan& plan) { return plan.budget > 0; });
  if (worker.ith == 0) ++(sparse ? sparse_steps_ : dense_steps_);
  if (verify && sparse) {
    verifier_.after(step, plans, *cache->data.store, cache->view(), cache->row_bytes,
                    *cache->hashes, worker);
  }
  if (sparse && worker.ith == 0 && shared_.inspector.fn != nullptr) inspect(task, step);
  worker.barrier();  // the next step reuses what this one has filled
}

void GraphRun::inspect(const Task& task, const Step& step) const {
  const Inspection seen{.layer = task.attention.layer,
                        .step = step,
                        .plans = decoder_.plans(),
                        .selection = decoder_.selection(),
                        .index = task.cache->data.index};
  shared_.inspector.fn(&seen, shared_.inspector.user);
}

void GraphRun::inspect_prefill(const Task& task, const Step& step) const {
  if (shared_.prefill_inspector.fn == nullptr) return;
  const PrefillInspection seen{.layer = task.attention.layer, .step = step};
  shared_.prefill_inspector.fn(&seen, shared_.prefill_inspector.user);
}

}  // namespace hata::host
