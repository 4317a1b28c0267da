// The host on hand-built graphs, with the hooks in this very program.
#include "ggml/host.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fixture.h"
#include "hata/ggml.h"
#include "hata/weights.h"
#include "methods/prefill.h"
#include "stats_of.h"

namespace hata::host {
namespace {

constexpr const char* kSparse = "budget=32 min-ctx=0 dense-layers=0 verify=1 quiet=1";

void configure(const char* options) {
  const char* error = hata_ggml_configure(options);
  ASSERT_EQ(error, nullptr) << error;
  hata_ggml_reset_stats();
}

std::vector<float> compute(AttentionGraph& g, ggml_cgraph* graph) {
  EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
  EXPECT_EQ(g.attention->op, GGML_OP_FLASH_ATTN_EXT) << "the node must be ggml's own again";
  const auto* out = static_cast<const float*>(g.attention->data);
  return {out, out + ggml_nelements(g.attention)};
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

int64_t verify_count(const char* name) { return host_stats()["verify"][name]; }

TEST(Host, ExactPathAgreesWithGgml) {
  for (const GraphShape& shape :
       {GraphShape{}, GraphShape{.head_dim = 128, .n_q_heads = 8, .n_rows = 4},
        GraphShape{.n_q_heads = 2, .n_rows = 2, .n_streams = 3, .all_streams = 3}}) {
    AttentionGraph g(shape);
    auto* mask = static_cast<uint16_t*>(g.mask->data);
    for (int64_t i = 0; i < ggml_nelements(g.mask); i += 3) mask[i] = 0xFC00;  // -inf
    ggml_cgraph* graph = g.graph({g.write, g.attention});
    configure("method=ggml");
    const auto theirs = compute(g, graph);
    configure("method=dense");
    const auto ours = compute(g, graph);
    EXPECT_EQ(host_stats()["dense_steps"], shape.n_streams);
    EXPECT_LT(largest_difference(ours, theirs), 2e-3f);
    configure("dense-layers=100");
    EXPECT_EQ(compute(g, graph), ours);
    configure("min-ctx=100000 dense-layers=0");
    EXPECT_EQ(compute(g, graph), ours);
    configure("budget=100% min-ctx=0 dense-layers=0");
    EXPECT_EQ(compute(g, graph), ours);
  }
}

TEST(Host, SparseStepsReadFewKeysAndEveryCodeIsFresh) {
  AttentionGraph g({.n_rows = 2});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure(kSparse);
  auto* new_keys = static_cast<float*>(g.new_keys->data);
  for (int step = 0; step < 10; ++step) {
    for (int64_t i = 0; i < ggml_nelements(g.new_keys); ++i) new_keys[i] = -1.25f * new_keys[i];
    static_cast<int64_t*>(g.rows->data)[0] = 7 + step;  // each row is written twice
    static_cast<int64_t*>(g.rows->data)[1] = 8 + step;
    compute(g, graph);
  }
  const auto stats = host_stats();
  EXPECT_TRUE(stats["at_work"]) << stats;
  EXPECT_EQ(stats["sparse_steps"], 10);
  EXPECT_EQ(stats["sparse_rows"], 20);
  EXPECT_EQ(stats["keys_attended"], 20 * 32);
  EXPECT_EQ(stats["keys_valid"], 20 * 256);
  EXPECT_EQ(stats["verify"]["cells"], 10 * 256);
  EXPECT_EQ(stats["verify"]["stale"], 0);
  EXPECT_EQ(stats["verify"]["unseen_changes"], 0);
}

// Writes that no hook can see must be found: this is the proof that the check can fail.
TEST(Host, VerifyReportsKeysWrittenBehindOurBack) {
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
  hata_ggml_invalidate(keys + 100 * 128, 3 * 128 * sizeof(ggml_fp16_t));
  hata_ggml_reset_stats();
  compute(g, graph);
  EXPECT_EQ(verify_count("stale"), 0);
}

/// Runs `write` between two sparse steps; no code may be stale, and the codes must have followed.
template <class Write>
void expect_seen(Write&& write) {
  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure(kSparse);
  compute(g, graph);
  const std::vector<std::byte> before(static_cast<std::byte*>(g.keys->data),
                                      static_cast<std::byte*>(g.keys->data) + 256 * 256);
  write(g);
  EXPECT_NE(std::memcmp(before.data(), g.keys->data, before.size()), 0) << "nothing was written";
  compute(g, graph);
  EXPECT_EQ(verify_count("steps"), 2);
  EXPECT_EQ(verify_count("unseen_changes"), 0);
  EXPECT_EQ(verify_count("stale"), 0);
}

TEST(Host, SeesWritesOutsideAGraph) {
  std::vector<uint16_t> data(64 * 128, 0x4200);
  expect_seen(
      [&](AttentionGraph& g) { ggml_backend_tensor_set(g.keys, data.data(), 20 * 256, 10 * 256); });
  expect_seen([&](AttentionGraph& g) {
    ggml_backend_tensor_set(ggml_view_1d(g.nodes, g.keys, 640, 2560), data.data(), 256, 512);
  });
  expect_seen([&](AttentionGraph& g) {
    ggml_backend_tensor_set_async(g.backend, g.keys, data.data(), 0, 256);
  });
  expect_seen([&](AttentionGraph& g) {
    ggml_backend_tensor_set_2d(g.keys, data.data(), 4, 16, 50, 256, 16);
  });
  expect_seen([&](AttentionGraph& g) {
    ggml_backend_tensor_set_2d_async(g.backend, g.keys, data.data(), 4, 16, 50, 256, 16);
  });
  expect_seen([&](AttentionGraph& g) { ggml_backend_tensor_memset(g.keys, 0x42, 256, 2560); });
  expect_seen([&](AttentionGraph& g) { ggml_backend_tensor_copy(g.values, g.keys); });
  expect_seen([&](AttentionGraph& g) {
    ggml_backend_tensor_copy_async(g.backend, g.backend, g.values, g.keys);
  });
  expect_seen(
      [&](AttentionGraph& g) { EXPECT_TRUE(ggml_backend_buffer_copy_tensor(g.values, g.keys)); });
  expect_seen([&](AttentionGraph& g) {
    ggml_backend_buffer_clear(g.buffer, 0);
    static_cast<int64_t*>(g.rows->data)[0] = 9;
  });
}

TEST(Host, SeesWritesOfGraphsWithoutAttention) {
  // A context shift.
  expect_seen([](AttentionGraph& g) {
    ggml_tensor* positions = ggml_new_tensor_1d(g.leafs, GGML_TYPE_I32, 512);
    std::vector<int32_t> shift(512, 3);
    positions->data = shift.data();
    ggml_tensor* k = ggml_view_3d(g.nodes, g.keys, 64, 2, 512, 128, 256, 0);
    ggml_cgraph* graph = ggml_new_graph(g.nodes);
    ggml_build_forward_expand(graph, ggml_rope_inplace(g.nodes, k, positions, 64, 0));
    EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
  });
  expect_seen([](AttentionGraph& g) {
    ggml_cgraph* graph = ggml_new_graph(g.nodes);
    ggml_build_forward_expand(graph, ggml_cpy(g.nodes, g.values, g.keys));
    EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
  });
  // Hands off for a while: what was known must not become wrong.
  expect_seen([](AttentionGraph& g) {
    ASSERT_EQ(hata_ggml_configure("method=ggml"), nullptr);
    ggml_cgraph* graph = ggml_new_graph(g.nodes);
    static_cast<int64_t*>(g.rows->data)[0] = 99;
    ggml_build_forward_expand(graph, g.write);
    EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
    ASSERT_EQ(hata_ggml_configure(kSparse), nullptr);
  });
}

TEST(Host, KeysWrittenAfterTheAttentionStayDense) {
  AttentionGraph g({});
  configure(kSparse);
  compute(g, g.graph({g.attention, g.write}));
  EXPECT_EQ(host_stats()["sparse_steps"], 0);
  EXPECT_EQ(host_stats()["left_to_ggml"]["written_after"], 1);
  compute(g, g.graph({g.write, g.attention}));
  EXPECT_EQ(host_stats()["sparse_steps"], 1);
  EXPECT_EQ(verify_count("stale"), 0);
}

TEST(Host, RowsComputedInTheGraphStayDense) {
  AttentionGraph g({});
  ggml_tensor* source = ggml_new_tensor_1d(g.leafs, GGML_TYPE_I32, 1);
  ggml_tensor* rows = ggml_new_tensor_1d(g.leafs, GGML_TYPE_I32, 1);
  int32_t from = 200, to = 0;
  source->data = &from;
  rows->data = &to;
  ggml_tensor* copied = ggml_cpy(g.nodes, source, rows);
  ggml_tensor* write = ggml_set_rows(g.nodes, g.keys, g.new_keys, copied);
  configure(kSparse);
  compute(g, g.graph({g.write, g.attention}));
  compute(g, g.graph({write, g.attention}));
  EXPECT_EQ(host_stats()["sparse_steps"], 1);
  EXPECT_EQ(host_stats()["left_to_ggml"]["computed_rows"], 1);
  compute(g, g.graph({g.attention}));
  EXPECT_EQ(host_stats()["sparse_steps"], 2);
  EXPECT_EQ(verify_count("stale"), 0);
}

TEST(Host, ManyRowsAttendToAllKeys) {
  for (const GraphShape& shape :
       {GraphShape{.n_rows = 9}, GraphShape{.head_dim = 128, .n_q_heads = 8, .n_rows = 70},
        GraphShape{.n_q_heads = 2, .n_rows = 20, .n_streams = 3, .all_streams = 3}}) {
    AttentionGraph g(shape);
    auto* mask = static_cast<uint16_t*>(g.mask->data);
    for (int64_t i = 0; i < ggml_nelements(g.mask); i += 3) mask[i] = 0xFC00;  // -inf
    ggml_cgraph* graph = g.graph({g.write, g.attention});
    configure("method=ggml");
    const auto theirs = compute(g, graph);
    configure((std::string(kSparse) + " prefill=off").c_str());
    EXPECT_EQ(compute(g, graph), theirs);
    EXPECT_EQ(host_stats()["left_to_ggml"]["prefill"], 1);
    configure(kSparse);
    if (!Prefill::fast()) continue;
    const auto ours = compute(g, graph);
    EXPECT_LT(largest_difference(ours, theirs), 1e-2f) << "ggml sums in f16";
    for (const char* options : {"dense-layers=100", "method=dense", "max-rows=1"}) {
      configure(options);
      EXPECT_EQ(compute(g, graph), ours) << options;
      EXPECT_EQ(host_stats()["prefill"]["steps"], shape.n_streams);
      EXPECT_EQ(host_stats()["prefill"]["rows"], shape.n_rows * shape.n_streams);
      EXPECT_TRUE(host_stats()["left_to_ggml"].empty());
      EXPECT_EQ(host_stats()["dense_rows"], 0);
    }
  }
}

TEST(Host, MoreThanMaxRowsIsPrefill) {
  configure("budget=32 min-ctx=0 dense-layers=0 max-rows=4");
  for (const int64_t rows : {4, 5}) {
    AttentionGraph g({.n_rows = rows});
    compute(g, g.graph({g.write, g.attention}));
  }
  EXPECT_EQ(host_stats()["sparse_rows"], 4);
  EXPECT_EQ(host_stats()["prefill"]["rows"], Prefill::fast() ? 5 : 0);
}

// Neither needs codes, so that a prefill is ours where a sparse step is not.
TEST(Host, APrefillOfKeysThatAreWrittenAfterIt) {
  AttentionGraph g({.n_rows = 20});
  configure(kSparse);
  compute(g, g.graph({g.attention, g.write}));
  EXPECT_EQ(host_stats()["prefill"]["rows"], Prefill::fast() ? 20 : 0);
}

TEST(Host, UnsupportedHeadDimIsLeftToGgml) {
  AttentionGraph g({.head_dim = 32});
  configure(kSparse);
  compute(g, g.graph({g.write, g.attention}));
  EXPECT_EQ(host_stats()["left_to_ggml"]["shape"], 1);
}

TEST(Host, ALayerThatTheWeightsDoNotFitStaysDense) {
  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  configure("method=dense");
  const auto dense = compute(g, graph);
  configure("method=ggml");  // the run below is the only one
  for (const bool fits : {true, false}) {
    auto weights = std::make_shared<Weights>();
    weights->layers[3].projection = random_projection(1, 3, fits ? 2 : 4, 64, 128);
    auto config = std::make_shared<Config>();
    config->options = parse_options(kSparse);
    config->hata.weights = weights;
    config->selector = make_selector("hata", config->hata);
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
    testing::internal::CaptureStderr();
    for (const uint64_t number : {1, 2}) {
      run.begin(graph, number);
      EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
      run.end();
    }
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(run.sparse_steps(), fits ? 2 : 0);
    EXPECT_EQ(run.dense_steps(), fits ? 0 : 2);
    EXPECT_EQ(reasons.count(Reason::weights), fits ? 0 : 2);
    if (fits) continue;
    const auto* out = static_cast<const float*>(g.attention->data);
    EXPECT_EQ(std::vector<float>(out, out + ggml_nelements(g.attention)), dense);
    EXPECT_NE(said.find("layer 3: the number of KV heads is 4, not 2"), std::string::npos) << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  }
}

TEST(Host, AFreedBufferIsForgotten) {
  configure(kSparse);
  {
    AttentionGraph g({});
    compute(g, g.graph({g.write, g.attention}));
    EXPECT_EQ(host_stats()["caches"], 1);
    EXPECT_GT(host_stats()["code_bytes"], 512 * 2 * 16);
  }
  EXPECT_EQ(host_stats()["caches"], 0);
  EXPECT_EQ(host_stats()["code_bytes"], 0);
}

// The order of writes is kept while hands are off: the last tokens are still the last ones.
TEST(Host, RecencySurvivesHandsOff) {
  const std::string streaming = std::string(kSparse) + " method=streaming budget=8";
  const auto output_after = [&](const char* meanwhile) {
    AttentionGraph g({});
    ggml_cgraph* graph = g.graph({g.write, g.attention});
    for (const auto& [options, row] : {std::pair<const char*, int64_t>{streaming.c_str(), 5},
                                       {meanwhile, 100},
                                       {streaming.c_str(), 200}}) {
      configure(options);
      static_cast<int64_t*>(g.rows->data)[0] = row;
      compute(g, graph);
    }
    const auto* out = static_cast<const float*>(g.attention->data);
    return std::vector<float>(out, out + ggml_nelements(g.attention));
  };
  EXPECT_EQ(output_after("method=ggml"), output_after(streaming.c_str()));
}

TEST(Host, AnotherLayerAtTheSamePlaceInheritsNothing) {
  const auto output_of = [](std::initializer_list<const char*> names) {
    AttentionGraph g({});
    ggml_cgraph* graph = g.graph({g.write, g.attention});
    std::vector<float> out;
    for (const char* name : names) {
      ggml_set_name(g.keys, name);
      out = compute(g, graph);
    }
    return out;
  };
  configure(kSparse);
  const auto fresh = output_of({"cache_k_l4"});
  EXPECT_NE(output_of({"cache_k_l3"}), fresh) << "the layers' projections differ";
  EXPECT_EQ(output_of({"cache_k_l3", "cache_k_l4"}), fresh);
}

// Another tensor in the same memory, with another number of heads.
TEST(Host, AReusedAddressInheritsNothing) {
  AttentionGraph g({});
  configure(kSparse);
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  compute(g, graph);
  AttentionGraph other({.head_dim = 128, .n_q_heads = 2, .n_kv_heads = 1});
  std::memcpy(g.keys->data, other.keys->data, ggml_nbytes(g.keys));
  other.key_view->src[0]->data = other.key_view->data = other.keys->data = g.keys->data;
  other.write->data = other.write->src[2]->data = g.keys->data;
  other.keys->buffer = g.buffer;
  compute(other, other.graph({other.write, other.attention}));
  EXPECT_EQ(host_stats()["caches"], 1);
  EXPECT_EQ(verify_count("steps"), 2);
  EXPECT_EQ(verify_count("stale"), 0);
}

TEST(Host, OptionsChangeBetweenGraphs) {
  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  hata_ggml_reset_stats();
  for (const char* method :
       {"hata", "hata-paper", "exact-logit", "ggml", "streaming", "hata", "dense"}) {
    for (const char* more : {"", "rbit=64 ", "rbit=128 seed=9 lengths=off "}) {
      const std::string options = std::string(kSparse) + " method=" + method + " " + more;
      ASSERT_EQ(hata_ggml_configure(options.c_str()), nullptr) << options;
      compute(g, graph);
    }
  }
  EXPECT_EQ(host_stats()["sparse_steps"], 15);
  EXPECT_EQ(verify_count("steps"), 9);  // exact-logit and streaming keep nothing
  EXPECT_EQ(verify_count("stale"), 0);
  EXPECT_NE(hata_ggml_configure("budget=none"), nullptr);
  EXPECT_EQ(host_stats()["method"], "dense") << "a refused text must change nothing";
}

TEST(Host, GraphsOfSeveralThreadsAtOnce) {
  configure(kSparse);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([] {
      for (int round = 0; round < 4; ++round) {
        AttentionGraph g({.n_rows = 2});
        ggml_backend_cpu_set_n_threads(g.backend, 1);
        ggml_cgraph* graph = g.graph({g.write, g.attention});
        for (int step = 0; step < 10; ++step) compute(g, graph);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(host_stats()["sparse_steps"], 120);
  EXPECT_EQ(verify_count("stale"), 0);
  EXPECT_EQ(host_stats()["caches"], 0);
}

}  // namespace
}  // namespace hata::host
