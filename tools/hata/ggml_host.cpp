#include "ggml_host.h"

#include <cstdlib>
#include <memory>

#include "hata/ggml.h"
#include "hata/types.h"

namespace hata::cli {

std::string HostStats::line() const {
  if (!json.value("at_work", false)) return "dense: " + json.value("why_off", std::string());
  return fmt::format("{:.2f} % of the keys, {} of {} read", 100 * share_of_keys(),
                     human_bytes(bytes_read()), human_bytes(dense_bytes));
}

void configure_host(const std::string& options) {
  if (const char* problem = hata_ggml_configure(options.c_str())) throw Error(problem);
}

HostStats host_stats() {
  const std::unique_ptr<char, void (*)(void*)> text(hata_ggml_stats_json(), std::free);
  if (text == nullptr) throw Error("out of memory for statistics");
  HostStats stats;
  stats.json = Json::parse(text.get());
  stats.keys_attended = stats.json.at("keys_attended");
  stats.keys_valid = stats.json.at("keys_valid");
  const Json& bytes = stats.json.at("bytes");
  stats.choose_bytes = bytes.at("choose");
  stats.attend_bytes = bytes.at("attend");
  stats.dense_bytes = bytes.at("dense");
  return stats;
}

void reset_host_stats() { hata_ggml_reset_stats(); }

}  // namespace hata::cli
