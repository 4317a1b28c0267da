// What the subcommands print: results on standard output (checked: a full disk is an error), and
// progress on standard error where that is a terminal.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hata::cli {

using Json = nlohmann::ordered_json;

/// Writes to standard output. Throws Error where that fails.
void write(std::string_view text);
/// Ends the output; throws Error where something could not be written.
void flush_output();

template <class... Args>
void print(fmt::format_string<Args...> format, Args&&... args) {
  write(fmt::format(format, std::forward<Args>(args)...));
}

enum class Format { md, csv, json, jsonl };

/// md, csv, json or jsonl.
Format parse_format(const std::string& name);

/// A column of a Markdown table; `value` writes the cell of a row.
struct Column {
  std::string title;
  bool right_aligned;
  std::function<std::string(const Json& row)> value;
};

/// Rows with the same keys; md shows `columns`, the other formats every key.
std::string render_rows(Format format, const std::vector<Json>& rows,
                        const std::vector<Column>& columns);
void print_rows(Format format, const std::vector<Json>& rows, const std::vector<Column>& columns);

/// One line on standard error that is written over and over; silent where it is no terminal.
class Progress {
 public:
  Progress();
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  template <class... Args>
  void show(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled_) draw(fmt::format(format, std::forward<Args>(args)...));
  }
  void clear();

 private:
  void draw(const std::string& text);
  bool enabled_;
  bool drawn_ = false;
};

/// "17.3 MB" (powers of 1000, as bandwidths are).
std::string human_bytes(double bytes);
/// "2.31 ms".
std::string human_time(double ns);
/// "1:05", "2:01:05".
std::string human_duration(double seconds);

}  // namespace hata::cli
