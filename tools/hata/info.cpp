// hata info: what a model or a weights file means to hash-aware attention.
#include <algorithm>
#include <numeric>

#include "commands.h"
#include "core/q4.h"
#include "hata/types.h"
#include "options.h"
#include "output.h"
#include "weights/gguf.h"
#include "weights/model_shape.h"
#include "weights/weights_file.h"

namespace hata::cli {
namespace {

struct Options {
  std::vector<std::string> files;
  Budget budget;
  DenseLayers dense_layers;
  int64_t min_ctx = 1024;
  int rbit = 128;
  int rerank = 0;
  bool json = false;
};

constexpr int64_t kContexts[] = {32768, 131072};
constexpr double kElement = 2;  // bytes: an f16 cache

// Kept for each cell besides its codes: when it was written, and summaries of 64 cells.
constexpr double kIndexBytes = 8 + 3 * 8.0 / 64;
// A key's length takes 4 bits.
constexpr double kLengthBytes = 0.5;

double key_value_bytes(const weights::LayerShape& layer) {
  return kElement * layer.heads.n_kv_heads * (layer.heads.head_dim + layer.value_dim);
}

double code_bytes(const weights::LayerShape& layer, int rbit) {
  return layer.heads.n_kv_heads * (rbit / 8.0 + kLengthBytes);
}

// 4-bit keys, where candidates are ranked again by them.
double q4_key_bytes(const weights::LayerShape& layer) {
  return layer.heads.n_kv_heads * q4_bytes(layer.heads.head_dim);
}

// A model file, and the trained weights beside it.
struct Model {
  weights::GgufFile file;
  weights::ModelShape shape;
  std::shared_ptr<const Weights> trained = nullptr;
};

Model read_model(weights::GgufFile file) {
  Model model{std::move(file), {}};
  model.shape = weights::model_shape(model.file);
  std::vector<std::string> refused;
  const std::string path = weights::find_weights(model.file, refused);
  for (const std::string& line : refused) fmt::print(stderr, "hata: weights not used: {}\n", line);
  if (!path.empty()) model.trained = weights::shared_weights(path);
  return model;
}

// Why this layer will attend to every key; empty where it will not.
std::string why_dense(const Options& options, const Model& model, size_t index) {
  const weights::LayerShape& layer = model.shape.layers[index];
  if (!layer.why_dense.empty()) return layer.why_dense;
  if (layer.window > 0 && layer.window < options.min_ctx) {
    return fmt::format("sees a window of {} keys, below --min-ctx {}", layer.window,
                       options.min_ctx);
  }
  if (options.dense_layers.has(static_cast<int>(index), model.trained.get())) {
    return fmt::format("one of --dense-layers {}", options.dense_layers.text());
  }
  return "";
}

// Memory and reading at one length of context.
struct Cost {
  double codes = 0;   ///< bytes held
  double dense = 0;   ///< bytes that dense attention reads for a token
  double sparse = 0;  ///< bytes that HATA reads for a token
};

Cost cost_at(const Options& options, const Model& model, int64_t n_kv) {
  Cost cost;
  for (size_t i = 0; i < model.shape.layers.size(); ++i) {
    const weights::LayerShape& layer = model.shape.layers[i];
    const int64_t seen = layer.window > 0 ? std::min(layer.window, n_kv) : n_kv;
    const auto n = static_cast<double>(seen);
    cost.dense += n * key_value_bytes(layer);
    if (!why_dense(options, model, i).empty()) {
      cost.sparse += n * key_value_bytes(layer);
      continue;
    }
    const int64_t budget = std::min(options.budget.of(seen), seen);
    const int64_t candidates = std::min(budget * options.rerank, seen);
    cost.codes += n * (code_bytes(layer, options.rbit) + kIndexBytes);
    if (options.rerank > 0) cost.codes += n * q4_key_bytes(layer);
    cost.sparse += n * code_bytes(layer, options.rbit) +
                   static_cast<double>(candidates) * q4_key_bytes(layer) +
                   static_cast<double>(budget) * key_value_bytes(layer);
  }
  return cost;
}

// Layers of the same kind that follow one another.
struct LayerRun {
  size_t first, last;
  const weights::LayerShape* layer;
  std::string why_dense;
};

std::vector<LayerRun> layer_runs(const Options& options, const Model& model) {
  std::vector<LayerRun> runs;
  for (size_t i = 0; i < model.shape.layers.size(); ++i) {
    const weights::LayerShape& layer = model.shape.layers[i];
    const std::string why = why_dense(options, model, i);
    if (!runs.empty() && runs.back().why_dense == why && runs.back().layer->heads == layer.heads &&
        runs.back().layer->window == layer.window) {
      runs.back().last = i;
    } else {
      runs.push_back({i, i, &layer, why});
    }
  }
  return runs;
}

Json model_json(const Options& options, const Model& model) {
  const weights::ModelShape& shape = model.shape;
  Json json;
  json["file"] = model.file.path;
  json["kind"] = "model";
  json["architecture"] = shape.architecture;
  json["name"] = shape.name;
  json["n_layers"] = shape.layers.size();
  json["context_length"] = shape.context;
  json["weights"] = model.trained != nullptr ? Json(model.trained->path) : Json();
  json["budget"] = options.budget.text();
  json["rbit"] = options.rbit;
  json["rerank"] = options.rerank;
  for (size_t i = 0; i < shape.layers.size(); ++i) {
    const weights::LayerShape& layer = shape.layers[i];
    const std::string why = why_dense(options, model, i);
    json["layers"].push_back({{"layer", i},
                              {"n_q_heads", layer.heads.n_q_heads},
                              {"n_kv_heads", layer.heads.n_kv_heads},
                              {"head_dim", layer.heads.head_dim},
                              {"value_dim", layer.value_dim},
                              {"window", layer.window},
                              {"sparse", why.empty()},
                              {"why_dense", why}});
  }
  for (const int64_t n : kContexts) {
    const Cost cost = cost_at(options, model, n);
    json["costs"].push_back({{"n_kv", n},
                             {"code_bytes", cost.codes},
                             {"dense_bytes_per_token", cost.dense},
                             {"hata_bytes_per_token", cost.sparse}});
  }
  return json;
}

void print_model(const Options& options, const Model& model) {
  const weights::ModelShape& shape = model.shape;
  print("{}\n", model.file.path);
  print("  {}{}{}: {} layers, trained on {} tokens\n", shape.architecture,
        shape.name.empty() ? "" : ", ", shape.name, shape.layers.size(), shape.context);
  print("  codes: {}\n",
        model.trained != nullptr ? model.trained->path : "random, no weights file");
  for (const LayerRun& run : layer_runs(options, model)) {
    const HeadShape& heads = run.layer->heads;
    const std::string layers = run.first == run.last
                                   ? fmt::format("layer {}", run.first)
                                   : fmt::format("layers {} to {}", run.first, run.last);
    const std::string form =
        heads.n_kv_heads == 0
            ? ""
            : fmt::format("{} query and {} KV heads of {} (group {}){}: ", heads.n_q_heads,
                          heads.n_kv_heads, heads.head_dim, heads.group(),
                          run.layer->window > 0
                              ? fmt::format(", a window of {} keys", run.layer->window)
                              : "");
    print("  {}: {}{}\n", layers, form,
          run.why_dense.empty() ? "sparse" : "dense, " + run.why_dense);
  }
  if (shape.window_pattern_unknown) {
    print("  some layers may see a sliding window only; the file does not say which\n");
  }
  print("  budget {}, {} bits a code{}, f16 cache\n", options.budget.text(), options.rbit,
        options.rerank > 0 ? fmt::format(", {} times as many ranked again", options.rerank) : "");
  print("  {:>9}  {:>14}  {:>18}  {:>18}\n", "context", "codes hold", "dense reads/token",
        "HATA reads/token");
  for (const int64_t n : kContexts) {
    const Cost cost = cost_at(options, model, n);
    print("  {:>9}  {:>14}  {:>18}  {:>18}  ({:.1f}x less)\n", n, human_bytes(cost.codes),
          human_bytes(cost.dense), human_bytes(cost.sparse), cost.dense / cost.sparse);
  }
}

Json weights_json(const weights::WeightsFile& file) {
  const weights::Provenance& p = file.provenance;
  Json json;
  json["file"] = file.weights.path;
  json["kind"] = "weights";
  json["architecture"] = p.architecture;
  json["base_model"] = p.base_name;
  json["fingerprint"] = file.weights.fingerprint;
  json["rbit"] = file.rbit;
  json["objective"] = file.weights.objective;
  json["dataset"] = p.dataset;
  json["rows"] = p.rows;
  json["row_tokens"] = p.row_tokens;
  json["steps"] = p.steps;
  json["seed"] = p.seed;
  json["first_loss"] = p.first_loss;
  json["last_loss"] = p.last_loss;
  if (const auto& dense = file.weights.dense_layers) json["dense_layers"] = *dense;
  for (const auto& [layer, w] : file.weights.layers) {
    json["layers"].push_back(layer);
    if (w.recent_share > 0) json["recent_share"][std::to_string(layer)] = w.recent_share;
    if (w.kept_mass == nullptr) continue;
    Json& kept = json["kept_mass"];
    kept["n_keys"] = w.kept_mass->n_keys;
    kept["budgets"] = w.kept_mass->budgets;
    kept["layers"][std::to_string(layer)] = w.kept_mass->mass;
  }
  json["quality"] = Json::parse(p.quality, nullptr, false);
  if (json["quality"].is_discarded()) json["quality"] = nullptr;
  return json;
}

// "64: 0.91 learned, 0.83 random, 0.99 exact"
void print_quality(const char* title, const Json& by_method) {
  if (!by_method.is_object() || by_method.empty()) return;
  print("  {}\n", title);
  for (const auto& [budget, unused] : by_method.front().items()) {
    print("    budget {:>6}:", budget);
    for (const auto& [method, values] : by_method.items()) {
      print(" {} {:.3f}", method, values.value(budget, 0.0));
    }
    print("\n");
  }
}

// What --dense-layers auto and --budget auto do with the file.
void print_needs(const Weights& weights) {
  if (weights.dense_layers) {
    print("  --dense-layers auto: {}\n",
          weights.dense_layers->empty()
              ? "none"
              : fmt::format("{}", fmt::join(*weights.dense_layers, ", ")));
  }
  std::string windows;
  for (const auto& [layer, w] : weights.layers) {
    if (w.recent_share == 0) continue;
    windows += fmt::format("{}layer {}: {:g}", windows.empty() ? "" : ", ", layer, w.recent_share);
  }
  if (!windows.empty()) print("  of the budget, for the most recent keys: {}\n", windows);
  constexpr double kKept = 0.99;
  std::string needs;
  int64_t n_keys = 0;
  for (const auto& [layer, w] : weights.layers) {
    if (w.kept_mass == nullptr) continue;
    n_keys = w.kept_mass->n_keys;
    std::vector<int64_t> heads;
    for (int head = 0; head < w.projection.n_heads; ++head) {
      heads.push_back(w.kept_mass->needed(head, kKept));
    }
    needs += fmt::format("{}{}: {}", needs.empty() ? "" : "; ", layer, fmt::join(heads, " "));
  }
  if (needs.empty()) return;
  print("  keys that keep {} of the attention to {}, by layer and KV head:\n    {}\n", kKept,
        n_keys, needs);
}

void print_weights(const weights::WeightsFile& file) {
  const weights::Provenance& p = file.provenance;
  print("{}\n  HATA weights for {} ({}, fingerprint {}): {} layers, {} bits a code\n",
        file.weights.path, p.base_name, p.architecture, file.weights.fingerprint,
        file.weights.layers.size(), file.rbit);
  if (p.rows == 0) {  // imported
    print("  trained by {}; the documents: {}\n", file.weights.objective, p.dataset);
    return;
  }
  print("  trained by {} on {} documents of {} tokens, {} steps, seed {}: {}\n",
        file.weights.objective, p.rows, p.row_tokens, p.steps, p.seed, p.dataset);
  print("  loss {:.4f} at first, {:.4f} at last\n", p.first_loss, p.last_loss);
  print_needs(file.weights);
  const Json quality = Json::parse(p.quality, nullptr, false);
  if (!quality.is_object()) return;
  if (const Json kl = quality.value("kl", Json()); kl.is_object()) {
    print("  at {} of the keys: {:.4f} nats a token with all layers sparse, {:.4f} with auto\n",
          kl.value("budget", ""), kl.value("all_sparse", 0.0), kl.value("chosen", 0.0));
  }
  print_quality("attention to far keys that the chosen ones hold (held-out documents)",
                quality.value("kept_mass", Json()));
  print_quality("of the far keys attended to most, the share that is chosen",
                quality.value("recall", Json()));
}

void run(const Options& options) {
  Json all = Json::array();
  for (const std::string& path : options.files) {
    const weights::GgufFile file = weights::read_gguf(path);
    if (file.text("adapter.type") == "hata") {
      const weights::WeightsFile trained = weights::read_weights(path);
      options.json ? all.push_back(weights_json(trained)) : print_weights(trained);
      continue;
    }
    const Model model = read_model(file);
    options.dense_layers.check(static_cast<int>(model.shape.layers.size()), path);
    options.json ? all.push_back(model_json(options, model)) : print_model(options, model);
  }
  if (options.json) print("{}\n", all.dump(2));
}

}  // namespace

void add_info(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* info = app.add_subcommand(
      "info",
      "what a model or weights file means to HATA: sparse layers, memory, bytes read, quality");
  info->footer("Example:\n  hata info model.gguf --budget 1.56%");
  info->add_option("files", options->files, "model or weights files (GGUF)")->required();
  add_budget(*info, options->budget);
  add_dense_layers(*info, options->dense_layers);
  add_min_ctx(*info, options->min_ctx);
  add_rbit(*info, options->rbit);
  add_rerank(*info, options->rerank);
  info->add_flag("--json", options->json, "print a JSON array, an object a file");
  info->callback([options] { run(*options); });
}

}  // namespace hata::cli
