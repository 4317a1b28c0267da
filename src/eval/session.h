// A llama.cpp model and one sequence in a context of it: load, prefill, decode token by token, go
// back. Errors are exceptions; llama.cpp's own messages are kept for them.
#pragma once

#include <llama.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/tokenizer.h"

namespace hata::eval {

/// What computes a model's graphs.
enum class Device {
  any,  ///< llama.cpp's choice: all layers on a GPU, where it knows one
  cpu,
  cuda,  ///< all layers on CUDA devices
};

class Model {
 public:
  /// Throws Error with llama.cpp's last message, and where there is no such device.
  explicit Model(const std::string& path, Device device = Device::any);

  llama_model* get() const { return model_.get(); }
  const llama_vocab* vocab() const { return llama_model_get_vocab(model_.get()); }
  int n_layers() const { return llama_model_n_layer(model_.get()); }
  std::string description() const;  ///< "llama 1B Q4_0", as llama-bench has it
  std::string name() const;         ///< what the file says, or the description
  const std::string& path() const { return path_; }

 private:
  struct Free {
    void operator()(llama_model* model) const { llama_model_free(model); }
  };
  std::string path_;
  std::unique_ptr<llama_model, Free> model_;
};

struct SessionOptions {
  int64_t n_ctx = 8192;
  int threads = 1;
  int n_batch = 512;
};

/// Called while a prefill goes on, with the tokens done.
using PrefillProgress = std::function<void(int64_t done)>;

class Session {
 public:
  Session(const Model& model, const SessionOptions& options);

  /// Tokens in the sequence so far.
  int64_t size() const { return n_past_; }
  int64_t capacity() const;

  /// Appends tokens in batches (attention over them is ggml's own).
  void prefill(std::span<const Token> tokens, const PrefillProgress& progress = {});
  /// Appends one token, which attends to those before it. Returns the likeliest next one.
  Token decode(Token token);
  /// The likeliest token after the last one appended.
  Token next() const { return next_; }
  /// Whether the model ends its text with this token.
  bool ends(Token token) const { return llama_vocab_is_eog(model_.vocab(), token); }
  /// Of the next token, after the last one appended; [vocabulary].
  std::span<const float> logits() const;
  /// Forgets all but the first n tokens.
  void truncate(int64_t n);

  /// The whole sequence as llama.cpp saves it, and its reverse (of a sequence of n tokens).
  std::vector<uint8_t> save() const;
  void restore(std::span<const uint8_t> state, int64_t n);

 private:
  struct Free {
    void operator()(llama_context* context) const { llama_free(context); }
  };
  void append(const Token* tokens, int n);

  const Model& model_;
  std::unique_ptr<llama_context, Free> context_;
  int64_t n_past_ = 0;
  Token next_ = 0;
};

/// Reads documents for sessions on the CPU: there, or faster on a CUDA device, from which the
/// sequence comes over as llama.cpp saves it.
class Reader {
 public:
  /// `model` is on the CPU and must outlive the reader. Device::cuda: it is loaded there, too.
  /// Throws Error as Model does.
  explicit Reader(const Model& model, Device device = Device::cpu);

  const Model& model() const { return model_; }
  /// The one that reads.
  const Model& reading() const { return on_device_ ? *on_device_ : model_; }

  /// Puts the tokens into an empty session of model().
  void read(Session& session, std::span<const Token> tokens,
            const PrefillProgress& progress = {}) const;

 private:
  const Model& model_;
  std::optional<Model> on_device_;
};

/// The tokens of a prompt, with what the model wants at its start; special tokens are recognised.
std::vector<Token> prompt_tokens(const llama_vocab* vocab, const std::string& text);
/// The text of one token (may be a part of a character).
std::string piece(const llama_vocab* vocab, Token token);

class LlamaTokenizer final : public Tokenizer {
 public:
  explicit LlamaTokenizer(const llama_vocab* vocab);
  std::vector<Token> encode(std::string_view text) const override;
  std::string decode(std::span<const Token> tokens) const override;
  std::vector<Token> start() const override;
  const std::vector<std::string>& words() const override { return words_; }

 private:
  const llama_vocab* vocab_;
  std::vector<std::string> words_;
};

}  // namespace hata::eval
