#include "ggml/cuda_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

namespace hata::host {
namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "libhata-cuda.so";

const char* named_library() {
  const char* name = std::getenv("HATA_CUDA_LIB");
  return name != nullptr && *name != '\0' ? name : nullptr;
}

/// Beside this library, where it is installed or built.
std::string library_beside() {
  Dl_info here{};
  if (dladdr(reinterpret_cast<const void*>(&library_beside), &here) == 0) return {};
  const fs::path folder = fs::path(here.dli_fname).parent_path();
  for (const fs::path& path : {folder / kName, folder / "../cuda" / kName}) {
    std::error_code error;
    if (fs::exists(path, error)) return path.string();
  }
  return {};
}

struct Loaded {
  CudaLibrary library;
  std::string failure;
};

Loaded load() {
  Loaded result;
  const char* named = named_library();
  const std::string path = named != nullptr ? named : library_beside();
  if (path.empty()) {
    result.failure = std::string(kName) + " is not beside libhata-ggml.so";
    return result;
  }
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    result.failure = dlerror();
    return result;
  }
#define HATA_BIND(name)                                                            \
  result.library.name = reinterpret_cast<decltype(&::name)>(dlsym(handle, #name)); \
  if (result.library.name == nullptr && result.failure.empty()) {                  \
    result.failure = path + " has no function " #name;                             \
  }
  HATA_CUDA_FUNCTIONS(HATA_BIND)
#undef HATA_BIND
  result.library.stands_in = dlsym(handle, "hata_cuda_stands_in") != nullptr;
  return result;
}

}  // namespace

const CudaLibrary* CudaLibrary::get(std::string& why) {
  static const auto* loaded = new Loaded(load());
  why = loaded->failure;
  return loaded->failure.empty() ? &loaded->library : nullptr;
}

bool CudaLibrary::stand_in() {
  static const bool result = [] {
    std::string why;
    const CudaLibrary* library = named_library() != nullptr ? get(why) : nullptr;
    return library != nullptr && library->stands_in;
  }();
  return result;
}

}  // namespace hata::host
