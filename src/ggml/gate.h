// The gate: a self-test of the loaded ggml, run before the first graph is changed. It does not ask
// for a version; it does with a tiny graph what the host will do with a model's.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "ggml/graph_cut.h"
#include "ggml/node.h"
#include "ggml/real.h"

namespace hata::host {

enum class Hook : uint8_t {
#define HATA_HOOK(name) name,
  HATA_HOOKED_FUNCTIONS(HATA_HOOK)
#undef HATA_HOOK
      count
};

/// One run of the self-test. While it runs, the hooks of this thread report to it.
class SelfTest {
 public:
  SelfTest(const Real& real, ggml_backend_dev_t cpu);
  ~SelfTest();

  /// True where all passed; failure() says what did not.
  bool run();
  const std::string& failure() const { return failure_; }
  const Ops& ops() const { return ops_; }
  /// Known only where parts of graphs can be computed: a device needs it, the CPU does not.
  const GraphLayout& layout() const { return layout_; }

  /// The test that runs on this thread, or nullptr.
  static SelfTest* running();

  // --- from the hooks -------------------------------------------------------------------------
  /// `written`: the first byte that the call will write, where it writes.
  void fired(Hook hook, const void* written = nullptr);
  /// In the place of the real function, for a graph that ggml hands to a backend.
  ggml_status compute(ggml_backend_t backend, ggml_cgraph* graph);

 private:
  struct Graph;
  bool fail(std::string what);
  bool check_functions();
  bool check_reach_of_programs();
  bool check_tensors(Graph& g);
  bool check_operations(Graph& g);
  bool check_attention(Graph& g);
  bool check_custom_node(Graph& g);
  bool check_writes(Graph& g);
  void check_parts(Graph& g);
  bool learn(ggml_op& op, const ggml_tensor* node, const char* name);
  bool wrote(Hook hook, const void* address);

  const Real& real_;
  ggml_backend_dev_t device_;
  std::string failure_;
  Ops ops_{};
  GraphLayout layout_;
  std::array<int, static_cast<size_t>(Hook::count)> fired_{};
  const void* written_ = nullptr;
  Graph* graph_ = nullptr;
};

/// Overwrites a node's operation by a call of `run(node, ith, nth, user)` on all of ggml's threads.
/// The parameters' bytes come from ggml's public constructor.
class CustomCall {
 public:
  CustomCall(const Real& real, const Ops& ops, ggml_custom_op_t run, void* user);

  void put_into(ggml_tensor* node);
  void take_out();

 private:
  ggml_op custom_;
  std::array<int32_t, GGML_MAX_OP_PARAMS / sizeof(int32_t)> params_;
  ggml_tensor* node_ = nullptr;
  ggml_op op_{};
  std::array<int32_t, GGML_MAX_OP_PARAMS / sizeof(int32_t)> kept_{};
};

}  // namespace hata::host
