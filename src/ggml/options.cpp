#include "ggml/options.h"

#include <algorithm>
#include <cstdlib>

#include "core/numbers.h"

namespace hata::host {
namespace {

[[noreturn]] void bad_value(std::string_view key, std::string_view value, std::string_view want) {
  throw Error("option " + std::string(key) + "=" + std::string(value) + ": want " +
              std::string(want));
}

int64_t parse_int(std::string_view key, std::string_view value, int64_t min, int64_t max) {
  int64_t number = 0;
  if (!read_number(value, number) || number < min || number > max) {
    bad_value(key, value,
              "a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return number;
}

bool parse_switch(std::string_view key, std::string_view value) {
  if (value == "on" || value == "1") return true;
  if (value == "off" || value == "0") return false;
  bad_value(key, value, "on or off");
}

ScoreRule parse_score(std::string_view key, std::string_view value) {
  if (value == "sum") return ScoreRule::sum;
  if (value == "squares") return ScoreRule::squares;
  bad_value(key, value, "sum or squares");
}

int parse_rbit(std::string_view key, std::string_view value) {
  const int64_t bits = parse_int(key, value, 64, 256);
  if (bits != 64 && bits != 128 && bits != 256) bad_value(key, value, "64, 128 or 256");
  return static_cast<int>(bits);
}

int parse_rerank(std::string_view key, std::string_view value) {
  int factor = 0;
  if (!read_number(value, factor) || factor < 0 || factor == 1 || factor > 16) {
    bad_value(key, value, "0 (off) or 2 to 16");
  }
  return factor;
}

std::string parse_method(std::string_view value) {
  if (value == "ggml") return "ggml";
  try {
    (void)make_selector(value, {});
    return std::string(value);
  } catch (const Error& error) {
    throw Error("option method=" + std::string(value) + ": " + error.what() +
                "; or ggml (hands off)");
  }
}

constexpr int64_t kMaxCells = int64_t{1} << 31;

struct Key {
  std::string_view name;
  void (*set)(Options& options, std::string_view key, std::string_view value);
};

constexpr Key kKeys[] = {
    {"method", [](Options& o, auto, auto value) { o.method = parse_method(value); }},
    {"budget", [](Options& o, auto, auto value) { o.rule.budget = Budget::parse(value); }},
    {"dense-layers",
     [](Options& o, auto, auto value) { o.dense_layers = DenseLayers::parse(value); }},
    {"min-ctx", [](Options& o, auto key,
                   auto value) { o.rule.min_ctx = parse_int(key, value, 0, kMaxCells); }},
    {"sink", [](Options& o, auto key,
                auto value) { o.hata.sink = static_cast<int>(parse_int(key, value, 0, 1 << 20)); }},
    {"recent", [](Options& o, auto, auto value) { o.hata.recent = Recent::parse(value); }},
    {"lengths",
     [](Options& o, auto key, auto value) { o.hata.lengths = parse_switch(key, value); }},
    {"score", [](Options& o, auto key, auto value) { o.hata.score = parse_score(key, value); }},
    {"rerank", [](Options& o, auto key, auto value) { o.hata.rerank = parse_rerank(key, value); }},
    {"weights", [](Options& o, auto, auto value) { o.weights = value; }},
    {"rbit", [](Options& o, auto key, auto value) { o.hata.rbit = parse_rbit(key, value); }},
    {"seed",
     [](Options& o, auto key, auto value) {
       o.hata.seed = static_cast<uint64_t>(parse_int(key, value, 0, INT64_MAX));
     }},
    {"max-rows",
     [](Options& o, auto key, auto value) { o.max_rows = parse_int(key, value, 1, 64); }},
    {"prefill", [](Options& o, auto key, auto value) { o.prefill = parse_switch(key, value); }},
    {"huge-pages",
     [](Options& o, auto key, auto value) { o.huge_pages = parse_switch(key, value); }},
    {"observe", [](Options& o, auto key, auto value) { o.observe = parse_switch(key, value); }},
    {"verify", [](Options& o, auto key, auto value) { o.verify = parse_switch(key, value); }},
    {"stats", [](Options& o, auto key, auto value) { o.stats = parse_switch(key, value); }},
    {"quiet", [](Options& o, auto key, auto value) { o.quiet = parse_switch(key, value); }},
    {"probe", [](Options& o, auto key, auto value) { o.probe = parse_switch(key, value); }},
};

void set_option(Options& options, std::string_view word) {
  const size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  const auto key = std::find_if(std::begin(kKeys), std::end(kKeys),
                                [&](const Key& k) { return k.name == name; });
  if (key == std::end(kKeys) || equals == std::string_view::npos) {
    std::string known;
    for (const Key& k : kKeys) known += (known.empty() ? "" : ", ") + std::string(k.name);
    throw Error("option '" + std::string(word) + "' is not key=value with one of the keys " +
                known);
  }
  key->set(options, name, word.substr(equals + 1));
}

}  // namespace

// Words are parted by blanks; a backslash takes the next character as it is.
Options parse_options(std::string_view text) {
  Options options;
  std::string word;
  for (size_t at = 0; at <= text.size(); ++at) {
    const bool end = at == text.size() || text[at] == ' ' || text[at] == '\t' || text[at] == '\n';
    if (!end) {
      if (text[at] == '\\' && at + 1 < text.size()) ++at;
      word += text[at];
    } else if (!word.empty()) {
      set_option(options, word);
      word.clear();
    }
  }
  return options;
}

Options options_of_environment() {
  const char* text = std::getenv("HATA_OPTIONS");
  try {
    return parse_options(text != nullptr ? text : "");
  } catch (const Error& error) {
    throw Error(std::string("HATA_OPTIONS: ") + error.what());
  }
}

}  // namespace hata::host
