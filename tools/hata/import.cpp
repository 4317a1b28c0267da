// hata import: trained codes of the paper's reference implementation, for a model of ours.
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "commands.h"
#include "hata/types.h"
#include "model.h"
#include "options.h"
#include "output.h"
#include "weights/pt_import.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;
using weights::RowOrder;

struct Options {
  std::vector<std::string> files;
  std::string model;
  std::string output;
  std::string rope = "auto";
  bool json = false;
};

// A folder means the .pt files in it, which is how the reference names its weights.
std::vector<std::string> pt_files(const std::vector<std::string>& given) {
  std::vector<std::string> files;
  for (const std::string& path : given) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);  // what it is, its reader says
      continue;
    }
    const size_t before = files.size();
    for (const auto& entry : fs::directory_iterator(path, error)) {
      if (entry.path().extension() == ".pt") files.push_back(entry.path().string());
    }
    if (error) throw Error(path + ": cannot be listed: " + error.message());
    if (files.size() == before) throw Error(path + ": there is no .pt file in this folder");
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
  }
  return files;
}

class Import {
 public:
  explicit Import(const Options& options)
      : options_(options),
        files_(pt_files(options.files)),
        model_(weights::read_gguf(options.model)),
        shape_(weights::model_shape(model_)),
        order_(row_order()) {
    if (options_.output.empty()) options_.output = weights::weights_path(options_.model);
  }

  void run() {
    check_output();
    imported_ = weights::import_pt(files_, model_, shape_, order_);
    weights::write_weights(options_.output, imported_.file);
    describe();
    options_.json ? print("{}\n", json().dump(2)) : print("{}\n", options_.output);
  }

 private:
  RowOrder row_order() const {
    if (options_.rope == "interleaved") return RowOrder::interleaved;
    if (options_.rope == "halves") return RowOrder::kept;
    const auto order = weights::row_order(shape_.architecture);
    if (!order) {
      throw Error(fmt::format(
          "{}: metadata 'general.architecture': {}: whether its conversion to GGUF reorders "
          "queries "
          "and keys is not known here; say so: --rope interleaved (as for llama) or --rope halves "
          "(it leaves them, as for qwen2)",
          options_.model, shape_.architecture));
    }
    return *order;
  }

  // Neither the model nor what is imported may be written over.
  void check_output() const {
    check_output_folder(options_.output);
    std::vector<std::string> inputs = files_;
    inputs.push_back(options_.model);
    for (const std::string& input : inputs) {
      std::error_code missing;  // then they are not the same
      if (!fs::equivalent(input, options_.output, missing)) continue;
      throw Error(
          fmt::format("-o {}: is {}, which is read; name another file", options_.output, input));
    }
  }

  // Neighbours alike are one line.
  void describe() const {
    const auto& layers = imported_.layers;
    fmt::print(stderr,
               "hata import: {} of {} layers of {}, {} bits a code; the others get random codes\n",
               layers.size(), shape_.layers.size(),
               shape_.name.empty() ? options_.model : shape_.name, imported_.file.rbit);
    for (size_t first = 0, last = 0; first < layers.size(); first = last + 1) {
      for (last = first; last + 1 < layers.size(); ++last) {
        const auto& next = layers[last + 1];
        if (next.layer != layers[last].layer + 1 || next.shape != layers[first].shape ||
            next.dtype != layers[first].dtype) {
          break;
        }
      }
      const auto& of = layers[first];
      fmt::print(stderr, "  {}: {} [{}]{}\n",
                 first == last ? fmt::format("layer {}", of.layer)
                               : fmt::format("layers {} to {}", of.layer, layers[last].layer),
                 of.dtype, fmt::join(of.shape, ", "),
                 of.shape.size() == 2 ? ", for all KV heads alike" : "");
    }
    fmt::print(stderr, "  rows of a head: {} ({})\n", order_text(),
               options_.rope == "auto" ? "architecture " + shape_.architecture
                                       : "--rope " + options_.rope);
  }

  const char* order_text() const {
    return order_ == RowOrder::kept ? "as they were" : "halves interleaved";
  }

  Json json() const {
    Json json;
    json["file"] = options_.output;
    json["architecture"] = shape_.architecture;
    json["base_model"] = shape_.name;
    json["fingerprint"] = imported_.file.weights.fingerprint;
    json["rbit"] = imported_.file.rbit;
    json["rope"] = order_ == RowOrder::kept ? "halves" : "interleaved";
    json["n_layers"] = shape_.layers.size();
    for (const auto& layer : imported_.layers) {
      json["layers"].push_back({{"layer", layer.layer},
                                {"file", layer.path},
                                {"dtype", layer.dtype},
                                {"shape", layer.shape}});
    }
    return json;
  }

  Options options_;
  std::vector<std::string> files_;
  weights::GgufFile model_;
  weights::ModelShape shape_;
  RowOrder order_;
  weights::ImportedWeights imported_;
};

}  // namespace

void add_import(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* import = app.add_subcommand(
      "import", "codes trained by the paper's reference implementation (.pt files)");
  import->footer(
      "The files hash_weight_layer_NN.pt become one weights file, which programs find beside the\n"
      "model. Nothing in them is run. Layers without a file get random codes.\n"
      "Example:\n  hata import Meta-Llama-3.1-8B-Instruct-128 -m llama-3.1-8b-q8_0.gguf");
  import->add_option("files", options->files, "files that torch.save wrote, or folders of them")
      ->required();
  add_model(*import, options->model, true);
  import->add_option("-o,--output", options->output,
                     "weights file; by default hata-NAME.gguf beside the model");
  import
      ->add_option(
          "--rope", options->rope,
          "order of a head's dimensions in the model file: interleaved (converted as llama "
          "is), halves (left as Hugging Face has them), or auto, by its architecture")
      ->check(CLI::IsMember({"auto", "interleaved", "halves"}))
      ->capture_default_str();
  import->add_flag("--json", options->json, "print a JSON object instead of the output's path");
  import->callback([options] { Import(*options).run();
});
}  // namespace hata::cli

}  // namespace hata::cli
