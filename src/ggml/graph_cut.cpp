#include "ggml/graph_cut.h"

#include <cstring>

namespace hata::host {
namespace {

/// The one offset, a multiple of sizeof(T), at which `fits` holds; -1: none, or several.
template <class T, class Fits>
int only_offset(Fits&& fits) {
  int found = -1;
  const int end = static_cast<int>(std::tuple_size_v<GraphLayout::Bytes>);
  for (int offset = 0; offset < end; offset += static_cast<int>(sizeof(T))) {
    if (!fits(offset)) continue;
    if (found >= 0) return -1;
    found = offset;
  }
  return found;
}

template <class T>
T value_at(const GraphLayout::Bytes& bytes, int offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

}  // namespace

GraphLayout::Bytes GraphLayout::bytes_of(const ggml_cgraph* graph) {
  Bytes bytes;
  std::memcpy(bytes.data(), graph, bytes.size());
  return bytes;
}

GraphLayout GraphLayout::learn(const Real& real) {
  ggml_context* context =
      real.ggml_init({.mem_size = 8 * real.ggml_tensor_overhead() + 3 * real.ggml_graph_overhead(),
                      .mem_buffer = nullptr,
                      .no_alloc = true});
  ggml_tensor* leaf = real.ggml_new_tensor_4d(context, GGML_TYPE_F32, 4, 1, 1, 1);
  ggml_tensor* node = real.ggml_add(context, leaf, leaf);
  ggml_cgraph* graphs[2];
  Bytes bytes[2];
  for (int i = 0; i < 2; ++i) {  // of 3 and 4 nodes
    for (int more = 0; more < 2 - i; ++more) node = real.ggml_add(context, node, leaf);
    graphs[i] = real.ggml_new_graph(context);
    real.ggml_build_forward_expand(graphs[i], node);
    bytes[i] = bytes_of(graphs[i]);
  }
  GraphLayout layout;
  layout.n_nodes = only_offset<int>([&](int offset) {
    return value_at<int>(bytes[0], offset) == real.ggml_graph_n_nodes(graphs[0]) &&
           value_at<int>(bytes[1], offset) == real.ggml_graph_n_nodes(graphs[1]);
  });
  layout.nodes = only_offset<ggml_tensor**>([&](int offset) {
    return value_at<ggml_tensor**>(bytes[0], offset) == real.ggml_graph_nodes(graphs[0]) &&
           value_at<ggml_tensor**>(bytes[1], offset) == real.ggml_graph_nodes(graphs[1]);
  });
  real.ggml_free(context);
  return layout;
}

void GraphLayout::learn_uid(const Bytes& before, const ggml_cgraph* graph) {
  const Bytes after = bytes_of(graph);
  uid = only_offset<uint64_t>([&](int offset) {
    return value_at<uint64_t>(before, offset) == 0 && value_at<uint64_t>(after, offset) != 0;
  });
}

GraphPart::GraphPart(const GraphLayout& layout, ggml_cgraph* graph, int first, int n)
    : layout_(layout),
      graph_(graph),
      n_nodes_(at<int>(layout.n_nodes)),
      nodes_(at<ggml_tensor**>(layout.nodes)),
      uid_(at<uint64_t>(layout.uid)) {
  at<int>(layout.n_nodes) = n;
  at<ggml_tensor**>(layout.nodes) = nodes_ + first;
  if (uid_ == 0) return;
  constexpr uint64_t kOurs = uint64_t{1} << 63;
  const auto cut = static_cast<uint64_t>(first) << 32 | static_cast<uint64_t>(n);
  uint64_t mixed = (uid_ ^ cut * 0x9E3779B97F4A7C15) * 0xD6E8FEB86659FD93;
  mixed ^= mixed >> 32;
  at<uint64_t>(layout.uid) = mixed | kOurs;
}

GraphPart::~GraphPart() {
  at<int>(layout_.n_nodes) = n_nodes_;
  at<ggml_tensor**>(layout_.nodes) = nodes_;
  at<uint64_t>(layout_.uid) = uid_;
}

}  // namespace hata::host
