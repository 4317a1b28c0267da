// A model and contexts of it, for tests that decode.
#pragma once

#include <llama.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

/// The bundled model, loaded once.
llama_model* test_model();

/// Tokens of a text about many things, `n` of them.
std::vector<llama_token> test_prompt(int n);

struct SessionOptions {
  uint32_t n_ctx = 1024;
  uint32_t n_seq_max = 1;
  bool unified = true;
  int n_threads = 2;
  ggml_type cache_type = GGML_TYPE_F16;
  ggml_backend_sched_eval_callback eval = nullptr;
  void* eval_data = nullptr;
};

/// One token of one sequence.
struct Token {
  llama_token id;
  llama_pos pos;
  llama_seq_id seq = 0;
};

class Session {
 public:
  explicit Session(const SessionOptions& options = {});

  llama_context* context() const { return context_.get(); }
  llama_memory_t memory() const { return llama_get_memory(context_.get()); }

  /// llama_decode of these tokens; logits for all of them. Returns its result.
  int decode(const std::vector<Token>& tokens);
  /// Decodes the tokens as sequence `seq` from position `pos` on.
  void prefill(const std::vector<llama_token>& tokens, llama_seq_id seq = 0, llama_pos pos = 0);
  /// The likeliest token after token i of the last decode (-1: the last one).
  llama_token best(int i = -1) const;
  /// Goes on with the likeliest tokens, n times, from where the sequence ends.
  std::vector<llama_token> generate(int n, llama_seq_id seq = 0);
  /// The same for several sequences in one batch a step, each from its own token.
  void generate_together(int n, const std::vector<llama_seq_id>& sequences);

 private:
  struct Free {
    void operator()(llama_context* context) const { llama_free(context); }
  };
  std::unique_ptr<llama_context, Free> context_;
};
