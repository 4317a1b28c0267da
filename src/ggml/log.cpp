#include "ggml/log.h"

#include <unistd.h>

#include <atomic>

namespace hata::host {
namespace {
std::atomic<bool> is_quiet{false};
}

void say(const std::string& line) {
  const std::string text = "hata: " + line + "\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

void note(const std::string& line) {
  if (!is_quiet.load(std::memory_order_relaxed)) say(line);
}

void set_quiet(bool quiet) { is_quiet.store(quiet, std::memory_order_relaxed); }

}  // namespace hata::host
