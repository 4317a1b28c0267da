#include "eval_output.h"

#include <set>

#include "eval/report.h"

namespace hata::cli {
namespace {

std::string percent(const Json& share) {
  return share.is_null() ? "" : fmt::format("{:.1f}", 100 * share.get<double>());
}

std::string points(const Json& share) {
  return share.is_null() ? "" : fmt::format("{:+.1f}", 100 * share.get<double>());
}

template <class Write>
std::string interval(const Json& estimate, Write&& write) {
  if (estimate.is_null()) return "";
  return fmt::format("{} [{}, {}]", write(estimate["mean"]), write(estimate["low"]),
                     write(estimate["high"]));
}

std::string plain(const Json& value) {
  return value.is_null() ? "" : value.is_string() ? value.get<std::string>() : value.dump();
}

template <class Write>
std::string figure(const Json& value, Write&& write) {
  return value.is_null() ? "" : write(value.get<double>());
}

// What names a setting, in every table.
std::vector<Column> setting_columns() {
  return {{"method", false, [](const Json& row) { return plain(row["method"]); }},
          {"budget", true, [](const Json& row) { return plain(row["budget"]); }},
          {"dense layers", true, [](const Json& row) { return plain(row["dense_layers"]); }}};
}

std::vector<Column> main_columns(const Json& against) {
  std::vector<Column> columns = setting_columns();
  const auto add = [&](const char* title, std::function<std::string(const Json&)> value) {
    columns.push_back({title, true, std::move(value)});
  };
  add("n", [](const Json& row) { return row["mean"].is_null() ? "" : plain(row["mean"]["n"]); });
  add("mean, %", [](const Json& row) { return interval(row["mean"], percent); });
  add("to dense, points", [](const Json& row) { return interval(row["difference"], points); });
  add("verdict", [](const Json& row) { return plain(row["verdict"]); });
  if (!against.is_null()) {
    const std::string title = fmt::format("to {}, points", against.get<std::string>());
    columns.push_back({title, true, [](const Json& row) {
                         return row.contains("against") ? interval(row["against"], points) : "";
                       }});
  }
  add("to choose", [](const Json& row) { return figure(row["choose_bytes"], human_bytes); });
  add("to attend", [](const Json& row) { return figure(row["attend_bytes"], human_bytes); });
  add("of dense, %", [](const Json& row) { return percent(row["share_of_bytes"]); });
  add("mass kept, %", [](const Json& row) { return percent(row["kept"]["all"]); });
  add("of far, %", [](const Json& row) { return percent(row["kept"]["far"]); });
  add("recall, %", [](const Json& row) { return percent(row["recall"]["all"]); });
  add("of far, %", [](const Json& row) { return percent(row["recall"]["far"]); });
  add("time per step", [](const Json& row) { return figure(row["ns_per_step"], human_time); });
  return columns;
}

std::vector<Column> task_columns(const std::vector<Json>& rows) {
  std::vector<Column> columns = setting_columns();
  std::set<std::string> tasks;
  for (const Json& row : rows) {
    for (const auto& [task, estimate] : row["tasks"].items()) tasks.insert(task);
  }
  for (const std::string& task : tasks) {
    columns.push_back({task, true, [task](const Json& row) {
                         return row["tasks"].contains(task) ? percent(row["tasks"][task]["mean"])
                                                            : "";
                       }});
  }
  return columns;
}

std::vector<Column> text_columns() {
  const auto number = [](const char* key) {
    return [key](const Json& row) { return fmt::format("{:.4f}", row[key].get<double>()); };
  };
  return {{"text", false, [](const Json& row) { return plain(row["task"]); }},
          {"setting", false, [](const Json& row) { return plain(row["setting"]); }},
          {"tokens", true, [](const Json& row) { return plain(row["n"]); }},
          {"KL to dense, nats", true, number("kl")},
          {"perplexity", true, number("perplexity")},
          {"same token, %", true, [](const Json& row) { return percent(row["same"]); }}};
}

std::vector<Json> of_length(const Json& rows, int64_t n_ctx) {
  std::vector<Json> some;
  for (const Json& row : rows) {
    if (row["n_ctx"] == n_ctx) some.push_back(row);
  }
  return some;
}

std::string title(const Json& summary, int64_t n_ctx) {
  const std::string length = n_ctx > 0 ? fmt::format("{} tokens", n_ctx) : "lengths as in the file";
  return fmt::format("{}, {}\n\n", summary["settings"]["model"].get<std::string>(), length);
}

std::string md(const Json& summary) {
  std::set<int64_t> lengths;
  for (const Json& row : summary["rows"]) lengths.insert(row["n_ctx"].get<int64_t>());
  std::string text;
  for (const int64_t n_ctx : lengths) {
    const auto rows = of_length(summary["rows"], n_ctx);
    const auto texts = of_length(summary["text"], n_ctx);
    text += (text.empty() ? "" : "\n") + title(summary, n_ctx) +
            render_rows(Format::md, rows, main_columns(summary["against"]));
    const auto columns = task_columns(rows);
    if (columns.size() > setting_columns().size()) {
      text += "\nRight answers in percent:\n\n" + render_rows(Format::md, rows, columns);
    }
    if (!texts.empty()) text += "\n" + render_rows(Format::md, texts, text_columns());
  }
  return text;
}

void put_estimate(const Json& estimate, const std::string& name, Json& row) {
  for (const char* key : {"mean", "low", "high"}) {
    row[name + (key == std::string("mean") ? "" : std::string("_") + key)] =
        estimate.is_null() ? Json() : estimate[key];
  }
}

// One row a length, setting and task; the task "mean" is over all of them.
Json flat_row(const Json& row, const std::string& task, const Json& estimate, const Json& against) {
  Json flat;
  for (const char* key : {"n_ctx", "method", "budget", "dense_layers"}) flat[key] = row[key];
  flat["task"] = task;
  flat["n"] = estimate["n"];
  put_estimate(estimate, "accuracy", flat);
  put_estimate(against["difference"], "difference", flat);
  flat["verdict"] = against["verdict"];
  if (task == "mean") {
    put_estimate(row.contains("against") ? row["against"] : Json(), "against", flat);
  }
  for (const char* region : {"all", "sinks", "recent", "far"}) {
    flat[std::string("kept_") + region] = row["kept"][region];
    flat[std::string("recall_") + region] = row["recall"][region];
  }
  for (const char* key :
       {"keys", "choose_bytes", "attend_bytes", "share_of_bytes", "ns_per_step"}) {
    flat[key] = row[key];
  }
  return flat;
}

std::vector<Json> flat_rows(const Json& summary) {
  std::vector<Json> rows;
  for (const Json& row : summary["rows"]) {
    if (row["mean"].is_null()) continue;
    for (const auto& [task, estimate] : row["tasks"].items()) {
      rows.push_back(flat_row(row, task, estimate, estimate));
    }
    rows.push_back(flat_row(row, "mean", row["mean"], row));
  }
  return rows;
}

}  // namespace

std::string render_evaluation(const std::string& format, const Json& summary,
                              const eval::Results& results) {
  if (format == "html") return eval::render_report(summary, results);
  if (format == "md") return md(summary);
  if (format == "json") return summary.dump(2) + "\n";
  return render_rows(parse_format(format), flat_rows(summary), {});
}

}  // namespace hata::cli
