#include "eval/results.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/files.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

constexpr int kVersion = 1;

// Six digits are more than any figure here is good for.
double rounded(double value) { return std::round(value * 1e6) / 1e6; }

template <class T>
Json array_of(const T& values) {
  Json json = Json::array();
  for (const double value : values) json.push_back(rounded(value));
  return json;
}

constexpr std::pair<const char*, int64_t StageCounters::*> kCounters[] = {
    {"encode_ns", &StageCounters::encode_ns},
    {"score_ns", &StageCounters::score_ns},
    {"select_ns", &StageCounters::select_ns},
    {"attend_ns", &StageCounters::attend_ns},
    {"choose_bytes", &StageCounters::choose_bytes},
    {"attend_bytes", &StageCounters::attend_bytes},
    {"dense_bytes", &StageCounters::dense_bytes},
    {"keys_attended", &StageCounters::keys_attended},
    {"keys_valid", &StageCounters::keys_valid},
    {"sparse_rows", &StageCounters::sparse_rows},
    {"dense_rows", &StageCounters::dense_rows}};

Json to_json(const StageCounters& counters) {
  Json json;
  for (const auto& [name, member] : kCounters) json[name] = counters.*member;
  return json;
}

StageCounters counters_from(const Json& json) {
  StageCounters counters;
  for (const auto& [name, member] : kCounters) json.at(name).get_to(counters.*member);
  return counters;
}

// {"layer", "heads": [[rows, mass, kept, best, found], ...]}, the last four per region.
Json to_json(const LayerCounts& layers) {
  Json json = Json::array();
  for (const auto& [layer, heads] : layers) {
    Json row = {{"layer", layer}, {"heads", Json::array()}};
    for (const HeadCounts& h : heads) {
      row["heads"].push_back({h.rows, array_of(h.mass), array_of(h.kept), h.best, h.found});
    }
    json.push_back(row);
  }
  return json;
}

LayerCounts layers_from(const Json& json) {
  LayerCounts layers;
  for (const Json& row : json) {
    auto& heads = layers[row.at("layer").get<int>()];
    for (const Json& head : row.at("heads")) {
      HeadCounts h;
      head.at(0).get_to(h.rows);
      head.at(1).get_to(h.mass);
      head.at(2).get_to(h.kept);
      head.at(3).get_to(h.best);
      head.at(4).get_to(h.found);
      heads.push_back(h);
    }
  }
  return layers;
}

ChosenCells chosen_from(const Json& json) {
  ChosenCells chosen;
  for (const Json& row : json) {
    for (const Json& distances : row.at("heads")) {
      auto& cells = chosen[row.at("layer").get<int>()].emplace_back();
      int32_t cell = 0;
      for (const Json& distance : distances) cells.push_back(cell += distance.get<int32_t>());
    }
  }
  return chosen;
}

Json key_json(const char* type, const DocumentKey& key) {
  return {{"type", type}, {"task", key.task}, {"n_ctx", key.n_ctx}, {"document", key.document}};
}

DocumentKey key_from(const Json& line) {
  return {line.at("task"), line.at("n_ctx"), line.at("document")};
}

// The path and values of the first thing that differs; empty where nothing does.
std::string first_difference(const Json& a, const Json& b, const std::string& path = "") {
  if (a == b) return "";
  if (a.is_object() && b.is_object()) {
    for (const auto& [key, value] : a.items()) {
      std::string here = path;
      here.append(path.empty() ? "" : ".").append(key);
      std::string found = first_difference(value, b.contains(key) ? b[key] : Json(), here);
      if (!found.empty()) return found;
    }
  }
  return path + " is " + a.dump() + " there, " + b.dump() + " here";
}

}  // namespace

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json chosen_json(const ChosenCells& chosen) {
  Json json = Json::array();
  for (const auto& [layer, heads] : chosen) {
    Json row = {{"layer", layer}, {"heads", Json::array()}};
    for (const auto& cells : heads) {
      Json distances = Json::array();
      int32_t last = 0;
      for (const int32_t cell : cells) distances.push_back(cell - std::exchange(last, cell));
      row["heads"].push_back(distances);
    }
    json.push_back(row);
  }
  return json;
}

Json to_json(const Record& record) {
  Json line = key_json("result", record.key);
  line["setting"] = record.setting;
  line["n_tokens"] = record.n_tokens;
  line["queries"] = Json::array();
  for (const QueryResult& q : record.queries) {
    line["queries"].push_back(
        {{"score", q.score}, {"said", q.said}, {"text", q.text}, {"steps", q.steps}, {"ns", q.ns}});
  }
  if (!record.text.kl.empty()) {
    line["text"] = {{"steps", record.text.steps},
                    {"ns", record.text.ns},
                    {"kl", array_of(record.text.kl)},
                    {"nll", array_of(record.text.nll)},
                    {"same", record.text.same}};
  }
  line["counters"] = to_json(record.counters);
  line["layers"] = to_json(record.layers);
  if (!record.chosen.empty()) line["chosen"] = chosen_json(record.chosen);
  return line;
}

Record record_from(const Json& line) {
  Record record;
  record.key = key_from(line);
  line.at("setting").get_to(record.setting);
  line.at("n_tokens").get_to(record.n_tokens);
  for (const Json& q : line.at("queries")) {
    record.queries.push_back({.score = q.at("score"),
                              .said = q.at("said").get<std::vector<Token>>(),
                              .text = q.at("text"),
                              .steps = q.at("steps"),
                              .ns = q.at("ns")});
  }
  if (line.contains("text")) {
    const Json& text = line.at("text");
    text.at("steps").get_to(record.text.steps);
    text.at("ns").get_to(record.text.ns);
    text.at("kl").get_to(record.text.kl);
    text.at("nll").get_to(record.text.nll);
    text.at("same").get_to(record.text.same);
  }
  record.counters = counters_from(line.at("counters"));
  record.layers = layers_from(line.at("layers"));
  if (line.contains("chosen")) record.chosen = chosen_from(line.at("chosen"));
  return record;
}

ResultsFile::ResultsFile(const std::string& path, const Json& settings) : path_(path) {
  results_.settings = settings;
  if (path.empty()) return;
  std::error_code ignored;
  const bool continues = std::filesystem::is_regular_file(path, ignored);
  if (continues) read(read_file(path));
  file_.reset(std::fopen(path.c_str(), "ab"));
  if (file_ == nullptr) {
    throw Error(path + ": cannot write results: " + std::strerror(errno));
  }
  if (!continues || std::filesystem::file_size(path, ignored) == 0) {
    write({{"hata_eval", kVersion}, {"settings", settings}});
  }
}

ResultsFile::~ResultsFile() = default;

void ResultsFile::read(const std::string& bytes) {
  const size_t end = bytes.rfind('\n') + 1;  // what follows was cut off
  int64_t number = 0;
  for (size_t at = 0; at < end; ++number) {
    const size_t eol = bytes.find('\n', at);
    const std::string where = path_ + ", line " + std::to_string(number + 1) + ": ";
    const Json line = Json::parse(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                                  bytes.begin() + static_cast<std::ptrdiff_t>(eol), nullptr, false);
    at = eol + 1;
    if (number == 0) {
      if (!line.is_object() || line.value("hata_eval", 0) != kVersion) {
        throw Error(path_ + ": not a file of results of this version; name another file");
      }
      const std::string other = first_difference(line.at("settings"), results_.settings);
      if (other.empty()) continue;
      throw Error(path_ + ": made with other settings: " + other +
                  "; name another file, or give the settings it was made with");
    }
    try {
      take(line);
    } catch (const nlohmann::json::exception& error) {
      throw Error(where + "not a result (" + error.what() + "); remove the line or the file");
    }
  }
  continued_ = static_cast<int64_t>(results_.records.size());
  if (end < bytes.size() && truncate(path_.c_str(), static_cast<off_t>(end)) != 0) {
    throw Error(path_ + ": cannot write results: " + std::strerror(errno));
  }
}

void ResultsFile::take(const Json& line) {
  const std::string type = line.at("type");
  if (type == "result") results_.records.push_back(record_from(line));
  if (type == "document") results_.documents.push_back(line);
}

bool ResultsFile::has(const DocumentKey& key, const std::string& setting) const {
  return std::any_of(results_.records.begin(), results_.records.end(),
                     [&](const Record& r) { return r.setting == setting && r.key == key; });
}

bool ResultsFile::has_document(const DocumentKey& key) const {
  return std::any_of(results_.documents.begin(), results_.documents.end(),
                     [&](const Json& line) { return key_from(line) == key; });
}

void ResultsFile::add(const Record& record) {
  results_.records.push_back(record);
  if (file_ != nullptr) write(to_json(record));
}

void ResultsFile::add_document(const DocumentKey& key, const Json& shown) {
  Json line = key_json("document", key);
  line.update(shown);
  results_.documents.push_back(line);
  if (file_ != nullptr) write(line);
}

void ResultsFile::add_error(const DocumentKey& key, const std::string& setting,
                            const std::string& what) {
  ++results_.errors;
  Json line = key_json("error", key);
  line["setting"] = setting;
  line["error"] = what;
  if (file_ != nullptr) write(line);
}

void ResultsFile::write(const Json& line) {
  const std::string text = dump(line) + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size() &&
                       std::fflush(file_.get()) == 0;
  if (!written) throw Error(path_ + ": cannot write results: " + std::strerror(errno));
}

}  // namespace hata::eval
