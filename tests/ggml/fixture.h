// Attention over a small cache, built as llama.cpp builds it, for the tests of the host's parts.
#pragma once

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "ggml/gate.h"

namespace hata::host {

struct GraphShape {
  int64_t head_dim = 64;
  int64_t n_q_heads = 4;
  int64_t n_kv_heads = 2;
  int64_t n_cells = 512;  ///< per stream
  int64_t n_kv = 256;
  int64_t n_rows = 1;
  int64_t n_streams = 1;
  int64_t first_stream = 0;
  int64_t all_streams = 1;
  int layer = 3;
  ggml_type key_type = GGML_TYPE_F16;
  ggml_type value_type = GGML_TYPE_F16;
};

class AttentionGraph {
 public:
  explicit AttentionGraph(const GraphShape& shape) : s(shape), backend(ggml_backend_cpu_init()) {
    ggml_backend_cpu_set_n_threads(backend, 2);
    const ggml_init_params params{ggml_tensor_overhead() * 64 + 4 * ggml_graph_overhead(), nullptr,
                                  true};
    leafs = ggml_init(params);
    nodes = ggml_init(params);
    const int64_t row = s.head_dim * s.n_kv_heads;
    keys = ggml_new_tensor_3d(leafs, s.key_type, row, s.n_cells, s.all_streams);
    values = ggml_new_tensor_3d(leafs, s.value_type, row, s.n_cells, s.all_streams);
    ggml_format_name(keys, "cache_k_l%d", s.layer);
    ggml_format_name(values, "cache_v_l%d", s.layer);
    query =
        ggml_new_tensor_4d(leafs, GGML_TYPE_F32, s.head_dim, s.n_q_heads, s.n_rows, s.n_streams);
    mask = ggml_new_tensor_4d(leafs, GGML_TYPE_F16, s.n_kv, s.n_rows, 1, s.n_streams);
    new_keys = ggml_new_tensor_2d(leafs, GGML_TYPE_F32, row, s.n_rows * s.n_streams);
    rows = ggml_new_tensor_1d(leafs, GGML_TYPE_I64, s.n_rows * s.n_streams);
    ggml_set_input(rows);
    buffer = ggml_backend_alloc_ctx_tensors(leafs, backend);

    key_view = view_of(keys);
    value_view = view_of(values);
    write = ggml_set_rows(nodes, ggml_reshape_2d(nodes, keys, row, s.n_cells * s.all_streams),
                          new_keys, rows);
    attention =
        ggml_flash_attn_ext(nodes, ggml_permute(nodes, query, 0, 2, 1, 3), key_view, value_view,
                            mask, 1.0f / std::sqrt(float(s.head_dim)), 0.0f, 0.0f);
    fill();
  }
  ~AttentionGraph() {
    ggml_gallocr_free(allocator);
    ggml_backend_buffer_free(buffer);
    ggml_free(nodes);
    ggml_free(leafs);
    ggml_backend_free(backend);
  }
  AttentionGraph(const AttentionGraph&) = delete;
  AttentionGraph& operator=(const AttentionGraph&) = delete;

  ggml_tensor* view_of(ggml_tensor* cache) {
    const size_t head = ggml_row_size(cache->type, s.head_dim);
    ggml_tensor* view = ggml_view_4d(nodes, cache, s.head_dim, s.n_kv_heads, s.n_kv, s.n_streams,
                                     head, cache->nb[1], cache->nb[2],
                                     cache->nb[2] * static_cast<size_t>(s.first_stream));
    return ggml_permute(nodes, view, 0, 2, 1, 3);
  }

  /// The graph that computes these nodes in this order.
  ggml_cgraph* graph(std::initializer_list<ggml_tensor*> in_order) {
    ggml_cgraph* g = ggml_new_graph(nodes);
    for (ggml_tensor* node : in_order) ggml_build_forward_expand(g, node);
    if (allocator == nullptr) {
      allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend));
    }
    EXPECT_TRUE(ggml_gallocr_alloc_graph(allocator, g));
    return g;
  }

  void fill() {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (ggml_tensor* t : {keys, values, query, new_keys}) {
      for (int64_t i = 0; i < ggml_nelements(t); ++i) {
        if (t->type == GGML_TYPE_F16) {
          static_cast<ggml_fp16_t*>(t->data)[i] = ggml_fp32_to_fp16(normal(random));
        } else if (t->type == GGML_TYPE_F32) {
          static_cast<float*>(t->data)[i] = normal(random);
        }
      }
    }
    std::memset(mask->data, 0, ggml_nbytes(mask));
    for (int64_t i = 0; i < rows->ne[0]; ++i) static_cast<int64_t*>(rows->data)[i] = 5 + i;
  }

  /// Numbers that f16 and q8_0 hold alike, so that caches of both have the same keys and values,
  /// and get the same new ones.
  void fill_exactly() {
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < ggml_nelements(query); ++i) {
      static_cast<float*>(query->data)[i] = normal(random);
    }
    for (ggml_tensor* t : {keys, values, new_keys}) {
      std::vector<float> numbers;
      for (int64_t i = 0; i < ggml_nelements(t); ++i) {
        const float q = i % 32 == 0 ? 127.0f : std::round(30.0f * normal(random));
        numbers.push_back(std::clamp(q, -127.0f, 127.0f) / 64.0f);
      }
      if (t->type == GGML_TYPE_F32) {
        std::memcpy(t->data, numbers.data(), ggml_nbytes(t));
      } else {
        ggml_quantize_chunk(t->type, numbers.data(), t->data, 0, ggml_nrows(t), t->ne[0], nullptr);
      }
    }
  }

  GraphShape s;
  ggml_backend_t backend;
  ggml_context *leafs, *nodes;
  ggml_gallocr_t allocator = nullptr;
  ggml_backend_buffer_t buffer;
  ggml_tensor *keys, *values, *query, *mask, *new_keys, *rows;
  ggml_tensor *key_view, *value_view, *write, *attention;
};

/// ggml's operation numbers, from the self-test.
inline const Ops& test_ops() {
  static const Ops ops = [] {
    SelfTest test(*first_real(), ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    EXPECT_TRUE(test.run()) << test.failure();
    return test.ops();
  }();
  return ops;
}

}  // namespace hata::host
