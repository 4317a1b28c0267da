#include "eval/session.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "eval/words.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

// llama.cpp says on its log why something failed; the last complaint goes into our error.
class LlamaLog {
 public:
  static LlamaLog& instance() {
    static LlamaLog log;
    return log;
  }

  void clear() {
    std::lock_guard lock(mutex_);
    last_error_.clear();
  }

  // Ready to be put behind a message of ours.
  std::string last_error() {
    std::lock_guard lock(mutex_);
    return last_error_.empty() ? "" : " (" + last_error_ + ")";
  }

 private:
  LlamaLog() {
    llama_backend_init();
    llama_log_set(
        [](ggml_log_level level, const char* text, void* self) {
          if (level == GGML_LOG_LEVEL_ERROR) static_cast<LlamaLog*>(self)->keep(text);
        },
        this);
  }

  void keep(std::string text) {
    while (!text.empty() && text.back() == '\n') text.pop_back();
    std::lock_guard lock(mutex_);
    if (last_error_.empty()) last_error_ = text;  // the first one names the cause
  }

  std::mutex mutex_;
  std::string last_error_;
};

// `prompt`: with what the model wants at the start, and special tokens read as such.
std::vector<Token> tokenize(const llama_vocab* vocab, std::string_view text, bool prompt) {
  std::vector<Token> tokens(text.size() + 8);
  const int n = llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                               static_cast<int32_t>(tokens.size()), prompt, prompt);
  if (n < 0) {
    throw Error("llama.cpp cannot tokenize a text of " + std::to_string(text.size()) + " bytes");
  }
  tokens.resize(static_cast<size_t>(n));
  return tokens;
}

std::vector<ggml_backend_dev_t> cuda_devices() {
  std::vector<ggml_backend_dev_t> found;
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t device = ggml_backend_dev_get(i);
    const std::string_view library = ggml_backend_reg_name(ggml_backend_dev_backend_reg(device));
    if (library == "CUDA") found.push_back(device);
  }
  if (found.empty()) {
    throw Error(
        "--device cuda: this llama.cpp has no CUDA device (none is there, or it was built without "
        "CUDA: docs/cuda-llama.md); --device cpu does without");
  }
  return found;
}

}  // namespace

Model::Model(const std::string& path, Device device) : path_(path) {
  LlamaLog& log = LlamaLog::instance();
  log.clear();
  llama_model_params params = llama_model_default_params();
  std::vector<ggml_backend_dev_t> devices;  // up to a nullptr; none: the CPU
  if (device == Device::cuda) devices = cuda_devices();
  devices.push_back(nullptr);
  if (device != Device::any) params.devices = devices.data();
  model_.reset(llama_model_load_from_file(path.c_str(), params));
  if (model_ == nullptr) throw Error(path + ": llama.cpp cannot load it" + log.last_error());
}

std::string Model::description() const {
  char text[128] = "";
  llama_model_desc(model_.get(), text, sizeof(text));
  return text;
}

std::string Model::name() const {
  char text[128] = "";
  llama_model_meta_val_str(model_.get(), "general.name", text, sizeof(text));
  return *text != '\0' ? text : description();
}

Session::Session(const Model& model, const SessionOptions& options) : model_(model) {
  LlamaLog& log = LlamaLog::instance();
  log.clear();
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(options.n_ctx);
  params.n_batch = params.n_ubatch = static_cast<uint32_t>(options.n_batch);
  params.n_threads = params.n_threads_batch = options.threads;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  context_.reset(llama_init_from_model(model.get(), params));
  if (context_ == nullptr) {
    throw Error(model.path() + ": no context of " + std::to_string(options.n_ctx) + " tokens" +
                log.last_error() + "; a smaller -c needs less memory");
  }
}

int64_t Session::capacity() const { return llama_n_ctx(context_.get()); }

void Session::append(const Token* tokens, int n) {
  if (n_past_ + n > capacity()) {
    throw Error("the context of " + std::to_string(capacity()) +
                " tokens is full; -c makes it larger");
  }
  LlamaLog::instance().clear();
  // llama_batch_get_one only reads the tokens.
  const int status =
      llama_decode(context_.get(), llama_batch_get_one(const_cast<Token*>(tokens), n));
  if (status != 0) {
    throw Error(model_.path() + ": llama.cpp cannot decode: status " + std::to_string(status) +
                LlamaLog::instance().last_error());
  }
  n_past_ += n;
  const float* logits = llama_get_logits_ith(context_.get(), -1);
  next_ = static_cast<Token>(
      std::max_element(logits, logits + llama_vocab_n_tokens(model_.vocab())) - logits);
}

void Session::prefill(std::span<const Token> tokens, const PrefillProgress& progress) {
  const size_t batch = llama_n_batch(context_.get());
  for (size_t done = 0; done < tokens.size();) {
    const size_t n = std::min(batch, tokens.size() - done);
    append(tokens.data() + done, static_cast<int>(n));
    done += n;
    if (progress) progress(static_cast<int64_t>(done));
  }
}

Token Session::decode(Token token) {
  append(&token, 1);
  return next_;
}

std::span<const float> Session::logits() const {
  return {llama_get_logits_ith(context_.get(), -1),
          static_cast<size_t>(llama_vocab_n_tokens(model_.vocab()))};
}

void Session::truncate(int64_t n) {
  if (!llama_memory_seq_rm(llama_get_memory(context_.get()), 0, static_cast<llama_pos>(n), -1)) {
    throw Error(model_.path() + ": this model's memory cannot go back to an earlier token");
  }
  n_past_ = std::min(n_past_, n);
}

std::vector<uint8_t> Session::save() const {
  std::vector<uint8_t> state(llama_state_seq_get_size(context_.get(), 0));
  state.resize(llama_state_seq_get_data(context_.get(), state.data(), state.size(), 0));
  return state;
}

void Session::restore(std::span<const uint8_t> state, int64_t n) {
  LlamaLog::instance().clear();
  if (llama_state_seq_set_data(context_.get(), state.data(), state.size(), 0) != state.size()) {
    throw Error(model_.path() + ": llama.cpp refuses a saved state of " + std::to_string(n) +
                " tokens" + LlamaLog::instance().last_error());
  }
  n_past_ = n;
}

Reader::Reader(const Model& model, Device device) : model_(model) {
  if (device == Device::cuda) on_device_.emplace(model.path(), device);
}

void Reader::read(Session& session, std::span<const Token> tokens,
                  const PrefillProgress& progress) const {
  if (!on_device_) return session.prefill(tokens, progress);
  Session there(*on_device_, {.n_ctx = std::ssize(tokens)});
  there.prefill(tokens, progress);
  session.restore(there.save(), std::ssize(tokens));
}

std::vector<Token> prompt_tokens(const llama_vocab* vocab, const std::string& text) {
  return tokenize(vocab, text, true);
}

std::string piece(const llama_vocab* vocab, Token token) {
  char text[256];
  const int n = llama_token_to_piece(vocab, token, text, sizeof(text), 0, false);
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : "";
}

LlamaTokenizer::LlamaTokenizer(const llama_vocab* vocab) : vocab_(vocab) {
  for (const std::string_view word : word_list()) {
    if (encode(" " + std::string(word)).size() == 1) words_.emplace_back(word);
  }
}

std::vector<Token> LlamaTokenizer::encode(std::string_view text) const {
  return tokenize(vocab_, text, false);
}

std::string LlamaTokenizer::decode(std::span<const Token> tokens) const {
  std::string text;
  for (const Token token : tokens) text += piece(vocab_, token);
  return text;
}

std::vector<Token> LlamaTokenizer::start() const {
  const Token bos = llama_vocab_bos(vocab_);
  if (!llama_vocab_get_add_bos(vocab_) || bos == LLAMA_TOKEN_NULL) return {};
  return {bos};
}

}  // namespace hata::eval
