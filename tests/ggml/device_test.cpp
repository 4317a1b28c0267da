// Attention on a CUDA device, with a stand-in for libhata-cuda whose device is the CPU
// (fake_cuda.cpp).
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "fixture.h"
#include "ggml/device_run.h"
#include "ggml/host.h"
#include "hata/ggml.h"
#include "hata/inspect.h"
#include "stats_of.h"

namespace hata::host {
namespace {

[[maybe_unused]] const int kStandIn = setenv("HATA_CUDA_LIB", HATA_FAKE_CUDA, 1);

constexpr const char* kSparse = "budget=32 min-ctx=0 dense-layers=0 verify=1 quiet=1";

void configure(const std::string& options) {
  const char* error = hata_ggml_configure(options.c_str());
  ASSERT_EQ(error, nullptr) << error;
  hata_ggml_reset_stats();
}

std::vector<float> compute(AttentionGraph& g, ggml_cgraph* graph) {
  const int n = ggml_graph_n_nodes(graph);
  EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
  EXPECT_EQ(g.attention->op, GGML_OP_FLASH_ATTN_EXT);
  EXPECT_EQ(ggml_graph_n_nodes(graph), n) << "the graph must be whole again";
  const auto* out = static_cast<const float*>(g.attention->data);
  return {out, out + ggml_nelements(g.attention)};
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

int64_t verify_count(const char* name) { return host_stats()["verify"][name]; }

void fail_next(int steps, int allocations) {
  void* fake = dlopen(HATA_FAKE_CUDA, RTLD_NOW);
  ASSERT_NE(fake, nullptr);
  reinterpret_cast<void (*)(int, int)>(dlsym(fake, "hata_cuda_fake_fail"))(steps, allocations);
}

int keys_in_passing() {
  void* fake = dlopen(HATA_FAKE_CUDA, RTLD_NOW);
  return reinterpret_cast<int (*)()>(dlsym(fake, "hata_cuda_fake_keys_in_passing"))();
}

std::shared_ptr<const Config> config_of(const std::string& options) {
  auto config = std::make_shared<Config>();
  config->options = parse_options(options);
  config->hata = config->options.hata;
  config->selector = make_selector(config->options.method, config->hata);
  return config;
}

/// What the CPU's way makes of a graph, from nothing.
std::vector<float> on_cpu(AttentionGraph& g, ggml_cgraph* graph, const std::string& options,
                          int n_graphs = 1, const std::function<void(int)>& before = nullptr) {
  const auto config = config_of(options);
  Caches caches;
  Models models;
  Reasons reasons;
  const InspectorCall nobody;
  GraphRun run(config, {.real = *first_real(),
                        .ops = test_ops(),
                        .caches = caches,
                        .models = models,
                        .reasons = reasons,
                        .inspector = nobody,
                        .prefill_inspector = nobody});
  EXPECT_EQ(hata_ggml_configure("method=ggml"), nullptr);
  for (int i = 0; i < n_graphs; ++i) {
    if (before != nullptr) before(i);
    run.begin(graph, static_cast<uint64_t>(i) + 1);
    EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
    run.end();
  }
  EXPECT_GT(run.sparse_steps(), 0);
  const auto* out = static_cast<const float*>(g.attention->data);
  return {out, out + ggml_nelements(g.attention)};
}

void hide_cells(AttentionGraph& g, int64_t every) {
  auto* mask = static_cast<uint16_t*>(g.mask->data);
  for (int64_t i = 0; i < ggml_nelements(g.mask); i += every) mask[i] = 0xFC00;  // -inf
}

/// What the second of two steps attends to, all of them on the device, under verify.
std::vector<float> two_steps(AttentionGraph& g, const std::string& options) {
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure(options);
  compute(g, graph);
  auto out = compute(g, graph);
  const auto stats = host_stats();
  EXPECT_EQ(stats["device_steps"], 2 * g.s.n_streams) << stats;
  EXPECT_EQ(stats["verify"]["stale"], 0) << options;
  EXPECT_EQ(stats["verify"]["unseen_changes"], 0);
  EXPECT_GT(stats["verify"]["cells"], 300);
  return out;
}

TEST(Device, ChoosesAndAttendsAsTheCpu) {
  for (const GraphShape& shape :
       {GraphShape{}, GraphShape{.head_dim = 128, .n_q_heads = 8, .n_rows = 4},
        GraphShape{.n_q_heads = 2, .n_rows = 2, .n_streams = 3, .all_streams = 3},
        GraphShape{.n_q_heads = 2, .n_streams = 2, .first_stream = 1, .all_streams = 4},
        GraphShape{.head_dim = 80, .n_q_heads = 32}, GraphShape{.head_dim = 256}}) {
    for (const char* more : {"", " rbit=256 lengths=off", " rbit=64 recent=5 sink=3",
                             " method=hata-paper", " budget=10% recent=0.75k", " score=squares",
                             " method=hata-paper:score=squares rbit=64"}) {
      const std::string options = std::string(kSparse) + more;
      AttentionGraph here(shape), there(shape);
      for (AttentionGraph* g : {&here, &there}) hide_cells(*g, 3);
      const auto ours = two_steps(here, options);
      EXPECT_EQ(host_stats()["sparse_rows"], 2 * shape.n_streams * shape.n_rows);
      const auto theirs = on_cpu(there, there.graph({there.write, there.attention}), options, 2);
      EXPECT_LT(largest_difference(ours, theirs), 1e-5f) << options << " d " << shape.head_dim;
    }
  }
}

GraphShape q8(GraphShape shape) {
  shape.key_type = shape.value_type = GGML_TYPE_Q8_0;
  return shape;
}

// The CPU has no kernels for q8_0; it gets the same numbers as f16.
TEST(Device, Q8CachesAreAsF16OnTheCpu) {
  for (const GraphShape& shape :
       {GraphShape{}, GraphShape{.head_dim = 128, .n_q_heads = 8, .n_rows = 4},
        GraphShape{.n_q_heads = 2, .n_rows = 2, .n_streams = 3, .all_streams = 3},
        GraphShape{.head_dim = 96, .n_streams = 2, .first_stream = 1, .all_streams = 4},
        GraphShape{.head_dim = 96, .n_q_heads = 3, .n_kv_heads = 3},
        GraphShape{.head_dim = 256, .n_q_heads = 32}}) {
    for (const char* more :
         {"", " rbit=256 lengths=off", " method=hata-paper", " budget=10%", " score=squares"}) {
      const std::string options = std::string(kSparse) + more;
      AttentionGraph here(q8(shape)), there(shape);
      for (AttentionGraph* g : {&here, &there}) {
        g->fill_exactly();
        hide_cells(*g, 3);
      }
      const auto ours = two_steps(here, options);
      const auto stats = host_stats();
      EXPECT_EQ(stats["bytes"]["attend"], stats["keys_attended"].get<int64_t>() * shape.n_kv_heads *
                                              2 * shape.head_dim / 32 * 34);
      const auto theirs = on_cpu(there, there.graph({there.write, there.attention}), options, 2);
      EXPECT_LT(largest_difference(ours, theirs), 1e-5f) << options << " d " << shape.head_dim;
    }
  }
}

TEST(Device, VerifySeesQ8KeysWrittenBehindOurBack) {
  AttentionGraph g(q8({.n_rows = 2}));
  g.fill_exactly();
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure(kSparse);
  for (int step = 0; step < 3; ++step) {
    static_cast<int64_t*>(g.rows->data)[0] = 70 + step;
    compute(g, graph);
  }
  EXPECT_EQ(verify_count("cells"), 3 * 256);
  EXPECT_EQ(verify_count("stale"), 0);
  EXPECT_EQ(verify_count("unseen_changes"), 0);
  auto* keys = static_cast<uint8_t*>(g.keys->data);
  for (int cell = 100; cell < 103; ++cell) {
    for (int i = 2; i < 34; ++i) keys[cell * 136 + i] ^= 0x80;
  }
  compute(g, graph);
  EXPECT_EQ(verify_count("unseen_changes"), 3);
  EXPECT_EQ(verify_count("stale"), 3);
}

/// Attention of queries that are rotated as llama.cpp does it, by Hadamard's matrix of 64, over a
/// q8_0 cache whose keys are.
struct RotatedGraph {
  static constexpr int64_t kSize = 64;

  explicit RotatedGraph(const GraphShape& shape) : g(q8(shape)) {
    leafs = ggml_init({ggml_tensor_overhead(), nullptr, true});
    matrix = ggml_new_tensor_2d(leafs, GGML_TYPE_F32, kSize, kSize);
    buffer = ggml_backend_alloc_ctx_tensors(leafs, g.backend);
    ggml_set_name(matrix, "CUDA0#attn_inp_k_rot#0");
    for (int64_t i = 0; i < kSize * kSize; ++i) {
      static_cast<float*>(matrix->data)[i] = sign(i / kSize, i % kSize) / 8.0f;
    }
    ggml_tensor* q = ggml_reshape_2d(g.nodes, g.query, kSize, ggml_nelements(g.query) / kSize);
    q = ggml_reshape_4d(g.nodes, ggml_mul_mat(g.nodes, matrix, q), g.s.head_dim, g.s.n_q_heads,
                        g.s.n_rows, g.s.n_streams);
    g.attention =
        ggml_flash_attn_ext(g.nodes, ggml_permute(g.nodes, q, 0, 2, 1, 3), g.key_view, g.value_view,
                            g.mask, 1.0f / std::sqrt(float(g.s.head_dim)), 0.0f, 0.0f);
    g.fill_exactly();
  }
  ~RotatedGraph() {
    ggml_backend_buffer_free(buffer);
    ggml_free(leafs);
  }
  RotatedGraph(const RotatedGraph&) = delete;
  RotatedGraph& operator=(const RotatedGraph&) = delete;

  static float sign(int64_t i, int64_t j) {
    return std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1.0f : -1.0f;
  }

  AttentionGraph g;
  ggml_context* leafs;
  ggml_tensor* matrix;
  ggml_backend_buffer_t buffer;
};

// Keys of small numbers, so that they are exact as they are and rotated.
void fill_rotated(AttentionGraph& rotated, AttentionGraph& plain) {
  constexpr int64_t kSize = RotatedGraph::kSize;
  std::mt19937 random(3);
  auto* blocks = static_cast<std::byte*>(rotated.keys->data);
  for (int64_t first = 0; first < ggml_nelements(plain.keys); first += kSize) {
    float x[kSize];
    for (int64_t j = 0; j < kSize; ++j) {
      x[j] = static_cast<float>(static_cast<int>(random() % 7) - 3);
      static_cast<ggml_fp16_t*>(plain.keys->data)[first + j] = ggml_fp32_to_fp16(x[j] / 4.0f);
    }
    for (int64_t i = 0; i < kSize; ++i) {
      float sum = 0.0f;
      for (int64_t j = 0; j < kSize; ++j) sum += RotatedGraph::sign(i, j) * x[j];
      ASSERT_LE(std::abs(sum), 127.0f);
      std::byte* block = blocks + (first + i) / 32 * 34;
      const ggml_fp16_t scale = ggml_fp32_to_fp16(1.0f / 32.0f);
      std::memcpy(block, &scale, sizeof(scale));
      block[2 + i % 32] = static_cast<std::byte>(static_cast<int8_t>(sum));
    }
  }
}

TEST(Device, ARotatedCacheChoosesAsOneThatIsNot) {
  for (const int64_t head_dim : {64, 128}) {
    const GraphShape shape{.head_dim = head_dim, .n_q_heads = 8, .n_rows = 2};
    RotatedGraph here(shape);
    AttentionGraph there(shape);
    there.fill_exactly();
    fill_rotated(here.g, there);
    configure(kSparse);
    const auto ours = compute(here.g, here.g.graph({here.g.attention}));
    EXPECT_EQ(host_stats()["device_steps"], 1) << host_stats();
    EXPECT_EQ(verify_count("stale"), 0);
    const auto theirs = on_cpu(there, there.graph({there.attention}), kSparse);
    EXPECT_LT(largest_difference(ours, theirs), 1e-4f) << head_dim;
  }
}

TEST(Device, AnUnknownRotationStaysDense) {
  const GraphShape shape{};
  RotatedGraph wide({.head_dim = 96});  // no whole blocks
  AttentionGraph copied(q8(shape));     // from another device: nobody knows what it was made from
  copied.fill_exactly();
  ggml_set_name(copied.query, "CUDA0#Qcur-3#0");
  for (AttentionGraph* g : {&wide.g, &copied}) {
    ggml_cgraph* graph = g->graph({g->attention});
    configure("method=ggml");
    const auto theirs = compute(*g, graph);
    configure(kSparse);
    EXPECT_EQ(compute(*g, graph), theirs);
    EXPECT_EQ(host_stats()["left_to_ggml"]["rotation"], 1);
    EXPECT_EQ(compute(*g, graph), theirs);
    EXPECT_EQ(host_stats()["dense_steps"], 2);
  }
}

TEST(Device, MasksWithValuesAndAlibi) {
  for (const float max_bias : {0.0f, 8.0f}) {
    AttentionGraph here({.n_q_heads = 6, .n_rows = 2}), there({.n_q_heads = 6, .n_rows = 2});
    for (AttentionGraph* g : {&here, &there}) {
      auto* mask = static_cast<uint16_t*>(g->mask->data);
      for (int64_t i = 0; i < ggml_nelements(g->mask); ++i) {
        mask[i] = i % 5 == 0 ? 0xFC00 : ggml_fp32_to_fp16(-0.01f * static_cast<float>(i % 40));
      }
      std::memcpy(g->attention->op_params + 1, &max_bias, sizeof(max_bias));
    }
    configure(kSparse);
    const auto ours = compute(here, here.graph({here.write, here.attention}));
    EXPECT_EQ(host_stats()["device_steps"], 1);
    const auto theirs = on_cpu(there, there.graph({there.write, there.attention}), kSparse);
    EXPECT_LT(largest_difference(ours, theirs), 1e-5f);
  }
}

TEST(Device, WhatIsWrittenIsEncoded) {
  AttentionGraph g({.n_rows = 2});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure(kSparse);
  auto* new_keys = static_cast<float*>(g.new_keys->data);
  std::vector<uint16_t> data(64 * 128, 0x4200);
  for (int step = 0; step < 10; ++step) {
    for (int64_t i = 0; i < ggml_nelements(g.new_keys); ++i) new_keys[i] = -1.25f * new_keys[i];
    static_cast<int64_t*>(g.rows->data)[0] = 7 + step;
    static_cast<int64_t*>(g.rows->data)[1] = 48 + 3 * step;
    if (step == 3) ggml_backend_tensor_set(g.keys, data.data(), 20 * 256, 10 * 256);
    if (step == 5) ggml_backend_tensor_copy(g.values, g.keys);
    if (step == 7) ggml_backend_buffer_clear(g.buffer, 0);
    if (step == 7) g.fill();
    compute(g, graph);
  }
  EXPECT_EQ(host_stats()["device_steps"], 10);
  EXPECT_EQ(verify_count("cells"), 10 * 256);
  EXPECT_EQ(verify_count("stale"), 0);
  EXPECT_EQ(verify_count("unseen_changes"), 0);
}

TEST(Device, VerifyReportsKeysWrittenBehindOurBack) {
  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure(kSparse);
  compute(g, graph);
  ASSERT_EQ(verify_count("stale"), 0);
  auto* keys = static_cast<ggml_fp16_t*>(g.keys->data);
  for (int64_t i = 0; i < 3 * 128; ++i) keys[100 * 128 + i] ^= 0x8000;  // cells 100 to 102
  compute(g, graph);
  EXPECT_EQ(verify_count("unseen_changes"), 3);
  EXPECT_EQ(verify_count("stale"), 3);
}

// One sequence, a token after another: no bits, and no kernel for its key.
TEST(Device, OneSequenceTakesTheFastWay) {
  for (const GraphShape& shape :
       {GraphShape{}, GraphShape{.n_streams = 3, .all_streams = 3}, GraphShape{.n_rows = 2}}) {
    AttentionGraph here(shape), there(shape);
    const std::string options = "budget=32 min-ctx=0 dense-layers=0 verify=1 quiet=1";
    configure(options);
    keys_in_passing();
    std::vector<float> ours;
    const int64_t all = shape.n_rows * shape.n_streams;
    constexpr int64_t kFirst = 150, kLast = 160;
    const auto set = [&](AttentionGraph& g, int64_t n) {
      auto* mask = static_cast<uint16_t*>(g.mask->data);
      std::fill(mask, mask + ggml_nelements(g.mask), uint16_t{0xFC00});
      for (int64_t r = 0; r < all; ++r) {
        const int64_t last = n + r % shape.n_rows;
        std::fill(mask + r * 256, mask + r * 256 + last + 1, uint16_t{0});
        static_cast<int64_t*>(g.rows->data)[r] = r / shape.n_rows * shape.n_cells + last;
      }
      auto* new_keys = static_cast<float*>(g.new_keys->data);
      for (int64_t i = 0; i < ggml_nelements(g.new_keys); ++i) new_keys[i] *= -1.01f;
    };
    ggml_cgraph* graph = here.graph({here.write, here.attention});
    for (int64_t n = kFirst; n < kLast; ++n) {
      set(here, n);
      ours = compute(here, graph);
    }
    EXPECT_EQ(host_stats()["verify"]["stale"], 0);
    EXPECT_EQ(host_stats()["verify"]["unseen_changes"], 0);
    EXPECT_EQ(host_stats()["device_steps"], (kLast - kFirst) * shape.n_streams);
    // The first step encodes all that is there; two rows of one stream need a kernel of their own.
    EXPECT_EQ(keys_in_passing(), shape.n_rows > 1 ? 0 : (kLast - kFirst - 1) * shape.n_streams);

    const auto theirs = on_cpu(there, there.graph({there.write, there.attention}), options,
                               kLast - kFirst, [&](int i) { set(there, kFirst + i); });
    EXPECT_LT(largest_difference(ours, theirs), 1e-5f);
  }
}

TEST(Device, WhatStaysDenseIsGgmls) {
  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure("method=ggml");
  const auto theirs = compute(g, graph);
  for (const char* options : {"dense-layers=100", "min-ctx=100000 dense-layers=0", "method=dense",
                              "budget=100% min-ctx=0 dense-layers=0"}) {
    configure(options);
    EXPECT_EQ(compute(g, graph), theirs) << options;
    EXPECT_EQ(host_stats()["dense_steps"], 1) << options;
    EXPECT_TRUE(host_stats()["left_to_ggml"].empty()) << host_stats();
  }
  for (const char* more :
       {" method=quest", " method=exact-logit", " rerank=2", " score=squares rerank=2"}) {
    configure(std::string(kSparse) + more);
    EXPECT_EQ(compute(g, graph), theirs) << more;
    EXPECT_EQ(host_stats()["left_to_ggml"]["cuda_method"], 1) << more;
  }
  configure(kSparse);
  AttentionGraph wide({.head_dim = 112}), many({.n_rows = 9}), shared({.n_q_heads = 34});
  compute(wide, wide.graph({wide.write, wide.attention}));
  compute(shared, shared.graph({shared.write, shared.attention}));
  compute(many, many.graph({many.write, many.attention}));
  EXPECT_EQ(host_stats()["left_to_ggml"]["shape"], 2);
  EXPECT_EQ(host_stats()["left_to_ggml"]["prefill"], 1);
  AttentionGraph mixed({.value_type = GGML_TYPE_Q8_0});
  compute(mixed, mixed.graph({mixed.write, mixed.attention}));
  EXPECT_EQ(host_stats()["left_to_ggml"]["cache_type"], 1);
  AttentionGraph late({});
  compute(late, late.graph({late.attention, late.write}));
  EXPECT_EQ(host_stats()["left_to_ggml"]["written_after"], 1);
  EXPECT_EQ(host_stats()["device_steps"], 0);
}

// One row of a batch is short: it gets all its keys beside one that chooses.
TEST(Device, AShortRowBesideALongOne) {
  AttentionGraph here({.n_rows = 2}), there({.n_rows = 2});
  for (AttentionGraph* g : {&here, &there}) {
    auto* mask = static_cast<uint16_t*>(g->mask->data);
    std::fill(mask + 256 + 20, mask + 512, uint16_t{0xFC00});
  }
  configure(kSparse);
  const auto ours = compute(here, here.graph({here.write, here.attention}));
  EXPECT_EQ(host_stats()["sparse_rows"], 1);
  EXPECT_EQ(host_stats()["dense_rows"], 1);
  EXPECT_EQ(host_stats()["keys_attended"], 32 + 20);
  const auto theirs = on_cpu(there, there.graph({there.write, there.attention}), kSparse);
  EXPECT_LT(largest_difference(ours, theirs), 1e-5f);
}

TEST(Device, AFailedCallLeavesTheNodeToGgml) {
  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure("method=ggml");
  const auto theirs = compute(g, graph);
  configure(kSparse);
  fail_next(1, 0);
  EXPECT_EQ(compute(g, graph), theirs);
  EXPECT_EQ(host_stats()["left_to_ggml"]["cuda_failed"], 1);
  EXPECT_NE(compute(g, graph), theirs);
  EXPECT_EQ(host_stats()["left_to_ggml"]["cuda_failed"], 1);
  EXPECT_EQ(verify_count("stale"), 0);
}

TEST(Device, WithoutMemoryForCodesALayerStaysDense) {
  configure("method=ggml");
  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  const auto theirs = compute(g, graph);
  configure(kSparse);
  fail_next(0, 1);
  EXPECT_EQ(compute(g, graph), theirs);
  EXPECT_EQ(host_stats()["left_to_ggml"]["memory"], 1);
  EXPECT_EQ(compute(g, graph), theirs) << "not asked for again at every step";
}

TEST(Device, OptionsChangeBetweenGraphs) {
  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  hata_ggml_reset_stats();
  for (const char* method : {"hata", "hata-paper", "quest", "ggml", "hata", "dense", "hata"}) {
    for (const char* more : {"", "rbit=64 ", "rbit=128 seed=9 lengths=off "}) {
      const std::string options = std::string(kSparse) + " method=" + method + " " + more;
      ASSERT_EQ(hata_ggml_configure(options.c_str()), nullptr) << options;
      compute(g, graph);
    }
  }
  EXPECT_EQ(host_stats()["device_steps"], 12);
  EXPECT_EQ(verify_count("stale"), 0);
}

TEST(Device, AFreedBufferIsForgotten) {
  configure(kSparse);
  {
    AttentionGraph g({});
    compute(g, g.graph({g.write, g.attention}));
    EXPECT_EQ(host_stats()["caches"], 1);
    EXPECT_GT(host_stats()["code_bytes"], 512 * 2 * 16);
  }
  EXPECT_EQ(host_stats()["caches"], 0);
}

// --- several devices -----------------------------------------------------------------------------

constexpr int kDevices = 2;

/// A ggml with two devices of the stand-in, which leaves the wrong one current. Only one at a time.
class TwoDevices {
 public:
  explicit TwoDevices(const std::vector<AttentionGraph*>& graphs) : real(*first_real()) {
    void* fake = dlopen(HATA_FAKE_CUDA, RTLD_NOW);
    place_ = reinterpret_cast<decltype(place_)>(dlsym(fake, "hata_cuda_fake_place"));
    current_ = reinterpret_cast<int* (*)()>(dlsym(fake, "hata_cuda_fake_current"))();
    for (int d = 0; d < kDevices; ++d) backends_[d] = graphs[static_cast<size_t>(d)]->backend;
    real.ggml_backend_get_device = [](ggml_backend_t backend) {
      return reinterpret_cast<ggml_backend_dev_t>(&backends_[device_of(backend)]);
    };
    real.ggml_backend_graph_compute_async = [](ggml_backend_t backend, ggml_cgraph* graph) {
      EXPECT_EQ(*current_, ggmls_) << "ggml must find the device current that it left so";
      leave(1 - device_of(backend));
      return first_real()->ggml_backend_graph_compute_async(backend, graph);
    };
    real.ggml_backend_event_new = [](ggml_backend_dev_t) { return ggml_backend_event_t{}; };
  }
  ~TwoDevices() {
    for (const Range& range : placed_) place(range, 0);
    leave(0);
  }
  TwoDevices(const TwoDevices&) = delete;
  TwoDevices& operator=(const TwoDevices&) = delete;

  /// All that the graph reads and writes is in this device's memory.
  void put(const AttentionGraph& g, int device) {
    placed_.push_back(
        Range::of(ggml_backend_buffer_get_base(g.buffer), ggml_backend_buffer_get_size(g.buffer)));
    place(placed_.back(), device);
    placed_.push_back(Range::of(g.attention->data, ggml_nbytes(g.attention)));
    place(placed_.back(), device);
  }
  static void leave(int device) { *current_ = ggmls_ = device; }
  static int current() { return *current_; }

  Real real;

 private:
  static int device_of(ggml_backend_t backend) { return backend == backends_[0] ? 0 : 1; }
  void place(const Range& range, int device) {
    place_(range.begin, static_cast<size_t>(range.end - range.begin), device);
  }

  void (*place_)(const void*, size_t, int);
  std::vector<Range> placed_;
  static inline ggml_backend_t backends_[kDevices];
  static inline int* current_;
  static inline int ggmls_;
};

// The stand-in ends the program where a call meets another device's memory or stream.
TEST(Device, LayersOnTwoDevicesTakeTurns) {
  for (const char* more : {"", " recent=5 sink=3"}) {
    const std::string options = std::string(kSparse) + more;
    const GraphShape shapes[] = {{.n_rows = 2, .layer = 3}, {.n_rows = 2, .layer = 4}};
    constexpr int kSteps = 3;
    const auto set = [&](AttentionGraph& g, int step) {
      if (step == 0) hide_cells(g, g.s.layer);
      auto* new_keys = static_cast<float*>(g.new_keys->data);
      for (int64_t i = 0; i < ggml_nelements(g.new_keys); ++i) new_keys[i] = -1.25f * new_keys[i];
      for (int64_t r = 0; r < 2; ++r) static_cast<int64_t*>(g.rows->data)[r] = 7 + step + 40 * r;
    };
    AttentionGraph first(shapes[0]), second(shapes[1]);
    const std::vector<AttentionGraph*> graphs{&first, &second};
    std::vector<ggml_cgraph*> whole;
    for (AttentionGraph* g : graphs) whole.push_back(g->graph({g->write, g->attention}));
    configure("method=ggml");
    SelfTest test(*first_real(), ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    ASSERT_TRUE(test.run()) << test.failure();
    TwoDevices two(graphs);
    for (int d = 0; d < kDevices; ++d) two.put(*graphs[static_cast<size_t>(d)], d);
    {
      const auto config = config_of(options);
      const DeviceInputs inputs;
      Caches caches(&inputs);
      Models models;
      Reasons reasons;
      const InspectorCall nobody;
      const Shared shared{.real = two.real,
                          .ops = test.ops(),
                          .caches = caches,
                          .models = models,
                          .reasons = reasons,
                          .inspector = nobody,
                          .prefill_inspector = nobody};
      DeviceRun run(config, shared, test.layout(), inputs);
      uint64_t number = 0;
      for (int step = 0; step < kSteps; ++step) {
        for (int d = 0; d < kDevices; ++d) {
          AttentionGraph& g = *graphs[static_cast<size_t>(d)];
          set(g, step);
          TwoDevices::leave(step % 2);
          EXPECT_EQ(run.compute(g.backend, whole[static_cast<size_t>(d)], ++number),
                    GGML_STATUS_SUCCESS);
          EXPECT_EQ(TwoDevices::current(), 1 - d) << "where ggml's last part has left it";
        }
      }
      EXPECT_EQ(run.sparse_steps(), kDevices * kSteps);
      const VerifyCounts verified = run.take_verify_counts();
      EXPECT_EQ(verified.stale, 0);
      EXPECT_GT(verified.cells, 0);
    }
    for (AttentionGraph* g : graphs) {
      const auto* out = static_cast<const float*>(g->attention->data);
      const std::vector<float> ours(out, out + ggml_nelements(g->attention));
      AttentionGraph there(g->s);
      const auto theirs = on_cpu(there, there.graph({there.write, there.attention}), options,
                                 kSteps, [&](int step) { set(there, step); });
      EXPECT_LT(largest_difference(ours, theirs), 1e-5f) << "layer " << g->s.layer;
    }
  }
}

// --- a prefill that is looked at ----------------------------------------------------------------

struct SeenPrefill {
  const AttentionGraph& g;
  int n_seen = 0;

  void see(const PrefillInspection& inspection) {
    ++n_seen;
    const Step& step = inspection.step;
    EXPECT_EQ(inspection.layer, g.s.layer);
    ASSERT_EQ(std::ssize(step.rows), g.s.n_rows);
    EXPECT_EQ(step.n_kv, g.s.n_kv);
    EXPECT_EQ(step.shape.n_kv_heads, g.s.n_kv_heads);
    const auto d = static_cast<size_t>(g.s.head_dim);
    for (int64_t t = 0; t < g.s.n_rows; ++t) {
      const Row& row = step.rows[static_cast<size_t>(t)];
      for (int64_t h = 0; h < g.s.n_q_heads; ++h) {
        const auto* q = static_cast<const float*>(g.query->data) + (t * g.s.n_q_heads + h) * d;
        EXPECT_NE(row.query(static_cast<int>(h)), q) << "it is a copy";
        EXPECT_TRUE(std::equal(q, q + d, row.query(static_cast<int>(h))));
      }
      const auto* mask = static_cast<const uint16_t*>(g.mask->data) + t * g.s.n_kv;
      EXPECT_TRUE(std::equal(mask, mask + g.s.n_kv, row.mask));
    }
    const size_t bytes = d * sizeof(uint16_t);
    for (int64_t cell = 0; cell < g.s.n_kv; ++cell) {
      for (int64_t h = 0; h < g.s.n_kv_heads; ++h) {
        const auto* key =
            static_cast<const char*>(g.keys->data) + (cell * g.s.n_kv_heads + h) * bytes;
        EXPECT_EQ(std::memcmp(step.keys.row(cell, static_cast<int>(h)), key, bytes), 0) << cell;
        const auto* value =
            static_cast<const char*>(g.values->data) + (cell * g.s.n_kv_heads + h) * bytes;
        EXPECT_EQ(std::memcmp(step.values.row(cell, static_cast<int>(h)), value, bytes), 0) << cell;
      }
    }
  }
};

TEST(Device, AnInspectorSeesWhatAPrefillAttendsTo) {
  const GraphShape shape{.n_rows = 40};
  AttentionGraph g(shape), unseen(shape);
  hide_cells(g, 7);
  hide_cells(unseen, 7);
  SeenPrefill seen{g};
  hata_ggml_set_prefill_inspector(
      [](const void* step, void* user) {
        static_cast<SeenPrefill*>(user)->see(*static_cast<const PrefillInspection*>(step));
      },
      &seen);
  configure("method=dense quiet=1");
  const auto out = compute(g, g.graph({g.write, g.attention}));
  hata_ggml_set_prefill_inspector(nullptr, nullptr);
  EXPECT_EQ(seen.n_seen, 1);
  EXPECT_EQ(out, compute(unseen, unseen.graph({unseen.write, unseen.attention})));
  EXPECT_EQ(seen.n_seen, 1);
}

// --- the parts ---------------------------------------------------------------------------------

TEST(GraphCut, PartsComputeWhatTheWholeDoes) {
  GraphLayout layout;
  {
    SelfTest test(*first_real(), ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    ASSERT_TRUE(test.run()) << test.failure();
    layout = test.layout();
  }
  ASSERT_TRUE(layout.known());
  EXPECT_NE(layout.n_nodes, layout.uid);

  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  ASSERT_EQ(hata_ggml_configure("method=ggml"), nullptr);
  const auto whole = compute(g, graph);
  const int n = ggml_graph_n_nodes(graph);
  ggml_tensor** nodes = ggml_graph_nodes(graph);
  std::memset(g.attention->data, 0, ggml_nbytes(g.attention));
  for (int i = 0; i < n; ++i) {
    const GraphPart part(layout, graph, i, 1);
    EXPECT_EQ(ggml_graph_n_nodes(graph), 1);
    EXPECT_EQ(ggml_graph_nodes(graph), nodes + i);
    EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
  }
  EXPECT_EQ(ggml_graph_n_nodes(graph), n);
  EXPECT_EQ(ggml_graph_nodes(graph), nodes);
  const auto* out = static_cast<const float*>(g.attention->data);
  EXPECT_EQ(std::vector<float>(out, out + whole.size()), whole);
}

TEST(GraphCut, EveryPartHasANumberOfItsOwn) {
  alignas(8) unsigned char graph[128] = {};
  const GraphLayout layout{.n_nodes = 4, .nodes = 16, .uid = 88};
  auto& uid = *reinterpret_cast<uint64_t*>(graph + 88);
  const auto uid_of = [&](uint64_t whole, int first, int n) {
    uid = whole;
    uint64_t of_part = 0;
    {
      const GraphPart part(layout, reinterpret_cast<ggml_cgraph*>(graph), first, n);
      of_part = uid;
    }
    EXPECT_EQ(uid, whole);
    return of_part;
  };
  EXPECT_EQ(uid_of(0, 3, 5), 0u) << "a graph without a number has none in parts, either";
  std::vector<uint64_t> all{7, 8};
  for (const uint64_t whole : {7, 8}) {
    for (const int first : {0, 1, 20}) {
      for (const int n : {1, 2, 19}) all.push_back(uid_of(whole, first, n));
    }
  }
  EXPECT_EQ(uid_of(7, 1, 2), uid_of(7, 1, 2));
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
}

// The stand-in's events have always happened already.
TEST(DeviceLane, EventsThatDoNotWaitAreNotUsed) {
  struct Event {
    ggml_backend_dev_t dev;
    void* of_cuda;
  };
  AttentionGraph g({});
  Real real = *first_real();
  real.ggml_backend_event_new = [](ggml_backend_dev_t dev) {
    return reinterpret_cast<ggml_backend_event_t>(new Event{dev, nullptr});
  };
  real.ggml_backend_event_free = [](ggml_backend_event_t event) {
    delete reinterpret_cast<Event*>(event);
  };
  real.ggml_backend_event_record = [](ggml_backend_event_t, ggml_backend_t) {};
  real.ggml_backend_event_wait = [](ggml_backend_t, ggml_backend_event_t) {};
  std::string why;
  const CudaLibrary* cuda = CudaLibrary::get(why);
  ASSERT_NE(cuda, nullptr) << why;
  DeviceLane lane(real, *cuda, ggml_backend_get_device(g.backend), 0);
  EXPECT_TRUE(lane.follow(g.backend));
  EXPECT_FALSE(lane.by_events());
  EXPECT_TRUE(lane.lead(g.backend));
}

TEST(DeviceLane, UploadsLastAsLongAsTheirGraph) {
  std::string why;
  const CudaLibrary* cuda = CudaLibrary::get(why);
  ASSERT_NE(cuda, nullptr) << why;
  DeviceLane lane(*first_real(), *cuda, nullptr, 0);
  for (int graph = 0; graph < 5; ++graph) {
    ASSERT_TRUE(lane.begin_graph());
    std::vector<std::pair<const void*, std::vector<int>>> uploads;
    for (const size_t n : {1, 100, 300'000, 7, 500'000, 200'000}) {
      std::vector<int> data(n, graph * 100 + static_cast<int>(n % 97));
      const void* there = lane.upload(data.data(), n * sizeof(int));
      ASSERT_NE(there, nullptr);
      uploads.emplace_back(there, std::move(data));
    }
    for (const auto& [there, data] : uploads) {
      EXPECT_EQ(std::memcmp(there, data.data(), data.size() * sizeof(int)), 0);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(there) % 256, 0u);
    }
    lane.end_graph();
  }
  const DeviceMemory* small = lane.workspace(8, 1000);
  const DeviceMemory* other = lane.workspace(16, 1000);
  EXPECT_NE(small->as<void>(), other->as<void>());
  EXPECT_EQ(lane.workspace(8, 900)->as<void>(), small->as<void>());
}

/// A ggml whose buffers are a device's.
Real device_real() {
  Real real = *first_real();
  real.ggml_backend_buffer_is_host = [](ggml_backend_buffer_t) { return false; };
  return real;
}

TEST(DeviceInputs, RemembersMasksAndNumbers) {
  AttentionGraph g({.n_rows = 3});
  const Real real = device_real();
  DeviceInputs inputs;
  EXPECT_TRUE(inputs.empty());
  EXPECT_EQ(inputs.mask(real, g.mask), nullptr);
  std::vector<int64_t> numbers;
  EXPECT_FALSE(inputs.numbers(real, g.rows, numbers));

  std::vector<uint16_t> mask(3 * 256, 0);
  mask[0] = mask[255] = mask[256] = 0xFC00;
  const std::vector<int64_t> rows{5, 70, 9};
  inputs.written(real, g.mask, mask.data(), 0, mask.size() * 2);
  inputs.written(real, g.rows, rows.data(), 0, rows.size() * 8);
  const auto bits = inputs.mask(real, g.mask);
  ASSERT_NE(bits, nullptr);
  EXPECT_EQ(bits->n_valid, (std::vector<int64_t>{254, 255, 256}));
  EXPECT_FALSE(bits->has_values);
  EXPECT_EQ(bits->row(0)[0], ~uint64_t{1});
  ASSERT_TRUE(inputs.numbers(real, g.rows, numbers));
  EXPECT_EQ(numbers, rows);

  mask[7] = ggml_fp32_to_fp16(-1.0f);
  inputs.written(real, g.mask, mask.data(), 0, mask.size() * 2);
  EXPECT_TRUE(inputs.mask(real, g.mask)->has_values);
  EXPECT_EQ(bits->n_valid[0], 254) << "who holds the old one keeps it";
}

// The scheduler copies an input to every device that reads it.
TEST(DeviceInputs, EachDevicesCopyIsItsOwn) {
  AttentionGraph first({}), second({});
  const Real real = device_real();
  DeviceInputs inputs;
  std::vector<uint16_t> mask(256, 0);
  for (AttentionGraph* g : {&first, &second}) {
    inputs.written(real, g->mask, mask.data(), 0, mask.size() * 2);
  }
  mask[3] = 0xFC00;
  inputs.written(real, second.mask, mask.data(), 0, mask.size() * 2);
  EXPECT_EQ(inputs.mask(real, first.mask)->n_valid[0], 256);
  EXPECT_EQ(inputs.mask(real, second.mask)->n_valid[0], 255);
  inputs.forget(Range::of(first.mask->data, 2));
  EXPECT_EQ(inputs.mask(real, first.mask), nullptr);
  EXPECT_NE(inputs.mask(real, second.mask), nullptr);
}

TEST(DeviceInputs, ForgetsWhatIsOverwritten) {
  AttentionGraph g({.n_rows = 3});
  const Real real = device_real();
  DeviceInputs inputs;
  const std::vector<uint16_t> mask(3 * 256, 0);
  const auto remember = [&] { inputs.written(real, g.mask, mask.data(), 0, mask.size() * 2); };
  remember();
  inputs.written(real, g.mask, mask.data(), 16, 32);  // a part of it
  EXPECT_EQ(inputs.mask(real, g.mask), nullptr);
  remember();
  inputs.forget(Range::of(static_cast<char*>(g.mask->data) + 100, 4));
  EXPECT_EQ(inputs.mask(real, g.mask), nullptr);
  remember();
  ggml_tensor* other = ggml_view_1d(g.nodes, g.mask, 256, 0);  // a tensor in the same place
  inputs.written(real, other, mask.data(), 0, 512);
  EXPECT_EQ(inputs.mask(real, g.mask), nullptr);
}

}  // namespace
}  // namespace hata::host
