#include "weights/weights_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "core/f16.h"
#include "core/hash.h"
#include "weights/gguf_writer.h"

namespace hata::weights {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kVersion = 1;
constexpr int kMaxLayer = 1 << 20;
constexpr float kMostMass = 1.001f;  // sums of probabilities are rounded
constexpr uint32_t kTensorF32 = 0, kTensorF16 = 1;
constexpr const char* kRetrain = "; train it again (hata train), or leave it out";

std::vector<float> tensor_floats(const GgufFile& file, const GgufTensor& tensor) {
  const auto fail = [&](const std::string& why) {
    return Error(file.path + ": tensor '" + tensor.name + "': " + why + kRetrain);
  };
  if (tensor.type != kTensorF32 && tensor.type != kTensorF16) {
    throw fail("type " + std::to_string(tensor.type) + ", not f16 or f32");
  }
  const std::string bytes = tensor_bytes(file, tensor);
  const bool half = tensor.type == kTensorF16;
  std::vector<float> x(bytes.size() / (half ? 2 : 4));
  for (size_t i = 0; i < x.size(); ++i) {
    if (half) {
      uint16_t h;
      std::memcpy(&h, bytes.data() + 2 * i, 2);
      x[i] = f16_to_f32(h);
    } else {
      std::memcpy(&x[i], bytes.data() + 4 * i, 4);
    }
    if (!std::isfinite(x[i])) {
      throw fail("element " + std::to_string(i) + " is not a finite number");
    }
  }
  return x;
}

class WeightsReader {
 public:
  explicit WeightsReader(const std::string& path) : file_(read_gguf(path)) {}

  WeightsFile read() {
    if (need_text("adapter.type") != "hata") {
      fail("adapter.type", need_text("adapter.type"), "not hata");
    }
    const int64_t version = need("adapter.hata.version", 1, 1 << 20);
    if (version != kVersion) {
      fail("adapter.hata.version", std::to_string(version), "this program reads version 1");
    }
    out_.rbit = static_cast<int>(need("adapter.hata.rbit", 64, kMaxRbit));
    if (out_.rbit != 64 && out_.rbit != 128 && out_.rbit != 256) {
      fail("adapter.hata.rbit", std::to_string(out_.rbit), "codes have 64, 128 or 256 bits");
    }
    out_.weights.path = file_.path;
    read_provenance();
    read_needs();
    for (const GgufTensor& tensor : file_.tensors) read_tensor(tensor);
    check_layers();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& value,
                         const std::string& why) const {
    throw Error(file_.path + ": " + field + ": " + value + ": " + why + kRetrain);
  }

  std::string need_text(const std::string& key) const {
    const auto text = file_.text(key);
    if (!text) throw Error(file_.path + ": " + key + " is missing: not a file of HATA weights");
    return *text;
  }

  int64_t need(const std::string& key, int64_t min, int64_t max) const {
    const auto value = file_.integer(key);
    if (!value) throw Error(file_.path + ": " + key + " is missing: not a file of HATA weights");
    if (*value < min || *value > max) {
      fail(key, std::to_string(*value),
           "want " + std::to_string(min) + " to " + std::to_string(max));
    }
    return *value;
  }

  void read_provenance() {
    Provenance& p = out_.provenance;
    p.architecture = need_text("general.architecture");
    out_.weights.fingerprint = need_text("adapter.hata.fingerprint");
    p.base_name = file_.text("general.base_model.0.name").value_or("");
    p.dataset = file_.text("general.dataset.0.name").value_or("");
    out_.weights.objective = file_.text("adapter.hata.objective").value_or("");
    p.quality = file_.text("adapter.hata.quality").value_or("");
    const auto number = [&](const char* key) {
      return static_cast<uint32_t>(file_.integer(key).value_or(0));
    };
    p.rows = number("adapter.hata.rows");
    p.row_tokens = number("adapter.hata.row_tokens");
    p.steps = number("adapter.hata.steps");
    p.seed = number("adapter.hata.seed");
    p.first_loss = static_cast<float>(file_.number("adapter.hata.first_loss").value_or(0));
    p.last_loss = static_cast<float>(file_.number("adapter.hata.last_loss").value_or(0));
  }

  // Integers of an array between min and max, ascending.
  std::vector<int64_t> ascending(const std::string& key, const GgufArray& array, int64_t min,
                                 int64_t max) const {
    if (array.integers.size() != array.count) fail(key, "an array", "of integers is wanted");
    int64_t before = min - 1;
    for (const int64_t value : array.integers) {
      if (value <= before || value > max) {
        fail(key, std::to_string(value),
             "want ascending numbers from " + std::to_string(min) + " to " + std::to_string(max));
      }
      before = value;
    }
    return array.integers;
  }

  void read_needs() {
    const std::string dense = "adapter.hata.dense_layers";
    if (const GgufArray* array = file_.array(dense)) {
      const auto layers = ascending(dense, *array, 0, kMaxLayer);
      out_.weights.dense_layers.emplace(layers.begin(), layers.end());
    }
    const std::string budgets = "adapter.hata.kept_mass.budgets";
    if (const GgufArray* array = file_.array(budgets)) {
      kept_budgets_ = ascending(budgets, *array, 1, int64_t{1} << 31);
      kept_keys_ = need("adapter.hata.kept_mass.n_keys", 1, int64_t{1} << 31);
    }
  }

  void read_tensor(const GgufTensor& tensor) {
    const std::string field = "tensor '" + tensor.name + "'";
    int layer = -1, end = 0;
    char kind[32] = "";
    if (std::sscanf(tensor.name.c_str(), "blk.%d.attn_hash_%31s%n", &layer, kind, &end) != 2 ||
        end != static_cast<int>(tensor.name.size()) || layer < 0 || layer > kMaxLayer) {
      fail(field, "unknown", "HATA weights hold tensors blk.N.attn_hash_k.weight and their like");
    }
    LayerWeights& out = out_.weights.layers[layer];
    const std::string what = kind;
    if (what == "k.weight") {
      read_projection(tensor, out.projection);
    } else if (what == "q.weight") {
      read_projection(tensor, out.queries);
    } else if (what == "k.mean_length") {
      out.mean_lengths = tensor_floats(file_, tensor);
      for (const float length : out.mean_lengths) {
        if (!(length > 0)) fail(field, std::to_string(length), "lengths are above 0");
      }
    } else if (what == "k.mean") {
      out.key_means = tensor_floats(file_, tensor);
    } else if (what == "k.kept_mass") {
      out.kept_mass = std::make_shared<const KeptMass>(
          KeptMass{kept_keys_, kept_budgets_, tensor_floats(file_, tensor)});
      for (const float mass : out.kept_mass->mass) {
        if (!(mass >= 0 && mass <= kMostMass)) {
          fail(field, std::to_string(mass), "a share of the attention is between 0 and 1");
        }
      }
    } else if (what == "k.recent_share") {
      const std::vector<float> share = tensor_floats(file_, tensor);
      if (share.size() != 1) fail(field, std::to_string(share.size()) + " numbers", "want one");
      if (!(share[0] > 0 && share[0] <= 1)) {
        fail(field, std::to_string(share[0]), "a share of the budget is above 0 and at most 1");
      }
      out.recent_share = share[0];
    } else {
      fail(field, what,
           "want k.weight, q.weight, k.mean_length, k.mean, k.kept_mass or k.recent_share");
    }
  }

  // The file has rbit rows of head_dim, memory the other way round.
  void read_projection(const GgufTensor& tensor, Projection& out) const {
    const std::string field = "tensor '" + tensor.name + "'";
    const auto rbit = static_cast<uint64_t>(out_.rbit);
    if (tensor.shape.size() != 3 || tensor.shape[1] != rbit || tensor.shape[0] < kMinHeadDim ||
        tensor.shape[0] > kMaxHeadDim || tensor.shape[2] > 65536) {
      std::string shape;
      for (const uint64_t n : tensor.shape)
        shape += (shape.empty() ? "" : " x ") + std::to_string(n);
      fail(field, shape, "want head_dim x " + std::to_string(rbit) + " x KV heads");
    }
    out = {static_cast<int>(tensor.shape[2]), static_cast<int>(tensor.shape[0]), out_.rbit, {}};
    const std::vector<float> x = tensor_floats(file_, tensor);
    out.weights.resize(x.size());
    const size_t d = tensor.shape[0];
    for (size_t h = 0; h < tensor.shape[2]; ++h) {
      for (size_t j = 0; j < rbit; ++j) {
        for (size_t i = 0; i < d; ++i) {
          out.weights[(h * d + i) * rbit + j] = x[(h * rbit + j) * d + i];
        }
      }
    }
  }

  void check_layers() const {
    if (out_.weights.layers.empty()) fail("tensors", "none", "a weights file has some");
    for (const auto& [layer, w] : out_.weights.layers) {
      const std::string field = "layer " + std::to_string(layer);
      if (w.projection.n_heads == 0) fail(field, "no weight", "each layer needs one");
      const auto n_heads = static_cast<size_t>(w.projection.n_heads);
      const size_t d = static_cast<size_t>(w.projection.head_dim);
      const auto check = [&](const char* what, size_t size, size_t want) {
        if (size == 0 || size == want) return;
        fail(field, std::to_string(size) + what, "want " + std::to_string(want) + ", or none");
      };
      check(" mean lengths", w.mean_lengths.size(), n_heads);
      check(" query weights", w.queries.weights.size(), w.projection.weights.size());
      check(" elements of mean keys", w.key_means.size(), n_heads * d);
      if (w.kept_mass != nullptr) {
        if (kept_budgets_.empty()) {
          fail(field, "kept_mass", "adapter.hata.kept_mass.budgets is missing");
        }
        check(" shares of attention", w.kept_mass->mass.size(), n_heads * kept_budgets_.size());
      }
    }
  }

  GgufFile file_;
  WeightsFile out_;
  std::vector<int64_t> kept_budgets_;
  int64_t kept_keys_ = 0;
};

void put_metadata(GgufWriter& out, const WeightsFile& file) {
  const Provenance& p = file.provenance;
  out.put("general.type", "adapter");
  out.put("general.architecture", p.architecture);
  out.put("general.name", "HATA codes for " + p.base_name);
  out.put("general.base_model.count", 1u);
  out.put("general.base_model.0.name", p.base_name);
  out.put("general.dataset.count", 1u);
  out.put("general.dataset.0.name", p.dataset);
  out.put("adapter.type", "hata");
  out.put("adapter.hata.version", kVersion);
  out.put("adapter.hata.rbit", static_cast<uint32_t>(file.rbit));
  out.put("adapter.hata.head_dim",
          static_cast<uint32_t>(file.weights.layers.begin()->second.projection.head_dim));
  out.put("adapter.hata.fingerprint", file.weights.fingerprint);
  out.put("adapter.hata.objective", file.weights.objective);
  out.put("adapter.hata.rows", p.rows);
  out.put("adapter.hata.row_tokens", p.row_tokens);
  out.put("adapter.hata.steps", p.steps);
  out.put("adapter.hata.seed", p.seed);
  out.put("adapter.hata.first_loss", p.first_loss);
  out.put("adapter.hata.last_loss", p.last_loss);
  out.put("adapter.hata.quality", p.quality);
  if (file.weights.dense_layers) {
    out.put("adapter.hata.dense_layers", *file.weights.dense_layers);
  }
  if (const auto& kept = file.weights.layers.begin()->second.kept_mass) {
    out.put("adapter.hata.kept_mass.n_keys", static_cast<uint32_t>(kept->n_keys));
    out.put("adapter.hata.kept_mass.budgets",
            std::vector<int32_t>(kept->budgets.begin(), kept->budgets.end()));
  }
}

// The projections as the file has them: rbit rows of head_dim.
std::vector<float> rows_of(const Projection& p) {
  const auto d = static_cast<size_t>(p.head_dim), r = static_cast<size_t>(p.rbit);
  std::vector<float> rows(p.weights.size());
  for (size_t h = 0; h < static_cast<size_t>(p.n_heads); ++h) {
    for (size_t j = 0; j < r; ++j) {
      for (size_t i = 0; i < d; ++i) rows[(h * r + j) * d + i] = p.weights[(h * d + i) * r + j];
    }
  }
  return rows;
}

}  // namespace

std::vector<const GgufTensor*> attention_norms(const GgufFile& model) {
  std::vector<const GgufTensor*> norms;
  for (const GgufTensor& tensor : model.tensors) {
    if (tensor.name.starts_with("blk.") && tensor.name.ends_with(".attn_norm.weight")) {
      norms.push_back(&tensor);
    }
  }
  std::sort(norms.begin(), norms.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->name < b->name; });
  return norms;
}

std::string model_fingerprint(const GgufFile& model) {
  const auto norms = attention_norms(model);
  if (norms.empty()) return "";
  uint64_t hash = fnv1a("");
  for (const GgufTensor* tensor : norms) {
    hash = fnv1a(tensor_bytes(model, *tensor), fnv1a(tensor->name, hash));
  }
  return hexadecimal(hash);
}

WeightsFile read_weights(const std::string& path) { return WeightsReader(path).read(); }

std::shared_ptr<const Weights> shared_weights(const std::string& path) {
  struct InUse {
    std::weak_ptr<const Weights> weights;
    fs::file_time_type changed;
  };
  static std::mutex mutex;
  static std::map<std::string, InUse> files;
  const std::lock_guard lock(mutex);
  std::error_code error;  // where it cannot be read, read_weights says so
  const fs::file_time_type changed = fs::last_write_time(path, error);
  InUse& file = files[path];
  auto weights = file.changed == changed ? file.weights.lock() : nullptr;
  if (weights == nullptr) {
    weights = std::make_shared<const Weights>(read_weights(path).weights);
    file = {weights, changed};
  }
  return weights;
}

void write_weights(const std::string& path, const WeightsFile& file) {
  GgufWriter out;
  put_metadata(out, file);
  for (const auto& [layer, w] : file.weights.layers) {
    const std::string name = "blk." + std::to_string(layer) + ".attn_hash_";
    const auto size = [](int n) { return static_cast<uint64_t>(n); };
    const auto projection = [&](const char* of, const Projection& p) {
      out.tensor_f16(name + of, {size(p.head_dim), size(p.rbit), size(p.n_heads)}, rows_of(p));
    };
    const uint64_t n_heads = size(w.projection.n_heads);
    projection("k.weight", w.projection);
    if (w.queries.n_heads > 0) projection("q.weight", w.queries);
    if (!w.mean_lengths.empty()) {
      out.tensor_f32(name + "k.mean_length", {w.mean_lengths.size()}, w.mean_lengths);
    }
    if (!w.key_means.empty()) {
      const uint64_t d = size(w.projection.head_dim);
      out.tensor_f32(name + "k.mean", {d, w.key_means.size() / d}, w.key_means);
    }
    if (w.recent_share > 0) out.tensor_f32(name + "k.recent_share", {1}, {w.recent_share});
    if (w.kept_mass != nullptr) {
      out.tensor_f32(name + "k.kept_mass", {w.kept_mass->budgets.size(), n_heads},
                     w.kept_mass->mass);
    }
  }
  out.write(path);
}

std::string weights_path(const std::string& model_path) {
  const fs::path model(model_path);
  return (model.parent_path() / ("hata-" + model.stem().string() + ".gguf")).string();
}

namespace {

// A weights file serves all quantisations of a model: hata-NAME.gguf for NAME-q8_0.gguf, too.
bool may_be_weights_of(const GgufFile& model, const fs::path& file) {
  if (!file.filename().string().starts_with("hata-") || file.extension() != ".gguf") return false;
  const std::string base = file.stem().string().substr(5);
  const std::string stem = fs::path(model.path).stem().string();
  const std::string name = model.text("general.name").value_or("");
  return base.starts_with(stem) || stem.starts_with(base) ||
         (!name.empty() && base.starts_with(name));
}

}  // namespace

std::string find_weights(const GgufFile& model, std::vector<std::string>& refused) {
  const std::string fingerprint = model_fingerprint(model);
  const fs::path folder = fs::path(model.path).parent_path();
  std::vector<std::string> candidates;
  std::error_code error;  // a folder that cannot be listed has none
  for (const auto& entry : fs::directory_iterator(folder.empty() ? "." : folder, error)) {
    if (may_be_weights_of(model, entry.path())) candidates.push_back(entry.path().string());
  }
  std::sort(candidates.begin(), candidates.end());
  for (const std::string& path : candidates) {
    try {
      const GgufFile file = read_gguf(path);
      if (file.text("adapter.type").value_or("") != "hata") continue;
      const std::string theirs = file.text("adapter.hata.fingerprint").value_or("missing");
      if (theirs == fingerprint) return path;
      refused.push_back(path + ": fingerprint: " + theirs + ": the model's is " + fingerprint +
                        "; train weights for this model (hata train)");
    } catch (const Error& problem) {
      refused.push_back(problem.what());
    }
  }
  return "";
}

}  // namespace hata::weights
