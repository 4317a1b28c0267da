// Computing a part of a graph: a device runs the nodes up to an attention node, then we run that
// node, then the device goes on. ggml does the same for its evaluation callback, by a function that
// is not public (ggml_graph_view); here the graph itself says for a while that it is a part.
#pragma once

#include <array>
#include <cstdint>

#include "ggml/real.h"

namespace hata::host {

/// Where ggml_cgraph, which no public header defines, keeps what makes a part of it. Found by
/// looking at graphs whose content is known; bytes from its beginning, -1: not found.
struct GraphLayout {
  int n_nodes = -1;
  int nodes = -1;
  int uid = -1;

  bool known() const { return n_nodes >= 0 && nodes >= 0 && uid >= 0; }

  /// n_nodes and nodes.
  static GraphLayout learn(const Real& real);

  using Bytes = std::array<unsigned char, 128>;
  static Bytes bytes_of(const ggml_cgraph* graph);
  /// uid: the one number that a scheduler gives a graph that had none.
  void learn_uid(const Bytes& before, const ggml_cgraph* graph);
};

/// While it lives, the graph is its nodes [first, first + n). It has a number of its own then: by
/// the graph's, the CUDA backend would take the part for the whole, and one cut for another.
class GraphPart {
 public:
  GraphPart(const GraphLayout& layout, ggml_cgraph* graph, int first, int n);
  ~GraphPart();
  GraphPart(const GraphPart&) = delete;
  GraphPart& operator=(const GraphPart&) = delete;

 private:
  template <class T>
  T& at(int offset) const {
    return *reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(graph_) + offset);
  }

  GraphLayout layout_;
  ggml_cgraph* graph_;
  int n_nodes_;
  ggml_tensor** nodes_;
  uint64_t uid_;
};

}  // namespace hata::host
