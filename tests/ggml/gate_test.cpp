#include "ggml/gate.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "fixture.h"
#include "ggml/host.h"
#include "hata/ggml.h"

namespace hata::host {
namespace {

ggml_backend_dev_t cpu() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

/// The self-test of a ggml whose functions are changed in one place.
template <class Change>
std::string failure_with(Change&& change) {
  Real real = *first_real();
  change(real);
  SelfTest test(real, cpu());
  return test.run() ? "passed" : test.failure();
}

TEST(Gate, PassesOnTheLoadedGgml) {
  EXPECT_EQ(failure_with([](Real&) {}), "passed");
  char reason[256] = "";
  EXPECT_EQ(hata_ggml_self_test(reason, sizeof(reason)), 1) << reason;
}

TEST(Gate, NamesAMissingFunction) {
  EXPECT_EQ(failure_with([](Real& real) {
              real.path = "libggml-base.so";
              real.missing = "ggml_backend_tensor_set_2d";
            }),
            "libggml-base.so has no function ggml_backend_tensor_set_2d");
}

TEST(Gate, RefusesOtherOperationNumbers) {
  EXPECT_EQ(failure_with([](Real& real) {
              real.ggml_op_name = [](ggml_op op) {
                return ggml_op_name(op == GGML_OP_SET_ROWS ? GGML_OP_GET_ROWS : op);
              };
            }),
            "the operation SET_ROWS is called GET_ROWS");
}

TEST(Gate, RefusesAnotherTensorLayout) {
  EXPECT_EQ(failure_with([](Real& real) {
              real.ggml_set_name = [](ggml_tensor* tensor, const char* name) {
                return ggml_set_name(tensor, name + 1);
              };
            }),
            "struct ggml_tensor is laid out differently");
}

TEST(Gate, RefusesOtherAttentionParameters) {
  EXPECT_EQ(failure_with([](Real& real) {
              real.ggml_flash_attn_ext = [](ggml_context* c, ggml_tensor* q, ggml_tensor* k,
                                            ggml_tensor* v, ggml_tensor* m, float scale, float bias,
                                            float cap) {
                return ggml_flash_attn_ext(c, q, k, v, m, bias, scale, cap);
              };
            }),
            "attention or cache-write nodes are built differently");
}

// A ggml that binds its own calls at link time never comes to the hooks. Its graphs:
TEST(Gate, RefusesASchedulerThatIsNotSeen) {
  const std::string failure = failure_with([](Real& real) {
    real.ggml_backend_sched_graph_compute = [](ggml_backend_sched_t, ggml_cgraph*) {
      return GGML_STATUS_SUCCESS;
    };
  });
  EXPECT_NE(failure.find("past ggml_backend_graph_compute_async"), std::string::npos) << failure;
}

// ... its writes:
TEST(Gate, RefusesACopyThatIsNotSeen) {
  const std::string failure = failure_with([](Real& real) {
    real.ggml_backend_tensor_copy = [](const ggml_tensor* src, ggml_tensor* dst) {
      std::memcpy(dst->data, src->data, ggml_nbytes(dst));
    };
  });
  EXPECT_NE(failure.find("calls of ggml_backend_tensor_set do not come here"), std::string::npos)
      << failure;
}

// ... and what it gives back:
TEST(Gate, RefusesAFreeThatIsNotSeen) {
  static ggml_backend_sched_t kept = nullptr;
  const std::string failure = failure_with([](Real& real) {
    real.ggml_backend_sched_free = [](ggml_backend_sched_t scheduler) {
      if (scheduler != nullptr) kept = scheduler;
    };
  });
  ggml_backend_sched_free(kept);
  EXPECT_NE(failure.find("calls of ggml_backend_buffer_free do not come here"), std::string::npos)
      << failure;
}

TEST(Gate, RefusesACustomNodeThatDoesNotRun) {
  EXPECT_EQ(failure_with([](Real& real) {
              real.ggml_backend_graph_compute_async = [](ggml_backend_t, ggml_cgraph*) {
                return GGML_STATUS_SUCCESS;
              };
            }),
            "a custom node does not run as expected");
}

// A second copy of ggml in the process: calls go to the copy of their caller, and all stays dense.
TEST(Real, SeveralCopiesAreToldApart) {
  const Real* first = first_real();
  ASSERT_FALSE(several_copies());
  const std::string copy = testing::TempDir() + "hata-second-ggml-base.so";
  ASSERT_EQ(std::system(("cp '" + first->path + "' '" + copy + "'").c_str()), 0);
  void* handle = dlopen(copy.c_str(), RTLD_NOW | RTLD_LOCAL);
  std::remove(copy.c_str());
  ASSERT_NE(handle, nullptr) << dlerror();
  void* inside = dlsym(handle, "ggml_backend_tensor_set");
  const Real& second = real_for(inside);
  EXPECT_NE(&second, first);
  EXPECT_EQ(reinterpret_cast<void*>(second.ggml_backend_tensor_set), inside);
  EXPECT_EQ(&real_for(reinterpret_cast<void*>(first->ggml_backend_tensor_set)), first);
  EXPECT_TRUE(several_copies());

  AttentionGraph g({});
  ggml_cgraph* graph = g.graph({g.write, g.attention});
  EXPECT_EQ(ggml_backend_graph_compute(g.backend, graph), GGML_STATUS_SUCCESS);
  char reason[256] = "";
  EXPECT_EQ(hata_ggml_status(reason, sizeof(reason)), 0);
  EXPECT_STREQ(reason, "this process has loaded several copies of ggml");
}

}  // namespace
}  // namespace hata::host
