#include "weights/model_shape.h"

namespace hata::weights {
namespace {

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 65536;

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

  int64_t need(const std::string& key, int64_t min, int64_t max, int64_t layer = 0) const {
    const auto value = get(key, layer);
    if (!value) {
      throw Error(file_.path + ": metadata '" + arch_ + "." + key +
                  "' is missing; this is not a text model that attends");
    }
    if (*value < min || *value > max) {
      throw Error(file_.path + ": metadata '" + arch_ + "." + key + "': " + std::to_string(*value) +
                  ": want " + std::to_string(min) + " to " + std::to_string(max));
    }
    return *value;
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
  layer.heads.n_q_heads = static_cast<int>(arch.need("attention.head_count", 0, kMaxHeads, index));
  const auto n_kv = arch.get("attention.head_count_kv", index).value_or(layer.heads.n_q_heads);
  if (n_kv < 0 || n_kv > kMaxHeads) arch.need("attention.head_count_kv", 0, kMaxHeads, index);
  layer.heads.n_kv_heads = static_cast<int>(n_kv);
  const auto embedding = arch.get("embedding_length").value_or(0);
  const int64_t head_dim = layer.heads.n_q_heads > 0 ? embedding / layer.heads.n_q_heads : 0;
  layer.heads.head_dim =
      static_cast<int>(arch.get("attention.key_length", index).value_or(head_dim));
  layer.value_dim = static_cast<int>(arch.get("attention.value_length", index).value_or(head_dim));
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
  const int64_t n_layers = arch.need("block_count", 1, kMaxLayers);
  model.context = arch.get("context_length").value_or(0);
  const int64_t window = arch.get("attention.sliding_window").value_or(0);
  const GgufArray* pattern = arch.array("attention.sliding_window_pattern");
  model.window_pattern_unknown = window > 0 && pattern == nullptr;
  for (int64_t i = 0; i < n_layers; ++i) {
    model.layers.push_back(layer_shape(arch, i));
    const bool slides = pattern != nullptr && i < static_cast<int64_t>(pattern->integers.size()) &&
                        pattern->integers[i] != 0;
    if (slides) model.layers.back().window = window;
  }
  return model;
}

}  // namespace hata::weights
