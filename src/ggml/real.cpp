#include "ggml/real.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "ggml/log.h"

namespace hata::host {
namespace {

constexpr const char* kMark = "ggml_backend_graph_compute_async";  // any copy of ggml defines it

/// A library (or the program) in memory.
struct Object {
  std::string name;
  uintptr_t begin = UINTPTR_MAX;
  uintptr_t end = 0;

  bool holds(const void* address) const {
    const auto at = reinterpret_cast<uintptr_t>(address);
    return begin <= at && at < end;
  }
};

int add_object(dl_phdr_info* info, size_t, void* list) {
  Object object{.name = info->dlpi_name};
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    object.begin = std::min(object.begin, begin);
    object.end = std::max(object.end, begin + segment.p_memsz);
  }
  static_cast<std::vector<Object>*>(list)->push_back(std::move(object));
  return 0;
}

std::vector<Object> loaded_objects() {
  std::vector<Object> objects;
  dl_iterate_phdr(add_object, &objects);
  return objects;
}

/// What a lookup through the object finds: in itself, then in what it depends on.
/// (RTLD_NEXT sees nothing that was loaded with RTLD_LOCAL.)
void* lookup(const Object& object, const char* function) {
  if (object.name.empty()) return nullptr;  // the program: its scope begins with this library
  void* handle = dlopen(object.name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (handle == nullptr) return nullptr;
  void* found = dlsym(handle, function);
  dlclose(handle);
  return found;
}

/// From now on the object is not unloaded: we hold pointers into it.
void keep_loaded(const Object& object) {
  dlopen(object.name.c_str(), RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

template <class Fn>
void bind(std::string& missing, const Object& object, const char* name, Fn*& function) {
  void* found = lookup(object, name);
  function = object.holds(found) ? reinterpret_cast<Fn*>(found) : nullptr;
  if (function == nullptr && missing.empty()) missing = name;
}

/// The copies of ggml in this process, and which caller uses which. Never destroyed.
class Registry {
 public:
  const Real& for_caller(const void* caller) {
    const int n = n_ranges_.load(std::memory_order_acquire);
    for (int i = 0; i < n; ++i) {
      const Range& range = ranges_[static_cast<size_t>(i)];
      if (range.begin <= caller && caller < range.end) return *range.real;
    }
    return find(caller);
  }

  const Real* first() {
    const std::lock_guard lock(mutex_);
    scan(loaded_objects());
    return copies_.empty() ? nullptr : copies_.front().real.get();
  }

  bool several() const { return several_.load(std::memory_order_relaxed); }

 private:
  struct Copy {
    Object object;
    std::unique_ptr<Real> real;
  };
  struct Range {
    const void* begin;
    const void* end;
    const Real* real;
  };

  const Real& find(const void* caller) {
    const std::lock_guard lock(mutex_);
    const auto objects = loaded_objects();
    scan(objects);
    if (copies_.empty()) {
      say("a function of ggml was called, but no loaded library defines it; cannot go on");
      std::abort();
    }
    for (const Object& object : objects) {
      if (object.holds(caller)) return remember(object, used_by(object));
    }
    return *copies_.front().real;
  }

  /// Adds copies that were loaded since.
  void scan(const std::vector<Object>& objects) {
    for (const Object& object : objects) {
      const void* found = lookup(object, kMark);
      if (!object.holds(found) || object.holds(&instance_mark) || known(object)) continue;
      keep_loaded(object);
      auto real = std::make_unique<Real>();
      real->path = object.name;
#define HATA_BIND(name) bind(real->missing, object, #name, real->name);
      HATA_HOOKED_FUNCTIONS(HATA_BIND)
      HATA_USED_FUNCTIONS(HATA_BIND)
#undef HATA_BIND
#define HATA_BIND(name) bind(real->missing_on_device, object, #name, real->name);
      HATA_DEVICE_FUNCTIONS(HATA_BIND)
#undef HATA_BIND
      copies_.push_back({object, std::move(real)});
    }
    several_.store(copies_.size() > 1, std::memory_order_relaxed);
  }

  bool known(const Object& object) const {
    for (const Copy& copy : copies_) {
      if (copy.object.begin == object.begin) return true;
    }
    return false;
  }

  const Real& used_by(const Object& object) const {
    const void* found = lookup(object, kMark);
    for (const Copy& copy : copies_) {
      if (copy.object.holds(found)) return *copy.real;
    }
    return *copies_.front().real;
  }

  const Real& remember(const Object& object, const Real& real) {
    const int n = n_ranges_.load(std::memory_order_relaxed);
    if (n < static_cast<int>(ranges_.size())) {
      ranges_[static_cast<size_t>(n)] = {reinterpret_cast<const void*>(object.begin),
                                         reinterpret_cast<const void*>(object.end), &real};
      n_ranges_.store(n + 1, std::memory_order_release);
    }
    return real;
  }

  static constexpr char instance_mark = 0;  // an address inside this library

  std::mutex mutex_;
  std::vector<Copy> copies_;
  std::atomic<bool> several_{false};
  std::array<Range, 64> ranges_{};
  std::atomic<int> n_ranges_{0};
};

Registry& registry() {
  static auto* instance = new Registry;
  return *instance;
}

}  // namespace

const Real& real_for(const void* caller) { return registry().for_caller(caller); }
const Real* first_real() { return registry().first(); }
bool several_copies() { return registry().several(); }

void* find_function(const char* name) {
  for (const Object& object : loaded_objects()) {
    void* found = lookup(object, name);
    if (object.holds(found)) return found;
  }
  return nullptr;
}

}  // namespace hata::host
