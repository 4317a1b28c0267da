#include "session.h"

#include <gtest/gtest.h>

#include <algorithm>

llama_model* test_model() {
  static llama_model* model = [] {
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_backend_init();
    return llama_model_load_from_file(HATA_MODEL, llama_model_default_params());
  }();
  EXPECT_NE(model, nullptr) << HATA_MODEL;
  return model;
}

std::vector<llama_token> test_prompt(int n) {
  std::string text;
  for (int i = 0; i < n / 8 + 8; ++i) {
    text += "The river of stone number " + std::to_string(i) + " was under a hill where " +
            std::to_string(i * 7 % 100) + " birds sing.\n";
  }
  std::vector<llama_token> tokens(text.size());
  const int count = llama_tokenize(llama_model_get_vocab(test_model()), text.c_str(),
                                   static_cast<int32_t>(text.size()), tokens.data(),
                                   static_cast<int32_t>(tokens.size()), true, false);
  EXPECT_GE(count, n);
  tokens.resize(static_cast<size_t>(n));
  return tokens;
}

Session::Session(const SessionOptions& options) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = options.n_ctx;
  params.n_batch = params.n_ubatch = 256;
  params.n_seq_max = options.n_seq_max;
  params.kv_unified = options.unified;
  params.n_threads = params.n_threads_batch = options.n_threads;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.type_k = params.type_v = options.cache_type;
  params.cb_eval = options.eval;
  params.cb_eval_user_data = options.eval_data;
  context_.reset(llama_init_from_model(test_model(), params));
  EXPECT_NE(context_, nullptr);
}

int Session::decode(const std::vector<Token>& tokens) {
  llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
  for (const Token& token : tokens) {
    const int i = batch.n_tokens++;
    batch.token[i] = token.id;
    batch.pos[i] = token.pos;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = token.seq;
    batch.logits[i] = 1;
  }
  const int result = llama_decode(context(), batch);
  llama_batch_free(batch);
  return result;
}

void Session::prefill(const std::vector<llama_token>& tokens, llama_seq_id seq, llama_pos pos) {
  constexpr size_t kBatch = 256;
  for (size_t at = 0; at < tokens.size(); at += kBatch) {
    std::vector<Token> batch;
    for (size_t i = at; i < std::min(tokens.size(), at + kBatch); ++i) {
      batch.push_back({tokens[i], pos + static_cast<llama_pos>(i), seq});
    }
    ASSERT_EQ(decode(batch), 0);
  }
}

llama_token Session::best(int i) const {
  const float* logits = llama_get_logits_ith(context(), i);
  const int n = llama_vocab_n_tokens(llama_model_get_vocab(test_model()));
  return static_cast<llama_token>(std::max_element(logits, logits + n) - logits);
}

std::vector<llama_token> Session::generate(int n, llama_seq_id seq) {
  std::vector<llama_token> out;
  llama_pos pos = llama_memory_seq_pos_max(memory(), seq) + 1;
  llama_token token = best();
  for (int i = 0; i < n; ++i) {
    out.push_back(token);
    if (decode({{token, pos++, seq}}) != 0) {
      ADD_FAILURE() << "llama_decode failed";
      return out;
    }
    token = best();
  }
  return out;
}

void Session::generate_together(int n, const std::vector<llama_seq_id>& sequences) {
  std::vector<Token> tokens;
  for (const llama_seq_id seq : sequences) {
    tokens.push_back({100 + 7 * seq, llama_memory_seq_pos_max(memory(), seq) + 1, seq});
  }
  for (int i = 0; i < n; ++i) {
    ASSERT_EQ(decode(tokens), 0);
    for (size_t s = 0; s < tokens.size(); ++s) {
      tokens[s].id = best(static_cast<int>(s));
      ++tokens[s].pos;
    }
  }
}
