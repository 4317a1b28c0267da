#include "eval/host.h"

#include <cstdlib>
#include <memory>
#include <utility>

#include "hata/ggml.h"
#include "hata/types.h"

namespace hata::eval {

void configure_host(const std::string& options) {
  if (const char* problem = hata_ggml_configure(options.c_str())) throw Error(problem);
}

Json host_stats() {
  const std::unique_ptr<char, void (*)(void*)> text(hata_ggml_stats_json(), std::free);
  if (text == nullptr) throw Error("out of memory for statistics");
  return Json::parse(text.get());
}

StageCounters host_counters() {
  const Json stats = host_stats();
  const Json &time = stats.at("time_ns"), &bytes = stats.at("bytes");
  StageCounters c;
  c.encode_ns = time.at("encode");
  c.score_ns = time.at("score");
  c.select_ns = time.at("select");
  c.attend_ns = time.at("attend");
  c.choose_bytes = bytes.at("choose");
  c.attend_bytes = bytes.at("attend");
  c.dense_bytes = bytes.at("dense");
  c.keys_attended = stats.at("keys_attended");
  c.keys_valid = stats.at("keys_valid");
  c.sparse_rows = stats.at("sparse_rows");
  c.dense_rows = stats.at("dense_rows");
  return c;
}

void reset_host_stats() { hata_ggml_reset_stats(); }

Watch::Watch(Recorder* recorder) {
  if (recorder == nullptr) return;
  hata_ggml_set_inspector(
      [](const void* step, void* user) {
        static_cast<Recorder*>(user)->see(*static_cast<const Inspection*>(step));
      },
      recorder);
}

Watch::~Watch() { hata_ggml_set_inspector(nullptr, nullptr); }

PrefillWatch::PrefillWatch(See see) : see_(std::move(see)) {
  hata_ggml_set_prefill_inspector(
      [](const void* step, void* user) {
        (*static_cast<const See*>(user))(*static_cast<const PrefillInspection*>(step));
      },
      &see_);
}

PrefillWatch::~PrefillWatch() { hata_ggml_set_prefill_inspector(nullptr, nullptr); }

}  // namespace hata::eval
