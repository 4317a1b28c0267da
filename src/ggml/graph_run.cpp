#include "ggml/graph_run.h"

#include <algorithm>
#include <string>

namespace hata::host {

GraphRun::GraphRun(std::shared_ptr<const Config> config, const Shared& shared)
    : config_(std::move(config)), shared_(shared), decoder_(config_->selector) {}

GraphRun::Task::Task(GraphRun& owner)
    : run(owner), call(owner.shared_.real, owner.shared_.ops, &GraphRun::run_node, this) {}

void GraphRun::begin(ggml_cgraph* graph, uint64_t number) {
  number_ = number;
  ggml_tensor** nodes = shared_.real.ggml_graph_nodes(graph);
  const int n_nodes = shared_.real.ggml_graph_n_nodes(graph);
  find_attention(nodes, n_nodes);
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
  sparse_steps_ = dense_steps_ = 0;
}

// Caches are made before the writes are marked, so that the first write counts, and for a prefill
// too: its order is the order of the tokens.
void GraphRun::find_attention(ggml_tensor** nodes, int n_nodes) {
  candidates_.clear();
  for (int i = 0; i < n_nodes; ++i) {
    ggml_tensor* node = nodes[i];
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
  const HeadShape& s = attention.shape;
  const bool known = s.head_dim >= kMinHeadDim && s.head_dim <= kMaxHeadDim &&
                     s.head_dim % 16 == 0 && s.n_q_heads % s.n_kv_heads == 0 &&
                     s.group() <= kMaxGroup;
  if (!known) return Reason::shape;
  return shared_.real.ggml_backend_buffer_is_host(attention.cache->buffer) ? Reason::none
                                                                           : Reason::device;
}

std::shared_ptr<Cache> GraphRun::cache_for(const Attention& attention) {
  const Selector& selector = *config_->selector;
  if (!selector.sparse() || attention.layer < config_->options.dense_layers) return nullptr;
  auto cache = shared_.caches.get(selector, config_->generation, attention,
                                  shared_.real.ggml_nbytes(attention.cache));
  if (!config_->options.verify || cache->data.store == nullptr) {
    cache->hashes.reset();
  } else if (cache->hashes == nullptr) {
    cache->hashes = std::make_unique<KeyHashes>(cache->n_cells());
    cache->data.index.changed(0, cache->n_cells());
  }
  return cache;
}

void GraphRun::take_over() {
  for (Candidate& c : candidates_) {
    Reason reason = Reason::none;
    if (c.attention.n_rows > config_->options.max_rows) {
      reason = Reason::prefill;
    } else if (c.cache != nullptr && c.cache->graph == number_) {
      if (c.cache->rows_unknown) reason = Reason::computed_rows;
      if (c.cache->last_write > c.node) reason = Reason::written_after;
    }
    if (reason != Reason::none) {
      shared_.reasons.add(reason);
      continue;
    }
    Task& task = next_task();
    task.attention = c.attention;
    task.cache = std::move(c.cache);
    prepare(task);
    task.call.put_into(c.attention.node);
  }
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
  for (const Step& step : task.steps) task.run.run_step(task, step, worker);
}

void GraphRun::run_step(Task& task, const Step& step, const Worker& worker) {
  Cache* cache = task.cache.get();
  const bool verify = cache != nullptr && cache->hashes != nullptr;
  if (verify) verifier_.before(step, cache->data.index, worker);
  decoder_.step(step, cache != nullptr ? &cache->data : nullptr, config_->options.rule, worker);
  const auto plans = decoder_.plans();
  const bool sparse =
      std::any_of(plans.begin(), plans.end(), [](const RowPlan& plan) { return plan.budget > 0; });
  if (worker.ith == 0) ++(sparse ? sparse_steps_ : dense_steps_);
  if (verify && sparse) {
    verifier_.after(step, plans, *cache->data.store, cache->view(), cache->row_bytes,
                    *cache->hashes, worker);
  }
  worker.barrier();  // the next step reuses what this one has filled
}

}  // namespace hata::host
