#include "ggml/models.h"

#include <algorithm>
#include <filesystem>

#include "ggml/log.h"
#include "weights/weights_file.h"

namespace hata::host {

void Models::opened(const std::string& path) {
  std::error_code error;
  const auto whole = std::filesystem::absolute(path, error);  // the program may change its folder
  const std::string name = error ? path : whole.string();
  const std::lock_guard lock(mutex_);
  const bool known = std::any_of(models_.begin(), models_.end(),
                                 [&](const Model& model) { return model.path == name; });
  if (!known) models_.push_back({.path = name});
}

ModelWeights Models::of(const std::string& norm, std::string_view bytes, bool search) {
  const std::lock_guard lock(mutex_);
  for (Model& model : models_) {
    if (!model.read) read(model);
    const auto at = model.norms.find(norm);
    if (at == model.norms.end() || at->second != bytes) continue;
    if (search && !model.searched) search_weights(model);
    return {model.fingerprint, search ? model.weights : nullptr};
  }
  return {};
}

// A file that cannot be read is no model whose layers we meet.
void Models::read(Model& model) {
  model.read = true;
  try {
    const weights::GgufFile file = weights::read_gguf(model.path);
    for (const weights::GgufTensor* tensor : weights::attention_norms(file)) {
      model.norms[tensor->name] = weights::tensor_bytes(file, *tensor);
    }
    model.fingerprint = weights::model_fingerprint(file);
  } catch (const Error& error) {
    note(std::string(error.what()) + "; its codes are random");
  }
}

void Models::search_weights(Model& model) {
  model.searched = true;
  std::vector<std::string> refused;
  try {
    const std::string path = weights::find_weights(weights::read_gguf(model.path), refused);
    if (!path.empty()) model.weights = weights::shared_weights(path);
  } catch (const Error& error) {
    refused.push_back(error.what());
  }
  for (const std::string& line : refused) note("weights not used: " + line);
}

std::vector<std::string> Models::paths() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> paths;
  for (const Model& model : models_) paths.push_back(model.path);
  return paths;
}

std::vector<std::string> Models::weights_in_use() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> paths;
  for (const Model& model : models_) {
    if (model.weights != nullptr) paths.push_back(model.weights->path);
  }
  return paths;
}

}  // namespace hata::host
