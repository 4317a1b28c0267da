#include "ggml/gate.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace hata::host {
namespace {

constexpr int64_t kHeadDim = 64;
constexpr int64_t kCells = 256;
constexpr int64_t kWrittenCell = 5;
constexpr int kThreads = 2;
constexpr float kScale = 0.125f;
constexpr float kMaxBias = 2.0f;
constexpr float kSoftcap = 30.0f;
constexpr uint16_t kHalfOne = 0x3C00;  // 1.0 as f16
constexpr float kMarkValue = 42.0f;

thread_local SelfTest* running_test = nullptr;

constexpr const char* kHookNames[] = {
#define HATA_NAME(name) #name,
    HATA_HOOKED_FUNCTIONS(HATA_NAME)
#undef HATA_NAME
};

ggml_context* new_context(const Real& real, size_t n_tensors) {
  return real.ggml_init(
      {.mem_size = n_tensors * real.ggml_tensor_overhead() + real.ggml_graph_overhead(),
       .mem_buffer = nullptr,
       .no_alloc = true});
}

/// Where this library, or the program that it is linked into, lies in memory.
const void* base_of(const void* address) {
  Dl_info info{};
  return dladdr(address, &info) != 0 ? info.dli_fbase : nullptr;
}

}  // namespace

// A cache of one layer, a write into it and attention over it, as llama.cpp builds them.
struct SelfTest::Graph {
  Graph(const Real& r, ggml_backend_dev_t device)
      : real(r), backend(r.ggml_backend_dev_init(device, nullptr)) {
    limit_threads(device);
    leafs = new_context(real, 8);
    nodes = new_context(real, 32);
    keys = leaf(GGML_TYPE_F16, kHeadDim, kCells);
    values = leaf(GGML_TYPE_F16, kHeadDim, kCells);
    query = leaf(GGML_TYPE_F32, kHeadDim, 1);
    row = leaf(GGML_TYPE_F32, kHeadDim, 1);
    rows = leaf(GGML_TYPE_I64, 1, 1);
    mask = leaf(GGML_TYPE_F16, kCells, 1);
    sinks = leaf(GGML_TYPE_F32, 1, 1);
    real.ggml_set_name(keys, "cache_k_l0");
    real.ggml_set_input(rows);
    buffer = real.ggml_backend_alloc_ctx_tensors(leafs, backend);

    write =
        real.ggml_set_rows(nodes, real.ggml_reshape_2d(nodes, keys, kHeadDim, kCells), row, rows);
    view = cells_of(keys, 1);
    attention = real.ggml_flash_attn_ext(nodes, query, cells_of(keys, 0), cells_of(values, 0), mask,
                                         kScale, kMaxBias, kSoftcap);
    real.ggml_flash_attn_ext_add_sinks(attention, sinks);
    after = real.ggml_add(nodes, attention, attention);
    graph = real.ggml_new_graph(nodes);
    real.ggml_build_forward_expand(graph, write);
    real.ggml_build_forward_expand(graph, after);
    scheduler = real.ggml_backend_sched_new(&backend, nullptr, 1, 64, false, false);
  }

  ~Graph() {
    free_scheduler();
    real.ggml_backend_buffer_free(buffer);
    real.ggml_free(nodes);
    real.ggml_free(leafs);
    real.ggml_backend_free(backend);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void free_scheduler() { real.ggml_backend_sched_free(std::exchange(scheduler, nullptr)); }

  void fill() {
    std::memset(keys->data, 0, real.ggml_nbytes(keys));
    std::memset(values->data, 0, real.ggml_nbytes(values));
    std::memset(mask->data, 0, real.ggml_nbytes(mask));
    for (int i = 0; i < kHeadDim; ++i) {
      static_cast<float*>(row->data)[i] = 1.0f;
      static_cast<float*>(query->data)[i] = 1.0f;
    }
    *static_cast<int64_t*>(rows->data) = kWrittenCell;
    *static_cast<float*>(sinks->data) = 0.0f;
  }

  ggml_tensor* leaf(ggml_type type, int64_t ne0, int64_t ne1) {
    return real.ggml_new_tensor_4d(leafs, type, ne0, ne1, 1, 1);
  }

  /// The cache's cells from `first` on, as attention reads them: [head_dim, cells, heads].
  ggml_tensor* cells_of(ggml_tensor* cache, int64_t first) {
    const size_t row_bytes = cache->nb[1];
    ggml_tensor* cells =
        real.ggml_view_4d(nodes, cache, kHeadDim, 1, kCells - first, 1, row_bytes, row_bytes,
                          row_bytes * kCells, static_cast<size_t>(first) * row_bytes);
    return real.ggml_permute(nodes, cells, 0, 2, 1, 3);
  }

  void limit_threads(ggml_backend_dev_t device) {
    auto set =
        reinterpret_cast<ggml_backend_set_n_threads_t>(real.ggml_backend_reg_get_proc_address(
            real.ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads"));
    if (set != nullptr) set(backend, kThreads);
  }

  const Real& real;
  ggml_backend_t backend;
  ggml_context* leafs = nullptr;
  ggml_context* nodes = nullptr;
  ggml_backend_buffer_t buffer = nullptr;
  ggml_backend_sched_t scheduler = nullptr;
  ggml_cgraph* graph = nullptr;
  ggml_tensor *keys, *values, *query, *row, *rows, *mask, *sinks;  // leafs
  ggml_tensor *write, *view, *attention, *after;                   // nodes

  std::atomic<int> calls[kThreads]{};  // of the custom node, per thread
  std::atomic<int> threads{0};         // as it was told
};

SelfTest::SelfTest(const Real& real, ggml_backend_dev_t cpu) : real_(real), device_(cpu) {
  running_test = this;
}
SelfTest::~SelfTest() { running_test = nullptr; }
SelfTest* SelfTest::running() { return running_test; }

bool SelfTest::fail(std::string what) {
  failure_ = std::move(what);
  return false;
}

bool SelfTest::run() {
  if (!check_functions() || !check_reach_of_programs()) return false;
  Graph g(real_, device_);
  if (g.buffer == nullptr || g.scheduler == nullptr) return fail("no memory for a tiny graph");
  graph_ = &g;
  bool passed =
      check_tensors(g) && check_operations(g) && check_attention(g) && check_custom_node(g);
  if (passed) check_parts(g);
  passed = passed && check_writes(g);
  graph_ = nullptr;
  return passed;
}

void SelfTest::fired(Hook hook, const void* written) {
  ++fired_[static_cast<size_t>(hook)];
  written_ = written;
}

bool SelfTest::check_functions() {
  if (real_.missing.empty()) return true;
  return fail(real_.path + " has no function " + real_.missing);
}

// Whoever looks for a hooked function must find ours first.
bool SelfTest::check_reach_of_programs() {
  const void* here = base_of(kHookNames);
  for (const char* name : kHookNames) {
    if (base_of(dlsym(RTLD_DEFAULT, name)) != here) {
      return fail(std::string("calls of ") + name +
                  " do not come here; load libhata-ggml.so before ggml (LD_PRELOAD)");
    }
  }
  return true;
}

bool SelfTest::check_tensors(Graph& g) {
  const auto same = [](const char* a, const char* b) { return std::strcmp(a, b) == 0; };
  const ggml_tensor& keys = *g.keys;
  const bool fits =
      real_.ggml_tensor_overhead() > sizeof(ggml_tensor) && keys.type == GGML_TYPE_F16 &&
      g.query->type == GGML_TYPE_F32 && g.rows->type == GGML_TYPE_I64 && keys.ne[0] == kHeadDim &&
      keys.ne[1] == kCells && keys.ne[3] == 1 && keys.nb[0] == 2 && keys.nb[1] == kHeadDim * 2 &&
      keys.data == real_.ggml_get_data(g.keys) && keys.data != nullptr &&
      same(keys.name, "cache_k_l0") && keys.name == real_.ggml_get_name(g.keys) &&
      keys.buffer == g.buffer && keys.view_src == nullptr &&
      (g.rows->flags & GGML_TENSOR_FLAG_INPUT) != 0 && (keys.flags & GGML_TENSOR_FLAG_INPUT) == 0 &&
      g.view->view_src == g.keys && g.view->view_offs == keys.nb[1] &&
      real_.ggml_nbytes(g.keys) == static_cast<size_t>(kHeadDim * kCells * 2) &&
      same(real_.ggml_type_name(GGML_TYPE_F16), "f16") && g.write->view_src == g.keys;
  return fits || fail("struct ggml_tensor is laid out differently");
}

bool SelfTest::learn(ggml_op& op, const ggml_tensor* node, const char* name) {
  op = node->op;
  if (std::strcmp(real_.ggml_op_name(op), name) == 0) return true;
  return fail(std::string("the operation ") + name + " is called " + real_.ggml_op_name(op));
}

bool SelfTest::check_operations(Graph& g) {
  ggml_tensor* positions = real_.ggml_new_tensor_4d(g.nodes, GGML_TYPE_I32, 1, 1, 1, 1);
  const auto run = [](ggml_tensor*, int, int, void*) {};
  return learn(ops_.none, g.keys, "NONE") && learn(ops_.view, g.view->src[0], "VIEW") &&
         learn(ops_.reshape, real_.ggml_reshape_2d(g.nodes, g.row, 1, kHeadDim), "RESHAPE") &&
         learn(ops_.permute, g.view, "PERMUTE") &&
         learn(ops_.transpose, real_.ggml_transpose(g.nodes, g.row), "TRANSPOSE") &&
         learn(ops_.mul_mat, real_.ggml_mul_mat(g.nodes, g.row, g.query), "MUL_MAT") &&
         learn(ops_.cpy, real_.ggml_cpy(g.nodes, g.row, g.query), "CPY") &&
         learn(ops_.rope,
               real_.ggml_rope_inplace(g.nodes, g.row, positions, static_cast<int>(kHeadDim), 0),
               "ROPE") &&
         learn(ops_.set_rows, g.write, "SET_ROWS") &&
         learn(ops_.flash_attn, g.attention, "FLASH_ATTN_EXT") &&
         learn(ops_.custom,
               real_.ggml_custom_4d(g.nodes, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, run,
                                    GGML_N_TASKS_MAX, nullptr),
               "CUSTOM");
}

bool SelfTest::check_attention(Graph& g) {
  Attention a;
  const bool read = read_attention(ops_, g.attention, a) == Reason::none && a.cache == g.keys &&
                    a.layer == 0 && a.params.scale == kScale && a.params.max_bias == kMaxBias &&
                    a.params.softcap == kSoftcap && a.params.sinks == g.sinks->data &&
                    a.shape == HeadShape{1, 1, kHeadDim} && a.n_rows == 1 && a.n_streams == 1 &&
                    a.first_cell == 0;
  real_.ggml_flash_attn_ext_set_n_kv_max(g.attention, 7);
  const bool sparse = read_attention(ops_, g.attention, a) == Reason::own_sparsity;
  real_.ggml_flash_attn_ext_set_n_kv_max(g.attention, 0);
  const bool write = g.write->src[0] == g.row && g.write->src[1] == g.rows;
  return (read && sparse && write) || fail("attention or cache-write nodes are built differently");
}

ggml_status SelfTest::compute(ggml_backend_t backend, ggml_cgraph* graph) {
  fired(Hook::ggml_backend_graph_compute_async);
  CustomCall call(
      real_, ops_,
      [](ggml_tensor* node, int ith, int nth, void* user) {
        auto& g = *static_cast<Graph*>(user);
        g.threads = nth;
        if (ith < kThreads) ++g.calls[ith];
        if (ith == 0) {
          std::fill_n(static_cast<float*>(node->data), kHeadDim, kMarkValue);
        }
      },
      graph_);
  ggml_tensor** nodes = real_.ggml_graph_nodes(graph);
  for (int i = 0; i < real_.ggml_graph_n_nodes(graph); ++i) {
    if (nodes[i]->op == ops_.flash_attn) call.put_into(nodes[i]);
  }
  const ggml_status status = real_.ggml_backend_graph_compute_async(backend, graph);
  call.take_out();
  return status;
}

bool SelfTest::check_custom_node(Graph& g) {
  g.fill();
  layout_ = GraphLayout::learn(real_);
  const auto before = GraphLayout::bytes_of(g.graph);
  const ggml_status status = real_.ggml_backend_sched_graph_compute(g.scheduler, g.graph);
  if (fired_[static_cast<size_t>(Hook::ggml_backend_graph_compute_async)] == 0) {
    return fail(
        "ggml's scheduler computes graphs past ggml_backend_graph_compute_async (a build "
        "that binds its own calls?)");
  }
  layout_.learn_uid(before, g.graph);
  int calls = 0;
  bool once_each = g.threads >= 1 && g.threads <= kThreads;
  for (int i = 0; i < kThreads; ++i) {
    calls += g.calls[i];
    once_each = once_each && g.calls[i] <= 1;
  }
  const uint16_t* written = static_cast<const uint16_t*>(g.keys->data) + kWrittenCell * kHeadDim;
  const bool ran = status == GGML_STATUS_SUCCESS && once_each && calls == g.threads &&
                   static_cast<const float*>(g.after->data)[kHeadDim - 1] == 2 * kMarkValue &&
                   written[0] == kHalfOne && g.attention->op == ops_.flash_attn;
  return ran || fail("a custom node does not run as expected");
}

// Up to the attention node, then from there on.
void SelfTest::check_parts(Graph& g) {
  if (!layout_.known()) return;
  g.fill();
  const int n = real_.ggml_graph_n_nodes(g.graph);
  const auto index = [&](const ggml_tensor* node) {
    return static_cast<int>(
        std::find(real_.ggml_graph_nodes(g.graph), real_.ggml_graph_nodes(g.graph) + n, node) -
        real_.ggml_graph_nodes(g.graph));
  };
  const int at = index(g.attention), write = index(g.write);
  auto* out = static_cast<float*>(g.attention->data);
  auto* keys = static_cast<uint16_t*>(g.keys->data) + kWrittenCell * kHeadDim;
  *out = kMarkValue;
  bool fits = write < at && at < n;
  const auto compute = [&](int first, int count) {
    const GraphPart part(layout_, g.graph, first, count);
    fits = fits && real_.ggml_graph_n_nodes(g.graph) == count &&
           real_.ggml_backend_graph_compute_async(g.backend, g.graph) == GGML_STATUS_SUCCESS;
  };
  if (fits) compute(0, at);
  fits = fits && *out == kMarkValue && *keys == kHalfOne;
  *keys = 0;
  if (fits) compute(at, n - at);
  fits = fits && *static_cast<float*>(g.after->data) == 0.0f && *keys == 0 &&
         real_.ggml_graph_n_nodes(g.graph) == n;
  if (!fits) layout_ = {};
}

bool SelfTest::wrote(Hook hook, const void* address) {
  int& count = fired_[static_cast<size_t>(hook)];
  const bool seen = count > 0 && (address == nullptr || written_ == address);
  count = 0;
  written_ = nullptr;
  return seen || fail(std::string("ggml's own calls of ") + kHookNames[static_cast<size_t>(hook)] +
                      " do not come here (a build that binds its own calls?)");
}

// Writes that ggml hands on from one of its functions to another.
bool SelfTest::check_writes(Graph& g) {
  const void* keys = g.keys->data;
  uint16_t word = 0;
  for (Hook hook : {Hook::ggml_backend_tensor_set, Hook::ggml_backend_buffer_free}) {
    fired_[static_cast<size_t>(hook)] = 0;
  }
  real_.ggml_backend_tensor_copy(g.values, g.keys);
  if (!wrote(Hook::ggml_backend_tensor_set, keys)) return false;
  real_.ggml_backend_tensor_copy_async(g.backend, g.backend, g.values, g.keys);
  if (!wrote(Hook::ggml_backend_tensor_copy, nullptr)) return false;
  real_.ggml_backend_tensor_set_2d(g.keys, &word, 4, sizeof(word), 1, 0, 0);
  if (!wrote(Hook::ggml_backend_tensor_set, static_cast<const char*>(keys) + 4)) return false;
  real_.ggml_backend_tensor_set_2d_async(g.backend, g.keys, &word, 6, sizeof(word), 1, 0, 0);
  if (!wrote(Hook::ggml_backend_tensor_set_async, nullptr)) return false;
  real_.ggml_backend_tensor_set_async(g.backend, g.view, &word, 2, sizeof(word));
  const char* viewed = static_cast<const char*>(keys) + g.view->view_offs + 2;
  if (!wrote(Hook::ggml_backend_tensor_set, viewed)) return false;
  g.free_scheduler();
  return wrote(Hook::ggml_backend_buffer_free, nullptr);
}

CustomCall::CustomCall(const Real& real, const Ops& ops, ggml_custom_op_t run, void* user)
    : custom_(ops.custom) {
  ggml_context* context = new_context(real, 1);
  const ggml_tensor* node = real.ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, run,
                                                GGML_N_TASKS_MAX, user);
  std::memcpy(params_.data(), node->op_params, sizeof(params_));
  real.ggml_free(context);
}

void CustomCall::put_into(ggml_tensor* node) {
  node_ = node;
  op_ = node->op;
  std::memcpy(kept_.data(), node->op_params, sizeof(kept_));
  node->op = custom_;
  std::memcpy(node->op_params, params_.data(), sizeof(params_));
}

void CustomCall::take_out() {
  if (node_ == nullptr) return;
  node_->op = op_;
  std::memcpy(node_->op_params, kept_.data(), sizeof(kept_));
  node_ = nullptr;
}

}  // namespace hata::host
