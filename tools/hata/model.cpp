#include "model.h"

#include <filesystem>

#include "hata/types.h"
#include "output.h"
#include "weights/gguf.h"

namespace hata::cli {

namespace fs = std::filesystem;

void add_model(CLI::App& app, std::string& path, bool required) {
  app.add_option("-m,--model", path,
                 required ? "model file (GGUF)" : "model file (GGUF) instead of the bundled one")
      ->required(required);
}

void add_device(CLI::App& app, eval::Device& device) {
  app.add_option_function<std::string>(
         "--device",
         [&device](const std::string& name) {
           device = name == "cuda" ? eval::Device::cuda : eval::Device::cpu;
         },
         "what reads the documents: cpu, or cuda where llama.cpp was built with CUDA")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->default_str("cpu");
}

eval::Model open_model(const std::string& given, eval::Device device) {
  const std::string path = given.empty() ? bundled_model() : given;
  (void)weights::read_gguf(path);
  Progress progress;
  progress.show("loading {}", path);
  return eval::Model(path, device);
}

std::string executable_folder() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error) throw Error("cannot find this program's own path: " + error.message());
  return self.parent_path();
}

std::string bundled_model() {
  const fs::path here = executable_folder();
  const std::string name = "hata-tiny-25m-q8_0.gguf";
  std::string tried;
  for (const fs::path& folder :
       {here / "models", here / "../share/hata/models", fs::path(HATA_SOURCE_DIR) / "models"}) {
    if (fs::exists(folder / name)) return (folder / name).lexically_normal();
    tried += "\n  " + folder.lexically_normal().string();
  }
  throw Error(name + " is in none of these folders; name a model with -m:" + tried);
}

}  // namespace hata::cli
