// The host linked into a program that decodes the bundled model: whatever llama.cpp does to its
// cache, at every sparse step each code is that of the key in its cell.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "hata/ggml.h"
#include "session.h"
#include "stats_of.h"

namespace {

constexpr const char* kSparse = "budget=32 min-ctx=64 dense-layers=0 verify=1";
constexpr int kLayers = 8;

void configure(const std::string& options) {
  const char* error = hata_ggml_configure(options.c_str());
  ASSERT_EQ(error, nullptr) << error;
  hata_ggml_reset_stats();
}

/// All codes were fresh, and enough of them were looked at.
void expect_fresh(int64_t min_steps, int64_t min_cells) {
  const auto stats = host_stats();
  const auto& verify = stats["verify"];
  EXPECT_TRUE(stats["at_work"]) << stats;
  EXPECT_GE(stats["sparse_steps"], min_steps);
  EXPECT_GE(verify["steps"], min_steps);
  EXPECT_GE(verify["cells"], min_cells);
  EXPECT_EQ(verify["unseen_changes"], 0);
  EXPECT_EQ(verify["stale"], 0);
}

class Model : public testing::Test {
 protected:
  void SetUp() override { configure(kSparse); }
};

TEST_F(Model, FullBudgetGivesDenseAttentionsTokens) {
  const auto prompt = test_prompt(700);
  const auto tokens_with = [&](const char* options) {
    configure(options);
    Session session;
    session.prefill(prompt);
    return session.generate(200);
  };
  const auto dense = tokens_with("method=ggml");
  EXPECT_EQ(host_stats()["dense_steps"], 0);
  EXPECT_EQ(tokens_with("budget=100% min-ctx=0 dense-layers=0"), dense);
  EXPECT_EQ(host_stats()["dense_steps"], 200 * kLayers);
  EXPECT_EQ(tokens_with("method=dense"), dense);
}

// Both attentions round differently. Random codes: with trained ones, when they are made again, the
// next token may be nearly a tie.
TEST_F(Model, PrefillOnAndOffGiveTheSameTokens) {
  const auto prompt = test_prompt(700);
  const auto tokens_with = [&](const std::string& options) {
    configure(options);
    Session session;
    session.prefill(prompt);
    return session.generate(50);
  };
  for (const char* method : {"method=dense ", "budget=256 min-ctx=64 weights=off "}) {
    const auto theirs = tokens_with(std::string(method) + "prefill=off");
    EXPECT_EQ(host_stats()["prefill"]["rows"], 0);
    EXPECT_EQ(host_stats()["left_to_ggml"]["prefill"], 3 * kLayers);
    EXPECT_EQ(tokens_with(method), theirs) << method;
    if (host_stats()["left_to_ggml"].empty()) {  // not on scalar kernels
      EXPECT_EQ(host_stats()["prefill"]["rows"], 700 * kLayers);
    }
  }
}

TEST_F(Model, PromptAndAnswer) {
  Session session;
  session.prefill(test_prompt(300));
  session.generate(30);
  expect_fresh(30 * kLayers, 30 * kLayers * 300);
  EXPECT_LT(host_stats()["keys_attended"], host_stats()["keys_valid"]);
}

TEST_F(Model, CellsUsedAgain) {
  Session session;
  session.prefill(test_prompt(300));
  session.generate(5);
  ASSERT_TRUE(llama_memory_seq_rm(session.memory(), 0, 150, -1));
  session.decode({{50, 150}});
  session.generate(20);
  ASSERT_TRUE(llama_memory_seq_rm(session.memory(), 0, 20, 60));
  session.prefill(test_prompt(100), 0, 171);
  session.generate(10);
  expect_fresh(35 * kLayers, 35 * kLayers * 120);
}

TEST_F(Model, ContextShift) {
  Session session;
  session.prefill(test_prompt(300));
  session.generate(5);
  for (int shift = 0; shift < 2; ++shift) {
    const llama_pos end = llama_memory_seq_pos_max(session.memory(), 0) + 1;
    ASSERT_TRUE(llama_memory_seq_rm(session.memory(), 0, 10, 60));
    llama_memory_seq_add(session.memory(), 0, 60, end, -50);
    session.decode({{77, end - 50}});
    session.generate(10);
  }
  expect_fresh(27 * kLayers, 27 * kLayers * 200);
}

// The CPU leaves it to ggml, a CUDA device does not.
TEST_F(Model, QuantisedCache) {
  Session session({.cache_type = GGML_TYPE_Q8_0});
  session.prefill(test_prompt(300));
  session.generate(10);
  ASSERT_TRUE(llama_memory_seq_rm(session.memory(), 0, 150, -1));
  session.decode({{50, 150}});
  session.generate(10);
  const llama_pos end = llama_memory_seq_pos_max(session.memory(), 0) + 1;
  ASSERT_TRUE(llama_memory_seq_rm(session.memory(), 0, 10, 60));
  llama_memory_seq_add(session.memory(), 0, 60, end, -50);
  session.generate(10);
  std::vector<uint8_t> state(llama_state_seq_get_size(session.context(), 0));
  ASSERT_EQ(llama_state_seq_get_data(session.context(), state.data(), state.size(), 0),
            state.size());
  Session other({.cache_type = GGML_TYPE_Q8_0});
  ASSERT_GT(llama_state_seq_set_data(other.context(), state.data(), state.size(), 0), 0u);
  other.decode({{60, llama_memory_seq_pos_max(other.memory(), 0) + 1}});
  other.generate(5);
  if (std::getenv("HATA_CUDA_LIB") == nullptr) {
    EXPECT_EQ(host_stats()["sparse_steps"], 0);
    EXPECT_GT(host_stats()["left_to_ggml"]["cache_type"], 0);
  } else {
    expect_fresh(37 * kLayers, 30 * kLayers * 120);
    EXPECT_EQ(host_stats()["device_steps"], host_stats()["sparse_steps"]);
  }
}

TEST_F(Model, CopiesInOneUnifiedCache) {
  Session session({.n_seq_max = 4});
  session.prefill(test_prompt(300));
  for (llama_seq_id seq = 1; seq < 4; ++seq) {
    llama_memory_seq_cp(session.memory(), 0, seq, -1, -1);
  }
  session.generate_together(15, {0, 1, 2, 3});
  llama_memory_seq_rm(session.memory(), 2, -1, -1);
  llama_memory_seq_cp(session.memory(), 3, 2, -1, -1);
  session.generate_together(10, {2, 0});
  expect_fresh(25 * kLayers, 25 * kLayers * 300);
  EXPECT_EQ(host_stats()["sparse_rows"], (15 * 4 + 10 * 2) * kLayers);
}

TEST_F(Model, SequencesInStreamsOfTheirOwn) {
  Session session({.n_ctx = 3072, .n_seq_max = 3, .unified = false});
  session.prefill(test_prompt(300), 0);
  session.prefill(test_prompt(200), 1);
  session.generate_together(10, {0, 1});
  llama_memory_seq_rm(session.memory(), 1, -1, -1);
  llama_memory_seq_cp(session.memory(), 0, 1, -1, -1);  // copies the cells
  llama_memory_seq_cp(session.memory(), 0, 2, -1, -1);
  session.generate_together(10, {0, 1, 2});
  session.generate_together(10, {2});
  expect_fresh((20 + 30 + 10) * kLayers, 60 * kLayers * 200);
}

TEST_F(Model, WholeStateSavedAndLoaded) {
  Session session;
  session.prefill(test_prompt(300));
  session.generate(5);
  std::vector<uint8_t> state(llama_state_get_size(session.context()));
  ASSERT_GT(llama_state_get_data(session.context(), state.data(), state.size()), 0u);
  const auto expected = session.generate(10);
  llama_memory_seq_rm(session.memory(), 0, 50, -1);
  session.prefill(test_prompt(200), 0, 50);
  session.generate(5);

  Session other;  // untouched so far, and the one whose keys are overwritten
  for (Session* s : {&other, &session}) {
    ASSERT_GT(llama_state_set_data(s->context(), state.data(), state.size()), 0u);
    s->decode({{expected[0], llama_memory_seq_pos_max(s->memory(), 0) + 1}});
    s->generate(9);
  }
  expect_fresh(40 * kLayers, 40 * kLayers * 200);
}

TEST_F(Model, OneSequenceSavedAndLoaded) {
  const llama_state_seq_flags on_device = LLAMA_STATE_SEQ_FLAGS_ON_DEVICE;
  for (const llama_state_seq_flags flags : {0u, on_device}) {
    for (const bool unified : {true, false}) {
      Session session({.n_ctx = 2048, .n_seq_max = 2, .unified = unified});
      llama_context* context = session.context();
      session.prefill(test_prompt(300));
      session.generate(5);
      std::vector<uint8_t> state(llama_state_seq_get_size_ext(context, 0, flags));
      llama_state_seq_get_data_ext(context, state.data(), state.size(), 0, flags);
      session.prefill(test_prompt(100), 1);
      session.generate_together(5, {0, 1});
      const llama_seq_id to = flags == 0 ? 1 : 0;  // on the device: only where it came from
      ASSERT_GT(llama_state_seq_set_data_ext(context, state.data(), state.size(), to, flags), 0u);
      session.generate_together(10, {0, 1});
    }
  }
  expect_fresh(80 * kLayers, 80 * kLayers * 100);
}

TEST_F(Model, ClearedMemory) {
  Session session;
  for (const bool data : {true, false, true}) {
    session.prefill(test_prompt(200));
    session.generate(8);
    llama_memory_clear(session.memory(), data);
  }
  expect_fresh(24 * kLayers, 24 * kLayers * 200);
}

TEST_F(Model, AbortedGraphs) {
  struct Abort {
    int calls = 0;
    int at = 0;
  } abort;
  Session session;
  session.prefill(test_prompt(300));
  session.generate(3);
  llama_set_abort_callback(
      session.context(),
      [](void* data) {
        auto& a = *static_cast<Abort*>(data);
        return a.at > 0 && ++a.calls >= a.at;
      },
      &abort);
  int aborted = 0;
  for (int at = 20; at < 200; at += 30) {
    abort = {.calls = 0, .at = at};
    const llama_pos end = llama_memory_seq_pos_max(session.memory(), 0) + 1;
    aborted += session.decode({{60 + at, end}, {61, end + 1}}) == 2;
    abort = {};
    llama_memory_seq_rm(session.memory(), 0, end, -1);
    session.decode({{30 + at, end}});
    session.generate(4);
  }
  EXPECT_GE(aborted, 4);
  expect_fresh(30 * kLayers, 30 * kLayers * 300);
}

TEST_F(Model, TwoContextsInTurnAndAtOnce) {
  Session a, b({.n_seq_max = 2});
  a.prefill(test_prompt(200));
  b.prefill(test_prompt(250), 1);
  for (int i = 0; i < 5; ++i) {
    a.generate_together(2, {0});
    b.generate_together(2, {1});
  }
  std::thread thread([&] { a.generate_together(15, {0}); });
  b.generate_together(15, {1});
  thread.join();
  expect_fresh(50 * kLayers, 50 * kLayers * 200);
}

TEST_F(Model, AContextAfterAnother) {
  for (int i = 0; i < 3; ++i) {
    Session session;
    session.prefill(test_prompt(150 + 50 * i));
    session.generate(8);
  }
  expect_fresh(24 * kLayers, 24 * kLayers * 150);
  EXPECT_EQ(host_stats()["caches"], 0);
}

// An evaluation callback cuts the graph into pieces: write and attention come in different ones.
TEST_F(Model, EvaluationCallback) {
  int seen = 0;
  Session session({.eval =
                       [](ggml_tensor*, bool ask, void* data) {
                         if (!ask) ++*static_cast<int*>(data);
                         return true;
                       },
                   .eval_data = &seen});
  session.prefill(test_prompt(150));
  session.generate(5);
  EXPECT_GT(seen, 100);
  expect_fresh(5 * kLayers, 5 * kLayers * 150);
}

// The proof that the check can fail: keys set by ggml's own function, past our hook.
TEST_F(Model, VerifyFindsWritesPastTheHooks) {
  const ggml_tensor* keys = nullptr;
  Session session({.eval =
                       [](ggml_tensor* t, bool, void* data) {
                         if (t->view_src != nullptr &&
                             std::strcmp(t->view_src->name, "cache_k_l2") == 0) {
                           *static_cast<const ggml_tensor**>(data) = t->view_src;
                         }
                         return true;
                       },
                   .eval_data = &keys});
  session.prefill(test_prompt(200));
  session.generate(2);
  expect_fresh(2 * kLayers, 2 * kLayers * 200);
  ASSERT_NE(keys, nullptr);

  void* ggml = dlopen("libggml-base.so.0", RTLD_LAZY | RTLD_NOLOAD);
  ASSERT_NE(ggml, nullptr) << dlerror();
  auto* set =
      reinterpret_cast<decltype(&ggml_backend_tensor_set)>(dlsym(ggml, "ggml_backend_tensor_set"));
  std::vector<uint16_t> data(10 * 256, 0x3555);
  set(const_cast<ggml_tensor*>(keys), data.data(), 40 * keys->nb[1], data.size() * 2);
  session.generate(1);
  EXPECT_EQ(host_stats()["verify"]["unseen_changes"], 10);
  EXPECT_GE(host_stats()["verify"]["stale"], 8);

  hata_ggml_invalidate(keys->data, ggml_nbytes(keys));
  hata_ggml_reset_stats();
  session.generate(2);
  expect_fresh(2 * kLayers, 2 * kLayers * 200);
}

TEST_F(Model, MethodsInTurnOnOneCache) {
  Session session;
  session.prefill(test_prompt(300));
  for (const char* method :
       {"hata", "ggml", "hata-paper", "exact-logit", "dense", "streaming", "hata"}) {
    ASSERT_EQ(hata_ggml_configure((std::string(kSparse) + " method=" + method).c_str()), nullptr);
    session.generate(4);
  }
  expect_fresh(12 * kLayers, 12 * kLayers * 300);
}

// --verify holds what each of them keeps against the keys, at every step.
TEST_F(Model, RivalsInTurnOnOneCache) {
  Session session;
  session.prefill(test_prompt(300));
  for (const char* method : {"quest", "loki", "sparq:channels=8", "magicpig:k=4:l=20", "random"}) {
    ASSERT_EQ(hata_ggml_configure((std::string(kSparse) + " method=" + method).c_str()), nullptr);
    session.generate(2);
    llama_memory_seq_rm(session.memory(), 0, 295, -1);
    session.generate(2);
  }
  expect_fresh(20 * kLayers, 20 * kLayers * 280);
}

TEST_F(Model, MethodsThatEvictNeedAnObservedPrompt) {
  const auto sparse_steps = [](Session& session, const std::string& options) {
    EXPECT_EQ(hata_ggml_configure((std::string(kSparse) + options).c_str()), nullptr);
    hata_ggml_reset_stats();
    session.generate(3);
    return host_stats()["sparse_steps"];
  };
  {
    Session session;
    configure((std::string(kSparse) + " method=h2o").c_str());
    session.prefill(test_prompt(300));
    EXPECT_EQ(sparse_steps(session, " method=h2o"), 0);
  }
  Session session;
  configure((std::string(kSparse) + " method=dense observe=on").c_str());
  session.prefill(test_prompt(300));
  for (const char* method : {"h2o", "snapkv", "h2o", "hata"}) {
    EXPECT_EQ(sparse_steps(session, std::string(" observe=on method=") + method), 3 * kLayers)
        << method;
    llama_memory_seq_rm(session.memory(), 0, 300, -1);
  }
  llama_memory_seq_rm(session.memory(), 0, 0, -1);
  session.prefill(test_prompt(200));  // other tokens in the same cells, observed as well
  EXPECT_EQ(sparse_steps(session, " observe=on method=snapkv"), 3 * kLayers);
}

TEST_F(Model, StatisticsAtASignal) {
  configure("stats=1");
  Session session;
  session.prefill(test_prompt(20));
  session.generate(1);
  testing::internal::CaptureStderr();
  raise(SIGUSR1);
  std::this_thread::sleep_for(std::chrono::seconds(1));  // a thread of the host's prints
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("hata: hata, budget 512: 0 sparse and 8 dense steps"), std::string::npos)
      << said;
}

TEST_F(Model, ASignalThatSomebodyHandlesIsLeftAlone) {
  static std::atomic<int> handled = 0;
  std::signal(SIGUSR1, [](int) { ++handled; });
  configure("stats=1");
  raise(SIGUSR1);
  EXPECT_EQ(handled, 1);
}

TEST_F(Model, StatusAndModelPath) {
  char reason[256] = "";
  Session session;
  session.prefill(test_prompt(100));
  session.generate(1);
  EXPECT_EQ(hata_ggml_status(reason, sizeof(reason)), 1) << reason;
  EXPECT_EQ(host_stats()["models"], nlohmann::json::array({HATA_MODEL}));
  ASSERT_EQ(hata_ggml_configure("method=ggml"), nullptr);
  EXPECT_EQ(hata_ggml_status(reason, sizeof(reason)), 0);
  EXPECT_STREQ(reason, "the method is ggml");
}

}  // namespace
