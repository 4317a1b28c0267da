// hata make-model: a model of a large one's shape with few layers, random weights and a small
// vocabulary, to measure speed with. It says nothing sensible.
#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "commands.h"
#include "core/random.h"
#include "hata/types.h"
#include "output.h"
#include "weights/gguf.h"

namespace hata::cli {
namespace {

struct Options {
  std::string out = "8b-shape-4l-q4_0.gguf";
  int layers = 4;
  uint64_t seed = 1;
};

// An 8B Llama (3.1).
constexpr int kEmbedding = 4096, kFeedForward = 14336, kHeads = 32, kKvHeads = 8, kHeadDim = 128;
constexpr int kContext = 131072;
constexpr int kVocabulary = 512;
constexpr int kSpecials = 3;

class ModelMaker {
 public:
  explicit ModelMaker(const Options& options)
      : options_(options), random_(options.seed), file_(gguf_init_empty(), gguf_free) {
    const auto layers = static_cast<size_t>(options.layers);
    const size_t per_layer = size_t{kEmbedding} * (2 * kEmbedding + 2 * kKvHeads * kHeadDim) +
                             size_t{kEmbedding} * 3 * kFeedForward;
    const size_t weights = layers * per_layer + 2 * size_t{kVocabulary} * kEmbedding;
    const size_t memory = weights / 32 * 18 + (layers + 1) * (size_t{1} << 20);
    context_.reset(ggml_init({.mem_size = memory, .mem_buffer = nullptr, .no_alloc = false}));
    if (context_ == nullptr) throw Error(fmt::format("out of memory: {} bytes", memory));
  }

  void make() {
    write_metadata();
    write_vocabulary();
    matrix("token_embd.weight", kEmbedding, kVocabulary);
    matrix("output.weight", kEmbedding, kVocabulary);
    norm("output_norm.weight");
    Progress progress;
    for (int i = 0; i < options_.layers; ++i) {
      progress.show("layer {}/{}", i + 1, options_.layers);
      write_layer(fmt::format("blk.{}.", i));
    }
    progress.show("writing {}", options_.out);
    write_file();
  }

 private:
  // Under another name first: a half-written model is never found.
  void write_file() {
    const std::string part = options_.out + ".part";
    if (!std::ofstream(part)) {
      throw Error(fmt::format("{}: cannot be written: {}", part, std::strerror(errno)));
    }
    gguf_write_to_file(file_.get(), part.c_str(), false);
    (void)weights::read_gguf(part);  // is all of it there?
    std::filesystem::rename(part, options_.out);
  }

  void number(const char* key, uint32_t value) { gguf_set_val_u32(file_.get(), key, value); }

  void write_metadata() {
    gguf_set_val_str(file_.get(), "general.architecture", "llama");
    gguf_set_val_str(file_.get(), "general.name",
                     fmt::format("8B shape, {} layers, random", options_.layers).c_str());
    number("general.file_type", 2);  // mostly q4_0
    number("llama.block_count", static_cast<uint32_t>(options_.layers));
    number("llama.context_length", kContext);
    number("llama.embedding_length", kEmbedding);
    number("llama.feed_forward_length", kFeedForward);
    number("llama.attention.head_count", kHeads);
    number("llama.attention.head_count_kv", kKvHeads);
    number("llama.rope.dimension_count", kHeadDim);
    number("llama.vocab_size", kVocabulary);
    gguf_set_val_f32(file_.get(), "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_set_val_f32(file_.get(), "llama.rope.freq_base", 500000.0f);
  }

  // Specials, every byte, and some words: text of any kind can be tokenized.
  void write_vocabulary() {
    enum Type : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };
    std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
    std::vector<int32_t> types = {kUnknown, kControl, kControl};
    for (int byte = 0; byte < 256; ++byte) {
      tokens.push_back(fmt::format("<0x{:02X}>", byte));
      types.push_back(kByte);
    }
    while (tokens.size() < kVocabulary) {
      tokens.push_back(fmt::format("\u2581word{}", tokens.size()));
      types.push_back(kNormal);
    }
    std::vector<const char*> texts;
    for (const auto& token : tokens) texts.push_back(token.c_str());
    const std::vector<float> scores(kVocabulary, 0.0f);
    gguf_set_val_str(file_.get(), "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(file_.get(), "tokenizer.ggml.tokens", texts.data(), texts.size());
    gguf_set_arr_data(file_.get(), "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(),
                      scores.size());
    gguf_set_arr_data(file_.get(), "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(),
                      types.size());
    number("tokenizer.ggml.unknown_token_id", 0);
    number("tokenizer.ggml.bos_token_id", 1);
    number("tokenizer.ggml.eos_token_id", 2);
  }

  void write_layer(const std::string& prefix) {
    norm(prefix + "attn_norm.weight");
    matrix(prefix + "attn_q.weight", kEmbedding, kHeads * kHeadDim);
    matrix(prefix + "attn_k.weight", kEmbedding, kKvHeads * kHeadDim);
    matrix(prefix + "attn_v.weight", kEmbedding, kKvHeads * kHeadDim);
    matrix(prefix + "attn_output.weight", kHeads * kHeadDim, kEmbedding);
    norm(prefix + "ffn_norm.weight");
    matrix(prefix + "ffn_gate.weight", kEmbedding, kFeedForward);
    matrix(prefix + "ffn_up.weight", kEmbedding, kFeedForward);
    matrix(prefix + "ffn_down.weight", kFeedForward, kEmbedding);
  }

  ggml_tensor* add(const std::string& name, ggml_tensor* tensor) {
    ggml_set_name(tensor, name.c_str());
    gguf_add_tensor(file_.get(), tensor);
    return tensor;
  }

  void norm(const std::string& name) {
    ggml_tensor* tensor = add(name, ggml_new_tensor_1d(context_.get(), GGML_TYPE_F32, kEmbedding));
    std::fill_n(static_cast<float*>(tensor->data), kEmbedding, 1.0f);
  }

  // q4_0: blocks of 32 weights, an f16 scale and 16 bytes of two 4-bit numbers (-8 to 7) each.
  // The scale keeps a product with a normal vector normal.
  void matrix(const std::string& name, int64_t columns, int64_t rows) {
    constexpr size_t kBlockBytes = 18;
    constexpr float kNibbleDeviation = 4.61f;
    ggml_tensor* tensor =
        add(name, ggml_new_tensor_2d(context_.get(), GGML_TYPE_Q4_0, columns, rows));
    const uint16_t scale =
        ggml_fp32_to_fp16(1.0f / (kNibbleDeviation * std::sqrt(static_cast<float>(columns))));
    auto* at = static_cast<uint8_t*>(tensor->data);
    uint8_t* const end = at + ggml_nbytes(tensor);
    for (; at < end; at += kBlockBytes) {
      const uint64_t nibbles[2] = {random_.next(), random_.next()};
      std::memcpy(at, &scale, sizeof(scale));
      std::memcpy(at + sizeof(scale), nibbles, sizeof(nibbles));
    }
  }

  const Options& options_;
  Random random_;
  std::unique_ptr<gguf_context, void (*)(gguf_context*)> file_;
  std::unique_ptr<ggml_context, void (*)(ggml_context*)> context_{nullptr, ggml_free};
};

}  // namespace

void add_make_model(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* make = app.add_subcommand(
      "make-model", "write a model of an 8B Llama's shape with random weights, to time");
  make->group("");  // a tool of the project, not shown
  make->footer("Example:\n  hata make-model -o 8b-shape-4l-q4_0.gguf --layers 4");
  make->add_option("-o,--output", options->out, "file to write")->capture_default_str();
  make->add_option("--layers", options->layers, "layers")
      ->check(CLI::Range(1, 128))
      ->capture_default_str();
  make->add_option("--seed", options->seed, "seed of the weights")->capture_default_str();
  make->callback([options] { ModelMaker(*options).make(); });
}

}  // namespace hata::cli
