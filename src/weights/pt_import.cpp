#include "weights/pt_import.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <map>
#include <string_view>

#include "hata/types.h"
#include "weights/pt_file.h"

namespace hata::weights {
namespace {

// Those whose conversion permutes the rows of Q and K (llama.cpp, conversion/*.py), ...
constexpr std::string_view kInterleaved[] = {
    "arcee",    "arctic",   "baichuan",   "bailingmoe", "chameleon", "deci",
    "deepseek", "granite",  "granitemoe", "internlm2",  "llada",     "llama",
    "minicpm",  "mistral3", "nanbeige",   "olmo",       "smollm3",   "xverse"};
// ... and those that leave them, as Hugging Face has them in halves or (chatglm, cohere2,
// command-r) in interleaved order, too.
constexpr std::string_view kKept[] = {"chatglm",  "cohere2",  "command-r", "dream",     "exaone",
                                      "exaone4",  "gemma",    "gemma2",    "gemma3",    "gpt-oss",
                                      "olmo2",    "phi3",     "qwen2",     "qwen2moe",  "qwen3",
                                      "qwen3moe", "seed_oss", "stablelm",  "starcoder2"};

bool has(const auto& names, const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// The number behind the last "layer" or "layers" of a name; else the name, where it is a number.
std::optional<int> layer_in(const std::string& name) {
  const size_t word = name.rfind("layer");
  size_t at = 0;
  if (word != std::string::npos) {
    at = word + 5;
    if (at < name.size() && name[at] == 's') ++at;
    if (at < name.size() && std::string_view("._-").find(name[at]) != std::string_view::npos) ++at;
  }
  size_t end = at;
  while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end])) != 0) ++end;
  if (end == at || end - at > 4 || (word == std::string::npos && end != name.size())) return {};
  return std::stoi(name.substr(at, end - at));
}

std::string text_of(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

class Importer {
 public:
  Importer(const ModelShape& shape, RowOrder order) : shape_(shape), order_(order) {}

  void add_file(const std::string& path) {
    for (const PtTensor& tensor : read_pt(path)) add(path, tensor);
  }

  ImportedWeights take() { return std::move(out_); }

 private:
  void add(const std::string& path, const PtTensor& tensor) {
    const std::string what =
        path + ": tensor" + (tensor.name.empty() ? "" : " '" + tensor.name + "'");
    const int layer = layer_of(path, tensor, what);
    const auto [place, is_new] = out_.file.weights.layers.try_emplace(layer);
    if (!is_new) {
      throw Error(what + ": layer " + std::to_string(layer) +
                  ": another file or tensor has it, too; "
                  "give each layer once");
    }
    place->second.projection = projection(tensor, layer, what + ": layer " + std::to_string(layer));
    out_.layers.push_back({layer, path, tensor.shape, tensor.dtype});
  }

  int layer_of(const std::string& path, const PtTensor& tensor, const std::string& what) const {
    const std::string name =
        tensor.name.empty() ? std::filesystem::path(path).stem().string() : tensor.name;
    const auto layer = layer_in(name);
    if (!layer) {
      throw Error(what + ": no layer in '" + name +
                  "'; name it as the reference does: hash_weight_layer_02.pt");
    }
    if (*layer >= static_cast<int>(shape_.layers.size())) {
      throw Error(what + ": layer " + std::to_string(*layer) + ": the model has " +
                  std::to_string(shape_.layers.size()) + " layers; these are another model's");
    }
    return *layer;
  }

  void check_shape(const PtTensor& tensor, const LayerShape& layer, const std::string& what) {
    const auto fail = [&](const std::string& why) {
      throw Error(what + ": shape " + text_of(tensor.shape) + ": " + why);
    };
    const HeadShape& heads = layer.heads;
    const std::string want = "want [" + std::to_string(heads.n_kv_heads) + " KV heads, head_dim " +
                             std::to_string(heads.head_dim) + ", bits]";
    if (!layer.why_dense.empty()) fail("this layer of the model stays dense: " + layer.why_dense);
    const size_t dims = tensor.shape.size();
    if (dims != 2 && dims != 3) fail(want + " or the last two alone");
    if (tensor.shape[dims - 2] != heads.head_dim) fail(want + "; these are another model's");
    if (dims == 3 && tensor.shape[0] != heads.n_kv_heads) {
      fail(tensor.shape[0] == heads.n_q_heads
               ? "one for each of " + std::to_string(heads.n_q_heads) + " query heads; " + want +
                     ": a key has one code for its whole group, so train one W a KV head"
               : want + "; these are another model's");
    }
    const int64_t bits = tensor.shape[dims - 1];
    if (bits != 64 && bits != 128 && bits != 256) fail("codes have 64, 128 or 256 bits");
    if (out_.file.rbit != 0 && bits != out_.file.rbit) {
      fail(std::to_string(bits) + " bits, layers before have " + std::to_string(out_.file.rbit) +
           "; give files of one kind");
    }
    out_.file.rbit = static_cast<int>(bits);
  }

  // Where row i of a head goes.
  size_t row(size_t i, size_t head_dim) const {
    if (order_ == RowOrder::kept) return i;
    const size_t half = head_dim / 2;
    return i < half ? 2 * i : 2 * (i - half) + 1;
  }

  Projection projection(const PtTensor& tensor, int layer, const std::string& what) {
    const LayerShape& in_model = shape_.layers[static_cast<size_t>(layer)];
    check_shape(tensor, in_model, what);
    const HeadShape& heads = in_model.heads;
    Projection out{heads.n_kv_heads, heads.head_dim, out_.file.rbit, {}};
    const auto d = static_cast<size_t>(heads.head_dim), r = static_cast<size_t>(out_.file.rbit);
    const auto n = static_cast<size_t>(heads.n_kv_heads);
    const bool shared = tensor.shape.size() == 2;  // all heads have this one
    out.weights.resize(n * d * r);
    for (size_t h = 0; h < n; ++h) {
      for (size_t i = 0; i < d; ++i) {
        const float* from = tensor.values.data() + ((shared ? 0 : h * d) + i) * r;
        float* to = out.weights.data() + (h * d + row(i, d)) * r;
        for (size_t j = 0; j < r; ++j) {
          if (!(std::abs(from[j]) <= kMaxF16)) {
            throw Error(what + ": head " + std::to_string(h) + ", row " + std::to_string(i) +
                        ", bit " + std::to_string(j) + ": " + std::to_string(from[j]) +
                        ": want finite numbers of at most 65504 (f16); train this layer again");
          }
          to[j] = from[j];
        }
      }
    }
    return out;
  }

  static constexpr float kMaxF16 = 65504;

  const ModelShape& shape_;
  RowOrder order_;
  ImportedWeights out_;
};

}  // namespace

std::optional<RowOrder> row_order(const std::string& architecture) {
  if (has(kInterleaved, architecture)) return RowOrder::interleaved;
  if (has(kKept, architecture)) return RowOrder::kept;
  return std::nullopt;
}

ImportedWeights import_pt(const std::vector<std::string>& paths, const GgufFile& model,
                          const ModelShape& shape, RowOrder order) {
  Importer importer(shape, order);
  for (const std::string& path : paths) importer.add_file(path);
  ImportedWeights out = importer.take();
  std::sort(out.layers.begin(), out.layers.end(),
            [](const ImportedLayer& a, const ImportedLayer& b) { return a.layer < b.layer; });
  Provenance& p = out.file.provenance;
  p.architecture = shape.architecture;
  p.base_name = shape.name;
  p.dataset = "unknown (imported from " + std::to_string(paths.size()) + " .pt files)";
  out.file.weights.fingerprint = model_fingerprint(model);
  out.file.weights.objective = "paper";
  return out;
}

}  // namespace hata::weights
