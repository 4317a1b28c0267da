// The llama.cpp host in our own process: its C interface with errors as exceptions.
#pragma once

#include <functional>
#include <string>

#include "eval/inspect.h"
#include "eval/json.h"
#include "hata/inspect.h"

namespace hata::eval {

/// Tells the host how to attend from now on (hata/ggml.h lists the options). Throws Error where it
/// refuses.
void configure_host(const std::string& options);
/// What it counted since the last reset; hata/ggml.h names the keys.
Json host_stats();
/// The part of it that results keep.
StageCounters host_counters();
void reset_host_stats();

/// While it lives, the recorder sees the steps of the host (nullptr: nobody does).
class Watch {
 public:
  explicit Watch(Recorder* recorder);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
};

/// While it lives, `see` is called with what the host attends to in a prefill.
class PrefillWatch {
 public:
  using See = std::function<void(const PrefillInspection& step)>;
  explicit PrefillWatch(See see);
  ~PrefillWatch();
  PrefillWatch(const PrefillWatch&) = delete;
  PrefillWatch& operator=(const PrefillWatch&) = delete;

 private:
  See see_;
};

}  // namespace hata::eval
