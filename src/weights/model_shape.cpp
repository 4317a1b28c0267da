#include "weights/model_shape.h"

namespace hata::weights {
namespace {

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 65536;
constexpr int64_t kMaxEmbedding = 1 << 24;

// Metadata of one architecture ("llama.block_count"); some values differ from layer to layer.
class ArchReader {
 public:
  ArchReader(const GgufFile& file, std::string arch) : file_(file), arch_(std::move(arch)) {}

  std::optional<int64_t> get(const std::string& key, int64_t layer = 0) const {
    const std::string full = arch_ + "." + key;
    if (const GgufArray* array = file_.array(full)) {
      if (layer < static_cast<int64_t>(array->integers.size())) return array->integers[layer];
      return std::nullopt;
    }
    return file_.integer(full);
  }

  /// A value of 0 to max; `missing` where the file does not say.
  int get_or(const std::string& key, int64_t missing, int64_t max, int64_t layer) const {
    const int64_t value = get(key, layer).value_or(missing);
    if (value < 0 || value > max) {
      throw Error(file_.path + ": metadata '" + arch_ + "." + key + "': " + std::to_string(value) +
                  ": want 0 to " + std::to_string(max));
    }
    return static_cast<int>(value);
  }

  int need(const std::string& key, int64_t max, int64_t layer = 0) const {
    if (!get(key, layer)) {
      throw Error(file_.path + ": metadata '" + arch_ + "." + key +
                  "' is missing; this is not a text model that attends");
    }
    return get_or(key, 0, max, layer);
  }

  const GgufArray* array(const std::string& key) const { return file_.array(arch_ + "." + key); }

 private:
  const GgufFile& file_;
  std::string arch_;
};

std::string why_dense(const LayerShape& layer, bool latent) {
  if (layer.heads.n_kv_heads == 0) return "no attention";
  if (latent) return "latent attention: values are a part of the keys";
  if (layer.value_dim != layer.heads.head_dim) return "keys and values differ in size";
  try {
    check_shape(layer.heads);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

LayerShape layer_shape(const ArchReader& arch, int64_t index) {
  LayerShape layer;
  HeadShape& heads = layer.heads;
  heads.n_q_heads = arch.need("attention.head_count", kMaxHeads, index);
  heads.n_kv_heads = arch.get_or("attention.head_count_kv", heads.n_q_heads, kMaxHeads, index);
  const int embedding = arch.get_or("embedding_length", 0, kMaxEmbedding, index);
  const int head_dim = heads.n_q_heads > 0 ? embedding / heads.n_q_heads : 0;
  heads.head_dim = arch.get_or("attention.key_length", head_dim, kMaxEmbedding, index);
  layer.value_dim = arch.get_or("attention.value_length", head_dim, kMaxEmbedding, index);
  layer.why_dense = why_dense(layer, arch.get("attention.kv_lora_rank").value_or(0) > 0);
  return layer;
}

}  // namespace

ModelShape model_shape(const GgufFile& file) {
  ModelShape model;
  const auto architecture = file.text("general.architecture");
  if (!architecture) {
    throw Error(file.path + ": metadata 'general.architecture' is missing; not a model");
  }
  model.architecture = *architecture;
  model.name = file.text("general.name").value_or("");
  const ArchReader arch(file, model.architecture);
  const int n_layers = arch.need("block_count", kMaxLayers);
  model.context = arch.get("context_length").value_or(0);
  const int64_t window = arch.get("attention.sliding_window").value_or(0);
  const GgufArray* pattern = arch.array("attention.sliding_window_pattern");
  model.window_pattern_unknown = window > 0 && pattern == nullptr;
  for (int i = 0; i < n_layers; ++i) {
    model.layers.push_back(layer_shape(arch, i));
    const bool slides = pattern != nullptr && i < static_cast<int64_t>(pattern->integers.size()) &&
                        pattern->integers[i] != 0;
    if (slides) model.layers.back().window = window;
  }
  return model;
}

}  // namespace hata::weights
