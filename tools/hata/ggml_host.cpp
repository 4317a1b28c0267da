#include "ggml_host.h"

namespace hata::cli {

std::string HostStats::line() const {
  if (!json.value("at_work", false)) return "dense: " + json.value("why_off", std::string());
  return fmt::format("{:.2f} % of the keys, {} of {} read", 100 * share_of_keys(),
                     human_bytes(bytes_read()), human_bytes(dense_bytes));
}

HostStats host_stats() {
  HostStats stats;
  stats.json = eval::host_stats();
  stats.keys_attended = stats.json.at("keys_attended");
  stats.keys_valid = stats.json.at("keys_valid");
  const Json& bytes = stats.json.at("bytes");
  stats.choose_bytes = bytes.at("choose");
  stats.attend_bytes = bytes.at("attend");
  stats.dense_bytes = bytes.at("dense");
  return stats;
}

}  // namespace hata::cli
