// Attention over a cache on a CUDA device against the same on the CPU, both under hata in one
// process: the chosen keys are the same, so the results agree. Skipped where there is no device.
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "hata/ggml.h"
#include "stats_of.h"

namespace {

struct Shape {
  int64_t head_dim = 128;
  int64_t n_q_heads = 8;
  int64_t n_kv_heads = 2;
  int64_t n_cells = 2048;  // per stream
  int64_t n_kv = 1024;
  int64_t n_rows = 1;
  int64_t n_streams = 1;
  float max_bias = 0.0f;
  float softcap = 0.0f;
  bool sinks = false;
  bool plain = false;  // one sequence a stream, written from the front on
  bool q8_0 = false;   // the device's cache; the CPU has the same numbers as f16
};

std::string name_of(const Shape& s) {
  return "d " + std::to_string(s.head_dim) + ", heads " + std::to_string(s.n_q_heads) + "/" +
         std::to_string(s.n_kv_heads) + ", n_kv " + std::to_string(s.n_kv) + ", rows " +
         std::to_string(s.n_rows) + " x " + std::to_string(s.n_streams);
}

/// A write into the cache and attention over it, as llama.cpp builds them, on one backend.
class Graph {
 public:
  Graph(const Shape& shape, ggml_backend_t b, ggml_type cache) : s(shape), backend(b) {
    const ggml_init_params params{ggml_tensor_overhead() * 64 + 2 * ggml_graph_overhead(), nullptr,
                                  true};
    leafs = ggml_init(params);
    nodes = ggml_init(params);
    const int64_t row = s.head_dim * s.n_kv_heads, rows_all = s.n_rows * s.n_streams;
    keys = ggml_new_tensor_3d(leafs, cache, row, s.n_cells, s.n_streams);
    values = ggml_new_tensor_3d(leafs, cache, row, s.n_cells, s.n_streams);
    ggml_set_name(keys, "cache_k_l3");
    query =
        ggml_new_tensor_4d(leafs, GGML_TYPE_F32, s.head_dim, s.n_q_heads, s.n_rows, s.n_streams);
    mask = ggml_new_tensor_4d(leafs, GGML_TYPE_F16, s.n_kv, s.n_rows, 1, s.n_streams);
    new_keys = ggml_new_tensor_2d(leafs, GGML_TYPE_F32, row, rows_all);
    rows = ggml_new_tensor_1d(leafs, GGML_TYPE_I64, rows_all);
    sinks = ggml_new_tensor_1d(leafs, GGML_TYPE_F32, s.n_q_heads);
    buffer = ggml_backend_alloc_ctx_tensors(leafs, backend);
    ggml_tensor* write = ggml_set_rows(
        nodes, ggml_reshape_2d(nodes, keys, row, s.n_cells * s.n_streams), new_keys, rows);
    attention = ggml_flash_attn_ext(nodes, ggml_permute(nodes, query, 0, 2, 1, 3), view_of(keys),
                                    view_of(values), mask, 1.0f / std::sqrt(float(s.head_dim)),
                                    s.max_bias, s.softcap);
    if (s.sinks) ggml_flash_attn_ext_add_sinks(attention, sinks);
    ggml_tensor* after = ggml_scale(nodes, attention, 2.0f);
    graph = ggml_new_graph(nodes);
    ggml_build_forward_expand(graph, write);
    ggml_build_forward_expand(graph, after);
    result = after;
    allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend));
    EXPECT_TRUE(ggml_gallocr_alloc_graph(allocator, graph));
  }
  ~Graph() {
    ggml_gallocr_free(allocator);
    ggml_backend_buffer_free(buffer);
    ggml_free(nodes);
    ggml_free(leafs);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  ggml_tensor* view_of(ggml_tensor* cache) {
    const size_t head = ggml_row_size(cache->type, s.head_dim);
    ggml_tensor* view = ggml_view_4d(nodes, cache, s.head_dim, s.n_kv_heads, s.n_kv, s.n_streams,
                                     head, cache->nb[1], cache->nb[2], 0);
    return ggml_permute(nodes, view, 0, 2, 1, 3);
  }

  template <class T>
  void set(ggml_tensor* tensor, const std::vector<T>& data) {
    ASSERT_EQ(data.size() * sizeof(T), ggml_nbytes(tensor));
    ggml_backend_tensor_set(tensor, data.data(), 0, ggml_nbytes(tensor));
  }

  /// Numbers in the tensor's own type, that of a cache.
  void set_rows_of(ggml_tensor* tensor, const std::vector<float>& numbers) {
    std::vector<std::byte> data(ggml_nbytes(tensor));
    ggml_quantize_chunk(tensor->type, numbers.data(), data.data(), 0, ggml_nrows(tensor),
                        tensor->ne[0], nullptr);
    set(tensor, data);
  }

  std::vector<float> compute() {
    EXPECT_EQ(ggml_backend_graph_compute(backend, graph), GGML_STATUS_SUCCESS);
    std::vector<float> out(static_cast<size_t>(ggml_nelements(result)));
    ggml_backend_tensor_get(result, out.data(), 0, ggml_nbytes(result));
    return out;
  }

  Shape s;
  ggml_backend_t backend;
  ggml_context *leafs, *nodes;
  ggml_gallocr_t allocator;
  ggml_backend_buffer_t buffer;
  ggml_cgraph* graph;
  ggml_tensor *keys, *values, *query, *mask, *new_keys, *rows, *sinks, *attention, *result;
};

std::vector<ggml_backend_t> backends_of(enum ggml_backend_dev_type type) {
  std::vector<ggml_backend_t> found;
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t device = ggml_backend_dev_get(i);
    if (ggml_backend_dev_type(device) != type) continue;
    found.push_back(ggml_backend_dev_init(device, nullptr));
  }
  return found;
}

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    static const auto devices = backends_of(GGML_BACKEND_DEVICE_TYPE_GPU);
    static const auto cpus = backends_of(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (devices.empty()) GTEST_SKIP() << "no device";
    devices_ = devices;
    cpu_ = cpus.at(0);
  }

  std::vector<float> floats(int64_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> out(static_cast<size_t>(n));
    for (float& x : out) x = normal(random_);
    return out;
  }
  // Of keys and values; `exactly`: numbers that f16 and q8_0 hold alike.
  std::vector<float> numbers(int64_t n, bool exactly) {
    std::vector<float> out = floats(n);
    for (size_t i = 0; i < out.size() && exactly; ++i) {
      const float q = i % 32 == 0 ? 127.0f : std::round(40.0f * out[i]);
      out[i] = std::clamp(q, -127.0f, 127.0f) / 64.0f;
    }
    return out;
  }

  static int64_t last_cell(const Shape& s, int64_t row, int step) {
    return s.n_kv * 3 / 4 + step * s.n_rows + row % s.n_rows + row / s.n_rows * 10;
  }

  // Several steps; each graph sees the same writes. Devices take turns at a step.
  void compare(const Shape& s, const std::string& options, size_t n_devices = 1) {
    const std::string all = "min-ctx=0 dense-layers=0 verify=1 " + options;
    const char* error = hata_ggml_configure(all.c_str());
    ASSERT_EQ(error, nullptr) << error;
    hata_ggml_reset_stats();
    Graph here(s, cpu_, GGML_TYPE_F16);
    std::deque<Graph> there;
    for (size_t d = 0; d < n_devices; ++d) {
      there.emplace_back(s, devices_.at(d), s.q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16);
    }
    const auto all_get = [&](auto member, const auto& data) {
      for (Graph& graph : there) graph.set(graph.*member, data);
      here.set(here.*member, data);
    };
    const auto new_rows = [&](auto member) {
      const auto data = numbers(ggml_nelements(here.*member), s.q8_0);
      for (Graph& graph : there) graph.set_rows_of(graph.*member, data);
      here.set_rows_of(here.*member, data);
    };
    new_rows(&Graph::keys);
    new_rows(&Graph::values);
    all_get(&Graph::sinks, floats(s.n_q_heads));
    constexpr int kSteps = 4;
    for (int step = 0; step < kSteps; ++step) {
      all_get(&Graph::query, floats(ggml_nelements(here.query)));
      all_get(&Graph::new_keys, numbers(ggml_nelements(here.new_keys), s.q8_0));
      std::vector<int64_t> rows;
      for (int64_t r = 0; r < s.n_rows * s.n_streams; ++r) {
        const int64_t stream = r / s.n_rows;
        const int64_t cell = s.plain ? last_cell(s, r, step) : (step * 37 + r * 101) % s.n_kv;
        rows.push_back(stream * s.n_cells + cell);
      }
      all_get(&Graph::rows, rows);
      std::vector<uint16_t> mask(static_cast<size_t>(ggml_nelements(here.mask)), 0);
      for (size_t i = 0; i < mask.size(); ++i) {
        if (s.max_bias > 0.0f) mask[i] = ggml_fp32_to_fp16(-0.01f * static_cast<float>(i % 50));
        const auto cell = static_cast<int64_t>(i) % s.n_kv, row = static_cast<int64_t>(i) / s.n_kv;
        const bool hidden = s.plain ? cell > last_cell(s, row, step) : random_() % 5 == 0;
        if (hidden) mask[i] = 0xFC00;  // -inf
      }
      all_get(&Graph::mask, mask);
      if (step == 2) new_rows(&Graph::keys);
      const auto theirs = here.compute();
      for (Graph& graph : there) {
        const auto ours = graph.compute();
        float largest = 0.0f;
        for (size_t i = 0; i < ours.size(); ++i) {
          largest = std::max(largest, std::abs(ours[i] - theirs[i]));
        }
        EXPECT_LT(largest, 1e-2f) << name_of(s) << ", " << options << ", step " << step;
      }
    }
    const auto stats = host_stats();
    const int64_t steps = kSteps * s.n_streams, on_device = steps * std::ssize(there);
    EXPECT_EQ(stats["device_steps"], on_device) << name_of(s) << ", " << options << stats;
    EXPECT_EQ(stats["sparse_steps"], steps + on_device) << stats;
    EXPECT_EQ(stats["verify"]["stale"], 0) << name_of(s) << ", " << options;
    EXPECT_EQ(stats["verify"]["unseen_changes"], 0) << name_of(s) << ", " << options;
    EXPECT_TRUE(stats["left_to_ggml"].empty()) << stats;
  }

  std::vector<ggml_backend_t> devices_;
  ggml_backend_t cpu_ = nullptr;
  std::mt19937 random_{11};
};

TEST_F(Cuda, ShapesChooseAndAttendAsOnTheCpu) {
  for (const Shape& s :
       {Shape{}, Shape{.n_q_heads = 2}, Shape{.n_q_heads = 32, .n_kv_heads = 8},
        Shape{.n_q_heads = 16, .n_kv_heads = 1}, Shape{.n_q_heads = 12, .n_kv_heads = 2},
        Shape{.head_dim = 64}, Shape{.head_dim = 80}, Shape{.head_dim = 96}, Shape{.head_dim = 256},
        Shape{.n_rows = 4}, Shape{.n_rows = 8, .n_streams = 1}, Shape{.n_streams = 4},
        Shape{.n_kv_heads = 8, .n_rows = 3, .n_streams = 3}, Shape{.n_kv = 256},
        Shape{.n_cells = 16384, .n_kv = 16384},
        Shape{.n_cells = 16384, .n_kv = 9984, .n_rows = 2}}) {
    compare(s, "budget=64");
  }
}

TEST_F(Cuda, RulesChooseAsOnTheCpu) {
  for (const char* options :
       {"budget=1", "budget=33 recent=0 sink=0", "budget=500", "budget=1.56%",
        "budget=64 lengths=off", "budget=64 rbit=64", "budget=64 rbit=256",
        "budget=64 method=hata-paper", "budget=64 method=random", "budget=100 recent=64 sink=36",
        "budget=64 score=squares", "budget=100 score=squares lengths=off rbit=256"}) {
    compare({}, options);
    compare({.head_dim = 64, .n_rows = 2}, options);
  }
}

TEST_F(Cuda, SequencesWrittenFromTheFrontOn) {
  for (const char* options : {"budget=64", "budget=1.56%", "budget=500 lengths=off rbit=256",
                              "budget=64 score=squares"}) {
    compare({.plain = true}, options);
    compare({.head_dim = 64, .n_q_heads = 32, .n_kv_heads = 8, .plain = true}, options);
    compare({.head_dim = 80, .plain = true}, options);
    compare({.n_rows = 3, .plain = true}, options);
    compare({.n_streams = 3, .plain = true}, options);
    compare({.n_cells = 16384, .n_kv = 16384, .plain = true}, options);
  }
}

TEST_F(Cuda, Q8CachesChooseAndAttendAsF16OnTheCpu) {
  for (const Shape& s :
       {Shape{}, Shape{.n_q_heads = 32, .n_kv_heads = 8}, Shape{.n_q_heads = 16, .n_kv_heads = 1},
        Shape{.head_dim = 64}, Shape{.head_dim = 96}, Shape{.head_dim = 256}, Shape{.n_rows = 4},
        Shape{.n_streams = 4}, Shape{.n_cells = 16384, .n_kv = 16384}, Shape{.plain = true},
        Shape{.n_streams = 3, .plain = true}}) {
    Shape q8_0 = s;
    q8_0.q8_0 = true;
    compare(q8_0, "budget=64");
    compare(q8_0, "budget=64 lengths=off rbit=64");
  }
}

// GGML_CUDA_DEVICES=2 makes two of one.
TEST_F(Cuda, TwoDevicesTakeTurns) {
  if (devices_.size() < 2) GTEST_SKIP() << "one device";
  for (const bool q8_0 : {false, true}) {
    compare({.q8_0 = q8_0}, "budget=64", 2);
    compare({.n_rows = 3, .n_streams = 3, .q8_0 = q8_0}, "budget=64", 2);
    compare({.n_cells = 16384, .n_kv = 16384, .plain = true, .q8_0 = q8_0}, "budget=1.56%", 2);
  }
}

TEST_F(Cuda, SoftmaxOptions) {
  compare({.softcap = 5.0f}, "budget=64");
  compare({.sinks = true}, "budget=64");
  compare({.n_q_heads = 6, .n_rows = 2, .max_bias = 8.0f}, "budget=64");
  compare({.head_dim = 256, .n_rows = 2, .max_bias = 8.0f, .softcap = 20.0f, .sinks = true},
          "budget=64");
}

}  // namespace
