#include "output.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "hata/types.h"

namespace hata::cli {
namespace {

[[noreturn]] void fail_output() {
  throw Error(fmt::format("standard output: cannot write: {}", std::strerror(errno)));
}

std::string csv_cell(const Json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  std::string quoted = "\"";
  for (const char c : value.get<std::string>()) quoted.append(c == '"' ? 2 : 1, c);
  return quoted + '"';
}

std::string csv_text(const std::vector<Json>& rows) {
  std::string text;
  for (const auto& [key, value] : rows.front().items()) text += (text.empty() ? "" : ",") + key;
  text += '\n';
  for (const Json& row : rows) {
    for (const auto& [key, value] : row.items()) text += csv_cell(value) + ",";
    text.back() = '\n';
  }
  return text;
}

std::string pad(const std::string& text, size_t width, bool right_aligned) {
  return right_aligned ? fmt::format("{:>{}}", text, width) : fmt::format("{:<{}}", text, width);
}

std::string md_text(const std::vector<Json>& rows, const std::vector<Column>& columns) {
  std::vector<std::vector<std::string>> cells;  // [column][title, then rows]
  std::vector<size_t> widths;
  for (const Column& column : columns) {
    auto& texts = cells.emplace_back(1, column.title);
    for (const Json& row : rows) texts.push_back(column.value(row));
    size_t width = 2;
    for (const auto& text : texts) width = std::max(width, text.size());
    widths.push_back(width);
  }
  std::string table;
  for (size_t line = 0; line <= rows.size(); ++line) {
    std::string text = "|", rule = "|";
    for (size_t c = 0; c < columns.size(); ++c) {
      text += " " + pad(cells[c][line], widths[c], columns[c].right_aligned) + " |";
      rule += " " + std::string(widths[c] - 1, '-') + (columns[c].right_aligned ? ": |" : "- |");
    }
    table += text + "\n";
    if (line == 0) table += rule + "\n";
  }
  return table;
}

}  // namespace

void write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail_output();
}

void flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) fail_output();
}

Format parse_format(const std::string& name) {
  if (name == "md") return Format::md;
  if (name == "csv") return Format::csv;
  if (name == "json") return Format::json;
  if (name == "jsonl") return Format::jsonl;
  throw Error(fmt::format("--output {}: unknown format; give md, csv, json or jsonl", name));
}

std::string render_rows(Format format, const std::vector<Json>& rows,
                        const std::vector<Column>& columns) {
  if (rows.empty()) return "";
  std::string text;
  switch (format) {
    case Format::md:
      return md_text(rows, columns);
    case Format::csv:
      return csv_text(rows);
    case Format::json:
      return Json(rows).dump(2) + "\n";
    case Format::jsonl:
      for (const Json& row : rows) text += row.dump() + "\n";
  }
  return text;
}

void print_rows(Format format, const std::vector<Json>& rows, const std::vector<Column>& columns) {
  write(render_rows(format, rows, columns));
}

Progress::Progress() : enabled_(isatty(STDERR_FILENO) != 0) {}

void Progress::draw(const std::string& text) {
  fmt::print(stderr, "\r\033[K{}", text);
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::clear() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
  drawn_ = false;
}

std::string human_bytes(double bytes) {
  static constexpr std::array kUnits = {"B", "KB", "MB", "GB", "TB"};
  size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < kUnits.size(); ++unit) bytes /= 1000;
  const int decimals = unit == 0 ? 0 : bytes < 10 ? 2 : 1;
  return fmt::format("{:.{}f} {}", bytes, decimals, kUnits[unit]);
}

std::string human_time(double ns) {
  if (ns < 1e6) return fmt::format("{:.1f} us", ns / 1e3);
  if (ns < 1e9) return fmt::format("{:.2f} ms", ns / 1e6);
  return fmt::format("{:.2f} s", ns / 1e9);
}

std::string human_duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds);
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace hata::cli
