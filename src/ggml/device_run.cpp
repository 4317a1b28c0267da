#include "ggml/device_run.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "core/q8.h"
#include "ggml/log.h"
#include "ggml/rotation.h"
#include "hata/inspect.h"

namespace hata::host {
namespace {

constexpr int kMaxDeviceGroup = 16;
constexpr int64_t kCellsMeasured = 2048;  // copied at first for mean lengths

int64_t elements(size_t bytes) { return static_cast<int64_t>(bytes / sizeof(float)); }

// Its events fork and join streams inside a graph, and know nothing of parts.
bool graph_is_reordered() {
  const char* value = std::getenv("GGML_CUDA_GRAPH_OPT");
  return value != nullptr && std::atoi(value) == 1;
}

/// Whether row r of all streams starts r rows from the first.
bool even(const ggml_tensor* tensor, int row_dim, int64_t n_rows, int64_t n_streams) {
  return n_streams == 1 || tensor->nb[3] == static_cast<size_t>(n_rows) * tensor->nb[row_dim];
}

}  // namespace

DeviceRun::DeviceRun(std::shared_ptr<const Config> config, const Shared& shared,
                     const GraphLayout& layout, const DeviceInputs& inputs)
    : config_(std::move(config)),
      shared_(shared),
      layout_(layout),
      inputs_(inputs),
      score_(config_->selector->by_codes_alone()) {}

ggml_status DeviceRun::compute(ggml_backend_t backend, ggml_cgraph* graph, uint64_t number) {
  const Real& real = shared_.real;
  number_ = number;
  nodes_ = {real.ggml_graph_nodes(graph), static_cast<size_t>(real.ggml_graph_n_nodes(graph))};
  find_attention(backend);
  shared_.caches.graph_writes(real, shared_.ops, graph, number);
  plan_tasks();
  const bool watched =
      shared_.prefill_inspector.fn != nullptr && layout_.known() && real.missing_on_device.empty();
  const ggml_status status = !tasks_.empty() ? compute_parts(backend, graph)
                             : watched       ? compute_watched(backend, graph)
                                       : real.ggml_backend_graph_compute_async(backend, graph);
  tasks_.clear();
  candidates_.clear();
  masks_.clear();
  plans_.clear();
  shared_.caches.end_of_graph(number);
  return status;
}

void DeviceRun::reset_counters() {
  counters_ = {};
  sparse_steps_ = dense_steps_ = 0;
}

VerifyCounts DeviceRun::take_verify_counts() {
  VerifyCounts all;
  for (Verifier& verifier : verifiers_) all += verifier.take_counts();
  all.stale += std::exchange(wrong_masks_, 0);
  return all;
}

// --- which nodes ------------------------------------------------------------------------------

// The lane of the device whose graph it is; nullptr: unusable_ says why there is none.
DeviceLane* DeviceRun::find_lane(ggml_backend_dev_t dev, const ggml_tensor* cache) {
  const auto find = [&] {
    const auto at = std::find_if(lanes_.begin(), lanes_.end(),
                                 [&](const auto& lane) { return lane->dev() == dev; });
    return at != lanes_.end() ? at->get() : nullptr;
  };
  if (DeviceLane* lane = find()) return lane;
  if (unusable_.contains(dev)) return nullptr;
  const std::string why = make_lane(dev, cache);
  if (!why.empty()) unusable_[dev] = why;
  return find();
}

// Empty: there is one now.
std::string DeviceRun::make_lane(ggml_backend_dev_t dev, const ggml_tensor* cache) {
  const Real& real = shared_.real;
  if (!real.missing_on_device.empty()) {
    return "this ggml has no function " + real.missing_on_device;
  }
  if (!layout_.known()) return "graphs of this ggml cannot be computed in parts";
  if (graph_is_reordered()) return "GGML_CUDA_GRAPH_OPT=1 is set";
  std::string why;
  cuda_ = CudaLibrary::get(why);
  if (cuda_ == nullptr) return why;
  const int device = cuda_->hata_cuda_device_of(cache->data);
  if (device < 0) return std::string(cache->name) + " is not in the memory of a CUDA device";
  const OnCudaDevice on(*cuda_, device);
  if (cuda_->hata_cuda_available() != HATA_CUDA_OK) return cuda_->hata_cuda_error();
  try {
    lanes_.push_back(std::make_unique<DeviceLane>(real, *cuda_, dev, device));
  } catch (const std::bad_alloc&) {
    return std::string("no stream: ") + cuda_->hata_cuda_runtime_error();
  }
  return {};
}

// Caches are made before the writes are marked, and for a prefill, too (graph_run.cpp).
void DeviceRun::find_attention(ggml_backend_t backend) {
  candidates_.clear();
  lane_ = nullptr;
  ggml_backend_dev_t dev = shared_.real.ggml_backend_get_device(backend);
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
    Reason reason = qualifies(node, candidate.attention);
    if (reason == Reason::none) {
      lane_ = find_lane(dev, candidate.attention.cache);
      if (lane_ == nullptr) {
        shared_.reasons.add(Reason::cuda, [&] { return unusable_[dev]; });
        continue;
      }
      candidate.cache = cache_for(candidate.attention);
      if (candidate.cache != nullptr && !candidate.cache->dense &&
          candidate.cache->data.why_dense.empty() && candidate.cache->data.store == nullptr) {
        reason = Reason::memory;
      }
    }
    if (reason != Reason::none) {
      shared_.reasons.add(reason, [&] { return describe(shared_.real, reason, node); });
      continue;
    }
    candidates_.push_back(std::move(candidate));
  }
}

Reason DeviceRun::qualifies(ggml_tensor* node, Attention& attention) const {
  const Reason reason = read_attention(shared_.ops, node, attention);
  if (reason != Reason::none) return reason;
  if (!score_ && config_->selector->sparse()) return Reason::cuda_method;
  const HeadShape& s = attention.shape;
  const bool known = (s.head_dim == 64 || s.head_dim == 80 || s.head_dim == 96 ||
                      s.head_dim == 128 || s.head_dim == 256) &&
                     s.n_q_heads % s.n_kv_heads == 0 && s.group() <= kMaxDeviceGroup;
  const bool q8_0 = attention.type == GGML_TYPE_Q8_0;
  if (!known || (q8_0 && s.head_dim % kQ8Block != 0)) return Reason::shape;
  // One stride serves keys and values, and one the rows of all streams.
  const ggml_tensor *q = node->src[kQ], *k = node->src[kK], *v = node->src[kV];
  const int64_t n_streams = attention.n_streams, cells = attention.cache->ne[1];
  const size_t unit = q8_0 ? 2 : 16;  // include/hata/cuda.h
  const auto offset = [](const ggml_tensor* view) {
    return static_cast<const char*>(view->data) - static_cast<const char*>(root_of(view)->data);
  };
  const bool fits =
      v->nb[1] == k->nb[1] && v->nb[2] == k->nb[2] && (n_streams == 1 || v->nb[3] == k->nb[3]) &&
      offset(v) == offset(k) && k->nb[1] % unit == 0 && k->nb[2] % unit == 0 &&
      even(q, 1, attention.n_rows, n_streams) && even(node, 2, attention.n_rows, n_streams) &&
      cells % 64 == 0 && attention.first_cell % cells == 0 &&
      (n_streams == 1 || attention.stream_cells % cells == 0);
  return fits ? Reason::none : Reason::layout;
}

std::shared_ptr<Cache> DeviceRun::cache_for(const Attention& attention) {
  if (config_->is_dense(attention.layer)) return nullptr;
  const auto method = [&] {
    LayerMethod on_host = method_for_layer(shared_, *config_, nodes_, attention.layer);
    Rotation rotation;
    if (!find_rotation(shared_.real, shared_.ops, attention, rotation)) {
      shared_.reasons.add(Reason::rotation);
      return dense_method(config_->hata);
    }
    on_host.selector = on_cuda(std::move(on_host.selector), *cuda_, lane_->device(),
                               attention.cache->ne[1], std::move(rotation));
    return on_host;
  };
  auto cache = shared_.caches.get(method, config_->generation, attention,
                                  shared_.real.ggml_nbytes(attention.cache));
  if (!cache->data.why_dense.empty()) {
    shared_.reasons.add(Reason::weights, [&] { return cache->data.why_dense; });
  }
  cache->watch(config_->options.verify);
  return cache;
}

// --- which keys -------------------------------------------------------------------------------

void DeviceRun::plan_tasks() {
  for (const Candidate& candidate : candidates_) {
    const Reason reason = plan_task(candidate);
    if (reason != Reason::none) {
      shared_.reasons.add(reason,
                          [&] { return describe(shared_.real, reason, candidate.attention.node); });
    }
  }
}

Reason DeviceRun::plan_task(const Candidate& c) {
  const Attention& a = c.attention;
  if (a.n_rows > config_->options.max_rows) return Reason::prefill;
  if (c.cache == nullptr || c.cache->dense || !c.cache->data.why_dense.empty()) {
    dense_steps_ += a.n_streams;
    counters_.dense_rows += a.n_rows * a.n_streams;
    return Reason::none;
  }
  if (c.cache->graph == number_) {
    if (c.cache->last_write > c.node) return Reason::written_after;
    if (c.cache->rows_unknown) return Reason::computed_rows;
  }
  auto mask = mask_of(a);
  if (mask == nullptr) return Reason::cuda_inputs;
  DevicePlan& plan = plan_for(c, std::move(mask));
  for (int64_t s = 0; s < a.n_streams; ++s) ++(plan.sparse(s) ? sparse_steps_ : dense_steps_);
  if (plan.sparse()) {
    tasks_.push_back({.attention = a, .cache = c.cache, .node = c.node, .plan = &plan});
  }
  count(a, *c.cache, plan);
  return Reason::none;
}

std::shared_ptr<const MaskBits> DeviceRun::mask_of(const Attention& a) {
  const ggml_tensor* mask = a.node->src[kMask];
  const int64_t n_kv = a.node->src[kK]->ne[1];
  if (mask == nullptr) {
    const std::vector<uint16_t> none(static_cast<size_t>(n_kv * a.n_rows * a.n_streams), 0);
    return std::make_shared<MaskBits>(none.data(), n_kv, a.n_rows * a.n_streams);
  }
  for (const auto& [tensor, bits] : masks_) {
    if (tensor == mask) return bits;
  }
  auto bits = inputs_.mask(shared_.real, mask);
  if (bits == nullptr || bits->n_kv != n_kv) return nullptr;
  const bool uneven = a.n_streams > 1 && mask->ne[1] != a.n_rows;
  if (uneven && (bits->has_values || a.params.max_bias > 0.0f)) return nullptr;
  masks_.emplace_back(mask, bits);
  return bits;
}

DevicePlan& DeviceRun::plan_for(const Candidate& c, std::shared_ptr<const MaskBits> mask) {
  PlanKey key(c.attention, std::move(mask), c.cache->data,
              config_->selector->window(c.attention.layer));
  for (DevicePlan& plan : plans_) {
    if (plan.key() == key) return plan;
  }
  return plans_.emplace_back(std::move(key), config_->options.rule, c.attention);
}

void DeviceRun::count(const Attention& a, const Cache& cache, const DevicePlan& plan) {
  const auto& codes = static_cast<const DeviceCodes&>(*cache.data.store);
  const int64_t heads = a.shape.n_kv_heads;
  const auto key_bytes = static_cast<int64_t>(2 * head_row_bytes(a.type, a.shape.head_dim));
  const int64_t code_bits = codes.rbit() + (codes.codes().lengths != nullptr ? 4 : 0);
  for (int64_t s = 0; s < a.n_streams; ++s) {
    if (plan.sparse(s)) counters_.choose_bytes += plan.n_kv() * heads * code_bits / 8;
  }
  for (const RowPlan& row : plan.rows()) {
    const int64_t attended = row.budget > 0 ? row.budget : row.n_valid;
    counters_.keys_attended += attended;
    counters_.keys_valid += row.n_valid;
    counters_.attend_bytes += attended * heads * key_bytes;
    counters_.dense_bytes += row.n_valid * heads * key_bytes;
    ++(row.budget > 0 ? counters_.sparse_rows : counters_.dense_rows);
  }
}

// --- the graph --------------------------------------------------------------------------------

ggml_status DeviceRun::compute_part(ggml_backend_t backend, ggml_cgraph* graph, int first, int n) {
  if (n == 0) return GGML_STATUS_SUCCESS;
  const GraphPart part(layout_, graph, first, n);
  return shared_.real.ggml_backend_graph_compute_async(backend, graph);
}

ggml_status DeviceRun::compute_parts(ggml_backend_t backend, ggml_cgraph* graph) {
  const int n_nodes = static_cast<int>(nodes_.size());
  cells_on_device_ = nullptr;
  slopes_on_device_ = nullptr;
  bool ready = false;
  {
    const OnCudaDevice on(*cuda_, lane_->device());
    ready = lane_->begin_graph();
    for (const Task& task : tasks_) {
      if (!ready || task.plan->on_device().budgets != nullptr) continue;
      ready = done(task.plan->upload(task.cache->data.index, task.attention.cache->ne[1], *lane_));
    }
  }
  int at = 0;
  for (Task& task : tasks_) {
    ggml_status status = compute_part(backend, graph, at, task.node - at);
    if (status != GGML_STATUS_SUCCESS) return status;
    if (!ready || !run_task(task, backend)) {
      shared_.reasons.add(Reason::cuda_failed, [&] { return failure_; });
      status = compute_part(backend, graph, task.node, 1);
      if (status != GGML_STATUS_SUCCESS) return status;
    }
    at = task.node + 1;
  }
  const ggml_status status = compute_part(backend, graph, at, n_nodes - at);
  const OnCudaDevice on(*cuda_, lane_->device());
  lane_->end_graph();
  return status;
}

// A prefill is ggml's own; before each of its attention nodes the inspector sees what it attends
// to.
ggml_status DeviceRun::compute_watched(ggml_backend_t backend, ggml_cgraph* graph) {
  const Real& real = shared_.real;
  int at = 0;
  for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
    ggml_tensor* node = nodes_[static_cast<size_t>(i)];
    Attention attention;
    const bool seen = node->op == shared_.ops.flash_attn &&
                      read_attention(shared_.ops, node, attention) == Reason::none &&
                      attention.type == GGML_TYPE_F16 && attention.n_streams == 1 &&
                      attention.n_rows > config_->options.max_rows;
    if (!seen) continue;
    const ggml_status status = compute_part(backend, graph, at, i - at);
    if (status != GGML_STATUS_SUCCESS) return status;
    at = i;
    real.ggml_backend_synchronize(backend);
    const Step step = host_copy_.fetch(real, attention);
    const PrefillInspection inspection{.layer = attention.layer, .step = step};
    shared_.prefill_inspector.fn(&inspection, shared_.prefill_inspector.user);
  }
  return compute_part(backend, graph, at, static_cast<int>(nodes_.size()) - at);
}

bool DeviceRun::worked(hata_cuda_status status) {
  if (status != HATA_CUDA_OK) failure_ = cuda_->hata_cuda_error();
  return status == HATA_CUDA_OK;
}

bool DeviceRun::done(bool by_the_lane) {
  if (!by_the_lane) failure_ = cuda_->hata_cuda_runtime_error();
  return by_the_lane;
}

bool DeviceRun::run_task(Task& task, ggml_backend_t backend) {
  const OnCudaDevice on(*cuda_, lane_->device());
  const bool verify = task.cache->hashes != nullptr;
  if (verify) verify_before(task);
  if (!done(lane_->follow(backend))) return false;
  const bool in_passing = encodes_in_passing(task);
  bool ran = true;
  for (int64_t s = 0; s < task.attention.n_streams && ran && !in_passing; ++s) {
    if (task.plan->sparse(s)) ran = refresh(task, s);
  }
  ran = ran && decode(task, in_passing);
  for (int64_t s = 0; s < task.attention.n_streams && ran && in_passing; ++s) {
    const int64_t begin = task.plan->first_cell(s);
    task.cache->data.index.refreshed(begin, begin + task.plan->n_kv());
  }
  // Even where not all of it ran: what is enqueued must not write while ggml's kernel does.
  const bool led = done(lane_->lead(backend));
  if (!led) lane_->finish();
  if (!ran || !led) return false;
  if (verify) verify_after(task);
  return true;
}

// A token after another: all that is stale is the last key of each row, and each row is of a stream
// of its own. The step itself can encode it then, which saves a kernel.
bool DeviceRun::encodes_in_passing(const Task& task) {
  const DevicePlan& plan = *task.plan;
  const auto& codes = static_cast<const DeviceCodes&>(*task.cache->data.store);
  if (plan.by_bits() || task.attention.n_rows != 1 || codes.to_measure()) return false;
  for (int64_t s = 0; s < task.attention.n_streams; ++s) {
    const int64_t begin = plan.first_cell(s);
    task.cache->data.index.stale(begin, begin + plan.n_kv(), stale_);
    if (stale_.size() != 1 || stale_[0] != begin + plan.rows(s)[0].n_valid - 1) return false;
  }
  return true;
}

// What is stale in the stream's view is encoded.
bool DeviceRun::refresh(const Task& task, int64_t stream) {
  CellIndex& index = task.cache->data.index;
  auto& codes = static_cast<DeviceCodes&>(*task.cache->data.store);
  const int64_t begin = task.plan->first_cell(stream);
  const int64_t end = begin + task.plan->n_kv();
  index.stale(begin, end, stale_);
  if (stale_.empty()) return true;
  if (codes.to_measure() && !measure(*task.cache, codes)) return false;
  const int64_t sequence = begin / codes.stream_cells();
  const int64_t first = stale_.front() - sequence * codes.stream_cells();
  const auto count = std::ssize(stale_);
  hata_cuda_encode encode{.shape = shape_of(task),
                          .cache = cache_of(task),
                          .codes = codes.codes(),
                          .projection = codes.projection(),
                          .sequence = static_cast<int>(sequence),
                          .first = first,
                          .count = count,
                          .cells = nullptr};
  if (stale_.back() - stale_.front() + 1 != count) {  // not neighbours: by a list
    cells_.clear();
    for (const int32_t cell : stale_) cells_.push_back(cell - sequence * codes.stream_cells());
    if (cells_on_device_ == nullptr || cells_ != uploaded_cells_) {
      cells_on_device_ = static_cast<const int64_t*>(
          lane_->upload(cells_.data(), cells_.size() * sizeof(int64_t)));
      if (!done(cells_on_device_ != nullptr)) return false;
      uploaded_cells_ = cells_;
    }
    encode.cells = cells_on_device_;
  }
  if (!worked(cuda_->hata_cuda_encode_keys(&encode, lane_->stream()))) return false;
  index.refreshed(begin, end);
  return true;
}

// Once a layer, where the weights give no mean lengths: on the host, which waits for the keys.
bool DeviceRun::measure(const Cache& cache, DeviceCodes& codes) {
  const auto all = std::ssize(stale_);
  for (int64_t n = std::min(kCellsMeasured, all);; n = std::min(2 * n, all)) {
    if (!copy_rows(cache, std::span(stale_).first(static_cast<size_t>(n)))) return false;
    if (codes.measure(host_rows(cache), static_cast<int32_t>(n), n == all)) break;
  }
  return done(codes.upload_units(lane_->stream()));
}

// What copy_rows() has brought here, as numbers that the CPU reads.
CacheView DeviceRun::host_rows(const Cache& cache) {
  if (cache.type == GGML_TYPE_F16) {
    return {rows_.data(), DType::f16, cache.row_bytes, cache.head_bytes};
  }
  const HeadShape& s = cache.shape;
  const auto d = static_cast<size_t>(s.head_dim), heads = static_cast<size_t>(s.n_kv_heads);
  const size_t n = rows_.size() / cache.row_bytes;
  wide_rows_.resize(n * heads * d);
  for (size_t row = 0; row < n * heads; ++row) {
    widen_q8(&rows_[row / heads * cache.row_bytes + row % heads * cache.head_bytes], s.head_dim,
             &wide_rows_[row * d]);
  }
  return {reinterpret_cast<const std::byte*>(wide_rows_.data()), DType::f32,
          heads * d * sizeof(float), d * sizeof(float)};
}

// The key rows of these cells, one after the other.
bool DeviceRun::copy_rows(const Cache& cache, std::span<const int32_t> cells) {
  rows_.resize(cells.size() * cache.row_bytes);
  for (size_t at = 0; at < cells.size();) {
    size_t next = at + 1;
    while (next < cells.size() && cells[next] == cells[next - 1] + 1) ++next;
    const auto* from =
        cache.keys.begin + static_cast<int64_t>(cells[at]) * static_cast<int64_t>(cache.row_bytes);
    if (!done(cuda_->hata_cuda_to_host(&rows_[at * cache.row_bytes], from,
                                       (next - at) * cache.row_bytes,
                                       lane_->stream()) == HATA_CUDA_OK)) {
      return false;
    }
    at = next;
  }
  return done(lane_->finish());
}

hata_cuda_shape DeviceRun::shape_of(const Task& task) const {
  const HeadShape& s = task.attention.shape;
  return {.n_q_heads = s.n_q_heads,
          .n_kv_heads = s.n_kv_heads,
          .head_dim = s.head_dim,
          .rbit = static_cast<const DeviceCodes&>(*task.cache->data.store).rbit()};
}

// The whole cache; its streams are the sequences.
hata_cuda_cache DeviceRun::cache_of(const Task& task) const {
  const ggml_tensor* k = task.attention.node->src[kK];
  const ggml_tensor* v = task.attention.node->src[kV];
  hata_cuda_cache cache{};
  cache.keys = root_of(k)->data;
  cache.values = root_of(v)->data;
  cache.type = task.attention.type == GGML_TYPE_Q8_0 ? HATA_CUDA_Q8_0 : HATA_CUDA_F16;
  cache.seq_stride = static_cast<int64_t>(k->nb[1]) * task.attention.cache->ne[1];
  cache.cell_stride = static_cast<int64_t>(k->nb[1]);
  cache.head_stride = static_cast<int64_t>(k->nb[2]);
  return cache;
}

bool DeviceRun::decode(const Task& task, bool encode_last) {
  const Attention& a = task.attention;
  const DevicePlan& plan = *task.plan;
  const auto& codes = static_cast<const DeviceCodes&>(*task.cache->data.store);
  const ggml_tensor* node = a.node;
  const ggml_tensor* q = node->src[kQ];
  const ggml_tensor* mask = node->src[kMask];
  hata_cuda_step step{};
  step.shape = shape_of(task);
  step.cache = cache_of(task);
  step.codes = codes.codes();
  step.projection = codes.projection();
  step.mode = HATA_CUDA_SPARSE;
  step.n_rows = static_cast<int>(plan.rows().size());
  step.q = q->data;
  step.q_type = HATA_CUDA_F32;
  step.q_row_stride = elements(q->nb[1]);
  step.q_head_stride = elements(q->nb[2]);
  step.out = node->data;
  step.out_type = HATA_CUDA_F32;
  step.out_row_stride = elements(node->nb[2]);
  step.out_head_stride = elements(node->nb[1]);
  const DevicePlan::OnDevice& rows = plan.on_device();
  step.sequences = rows.sequences;
  step.n_kv = rows.n_kv;
  step.max_n_kv = rows.max_n_kv;
  step.score = *score_ == ScoreRule::squares ? HATA_CUDA_SQUARES : HATA_CUDA_SUM;
  step.budgets = rows.budgets;
  step.budget = static_cast<int>(plan.most_keys());
  step.sink = rows.sink;
  step.recent = rows.recent;
  step.valid = rows.valid;
  step.forced = rows.forced;
  step.bit_stride = rows.bit_stride;
  step.encode_last = encode_last ? 1 : 0;
  step.scale = a.params.scale;
  step.softcap = a.params.softcap;
  step.sinks = a.params.sinks;
  if (mask != nullptr && (a.params.max_bias > 0.0f || plan.key().mask->has_values)) {
    if (!upload_slopes(a)) return false;
    step.slopes = slopes_on_device_;
    step.bias = static_cast<const uint16_t*>(mask->data);
    step.bias_stride = static_cast<int64_t>(mask->nb[1] / sizeof(uint16_t));
  }
  const size_t bytes = cuda_->hata_cuda_workspace_size(&step);
  if (bytes == 0) return worked(HATA_CUDA_BAD_ARGUMENT);
  const DeviceMemory* workspace =
      lane_->workspace(int64_t{step.n_rows} * step.shape.n_kv_heads, bytes);
  if (!done(workspace != nullptr)) return false;
  return worked(
      cuda_->hata_cuda_decode(&step, workspace->as<void>(), workspace->bytes(), lane_->stream()));
}

bool DeviceRun::upload_slopes(const Attention& a) {
  const int n_heads = a.shape.n_q_heads;
  std::vector<float> slopes;
  for (int h = 0; h < n_heads; ++h) slopes.push_back(alibi_slope(a.params.max_bias, n_heads, h));
  if (slopes_on_device_ != nullptr && slopes == slopes_) return true;
  slopes_ = std::move(slopes);
  slopes_on_device_ =
      static_cast<const float*>(lane_->upload(slopes_.data(), slopes_.size() * sizeof(float)));
  return done(slopes_on_device_ != nullptr);
}

// --- verify -----------------------------------------------------------------------------------

Step DeviceRun::host_step(const Task& task, int64_t stream) const {
  Step step;
  step.shape = task.attention.shape;
  step.n_kv = task.plan->n_kv();
  step.first_cell = task.plan->first_cell(stream);
  return step;
}

void DeviceRun::verify_before(const Task& task) {
  while (std::ssize(verifiers_) < task.attention.n_streams) verifiers_.emplace_back();
  for (int64_t s = 0; s < task.attention.n_streams; ++s) {
    verifiers_[static_cast<size_t>(s)].before(host_step(task, s), task.cache->data.index, Worker{});
  }
}

// The keys and codes come to the host, which encodes for itself.
void DeviceRun::verify_after(const Task& task) {
  Cache& cache = *task.cache;
  auto& codes = static_cast<DeviceCodes&>(*cache.data.store);
  for (int64_t s = 0; s < task.attention.n_streams; ++s) {
    if (!task.plan->sparse(s)) continue;
    const Step step = host_step(task, s);
    std::vector<int32_t> cells(static_cast<size_t>(step.n_kv));
    for (int64_t i = 0; i < step.n_kv; ++i) {
      cells[static_cast<size_t>(i)] = static_cast<int32_t>(step.first_cell + i);
    }
    if (!copy_rows(cache, cells) ||
        !done(codes.fetch(step.first_cell / codes.stream_cells(), step.n_kv, lane_->stream()))) {
      say("VERIFY FAILED: nothing could be read from the device: " + failure_);
      ++wrong_masks_;
      return;
    }
    CacheView keys = host_rows(cache);
    keys.data -= static_cast<size_t>(step.first_cell) * keys.cell_stride;
    verifiers_[static_cast<size_t>(s)].after(step, task.plan->rows(s), codes, keys,
                                             keys.cell_stride, *cache.hashes, Worker{});
  }
  verify_mask(task);
}

// The mask that was seen on its way is the one that is there.
void DeviceRun::verify_mask(const Task& task) {
  const Real& real = shared_.real;
  const ggml_tensor* mask = task.attention.node->src[kMask];
  if (mask == nullptr) return;
  std::vector<uint16_t> there(real.ggml_nbytes(mask) / sizeof(uint16_t));
  real.ggml_backend_tensor_get(mask, there.data(), 0, real.ggml_nbytes(mask));
  const MaskBits bits(there.data(), mask->ne[0], mask->ne[1] * mask->ne[3]);
  if (bits.valid == task.plan->key().mask->valid) return;
  say("VERIFY FAILED: the mask of layer " + std::to_string(task.attention.layer) +
      " is not the one that was seen");
  ++wrong_masks_;
}

}  // namespace hata::host
