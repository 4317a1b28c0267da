// include/hata/ggml.h, and what runs when the library is loaded and when the program ends.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "ggml/host.h"
#include "ggml/log.h"
#include "hata/ggml.h"

using hata::host::Host;
using hata::host::say;

namespace {

void put(const std::string& text, char* to, size_t n) {
  if (to != nullptr && n > 0) std::snprintf(to, n, "%s", text.c_str());
}

// The self-test in the place of the program.
__attribute__((constructor)) void probe() {
  const char* text = std::getenv("HATA_OPTIONS");
  if (text == nullptr || std::strstr(text, "probe=") == nullptr) return;
  try {
    if (!hata::host::options_of_environment().probe) return;
    std::string reason;
    const int result = Host::get().self_test(reason);
    say(result == 1 ? "the self-test passed" : reason);
    _exit(result == 1 ? 0 : result == 0 ? 1 : 2);
  } catch (const hata::Error& error) {
    say(error.what());
    _exit(1);
  }
}

const pid_t loaded_in = getpid();

__attribute__((destructor)) void print_stats_at_exit() {
  if (getpid() != loaded_in) return;  // a fork tells nothing new
  const std::string text = Host::get().stats_text();
  if (!text.empty()) say(text);
}

}  // namespace

const char* hata_ggml_configure(const char* options) {
  thread_local std::string message;
  try {
    Host::get().configure(options != nullptr ? options : "");
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

int hata_ggml_self_test(char* reason, size_t n) {
  std::string text;
  const int result = Host::get().self_test(text);
  put(text, reason, n);
  return result;
}

int hata_ggml_status(char* reason, size_t n) {
  std::string text;
  const bool at_work = Host::get().at_work(text);
  put(text, reason, n);
  return at_work ? 1 : 0;
}

char* hata_ggml_stats_json() { return strdup(Host::get().stats_json().c_str()); }

void hata_ggml_reset_stats() { Host::get().reset_stats(); }

void hata_ggml_invalidate(const void* begin, size_t bytes) {
  Host::get().caches().written(hata::host::Range::of(begin, bytes));
}

void hata_ggml_set_inspector(void (*fn)(const void* step, void* user), void* user) {
  Host::get().set_inspector({fn, user});
}

void hata_ggml_set_prefill_inspector(void (*fn)(const void* step, void* user), void* user) {
  Host::get().set_prefill_inspector({fn, user});
}
