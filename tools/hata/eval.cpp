// hata eval: right answers per task and method, question and answer through sparse decode.
#include <algorithm>
#include <map>

#include "commands.h"
#include "eval/evaluate.h"
#include "ggml_host.h"
#include "hata/types.h"
#include "model.h"
#include "options.h"
#include "output.h"

namespace hata::cli {
namespace {

struct Options {
  std::string model;
  std::vector<int64_t> contexts = {8192};
  std::vector<std::string> methods = {"ggml", "dense", "hata", "hata-paper", "exact", "streaming"};
  std::vector<Budget> budgets = {Budget::parse("1.56%")};
  std::vector<int> dense_layers = {2};
  std::vector<std::string> tasks;
  int questions = 160;
  int per_document = 32;
  uint64_t document_seed = 1;
  int64_t min_ctx = 1024;
  HataOptions hata;
  int threads = 1;
  std::string format = "md";
};

// One way to attend, and its score on the tasks asked so far.
struct Setting {
  MethodOptions method;
  std::map<std::string, int64_t> right = {}, asked = {};  ///< by task
  int64_t steps = 0, ns = 0;
};

bool reads_every_key(const std::string& method) { return method == "ggml" || method == "dense"; }

std::vector<Setting> settings_of(const Options& options) {
  std::vector<Setting> settings;
  for (const std::string& method : options.methods) {
    MethodOptions m{.method = method, .hata = options.hata, .min_ctx = options.min_ctx};
    if (reads_every_key(method)) {
      settings.push_back({.method = m});
      continue;
    }
    for (const int dense_layers : options.dense_layers) {
      for (const Budget& budget : options.budgets) {
        m.dense_layers = dense_layers;
        m.budget = budget;
        settings.push_back({.method = m});
      }
    }
  }
  return settings;
}

class Evaluation {
 public:
  Evaluation(const Options& options, const eval::Model& model)
      : options_(options), model_(model), tokenizer_(model.vocab()) {}

  void run_context(int64_t n_ctx) {
    settings_ = settings_of(options_);
    for (const std::string& task : options_.tasks) {
      for (int asked = 0, document = 0; asked < options_.questions; ++document) {
        const int n = std::min(options_.per_document, options_.questions - asked);
        run_document(task, n_ctx, document, n);
        asked += n;
      }
    }
    for (const Setting& setting : settings_) add_rows(setting, n_ctx);
  }

  Progress& progress() { return progress_; }
  const std::vector<Json>& rows() const { return rows_; }    ///< one a task
  const std::vector<Json>& table() const { return table_; }  ///< one a setting

 private:
  void run_document(const std::string& task, int64_t n_ctx, int number, int n_questions) {
    const eval::Document document =
        eval::make_document(tokenizer_, task, n_ctx, n_questions,
                            options_.document_seed * 1'000'003 + static_cast<uint64_t>(number));
    size_t longest = 0;
    for (const auto& question : document.questions) {
      longest = std::max(longest, question.tokens.size());
    }
    configure_host("method=ggml");
    eval::Session session(
        model_, {.n_ctx = n_ctx + static_cast<int64_t>(longest), .threads = options_.threads});
    session.prefill(document.tokens, [&](int64_t done) {
      progress_.show("{} at {}, document {}: {}/{} tokens read", task, n_ctx, number + 1, done,
                     document.tokens.size());
    });
    for (Setting& setting : settings_) {
      progress_.show("{} at {}, document {}: {}", task, n_ctx, number + 1, setting.method.method);
      configure_host(host_options(setting.method));
      for (const eval::Question& question : document.questions) {
        const eval::Answer answer = eval::ask(session, question, false);
        setting.right[task] += answer.right;
        setting.asked[task] += 1;
        setting.steps += answer.steps;
        setting.ns += answer.ns;
      }
    }
  }

  Json describe(const Setting& setting, int64_t n_ctx) const {
    const bool sparse = !reads_every_key(setting.method.method);
    Json row;
    row["method"] = setting.method.method;
    row["n_ctx"] = n_ctx;
    row["budget"] = sparse ? Json(setting.method.budget.text()) : Json();
    row["dense_layers"] = sparse ? Json(setting.method.dense_layers) : Json();
    return row;
  }

  void add_rows(const Setting& setting, int64_t n_ctx) {
    Json line = describe(setting, n_ctx);
    double sum = 0;
    for (const std::string& task : options_.tasks) {
      Json row = describe(setting, n_ctx);
      const double accuracy =
          static_cast<double>(setting.right.at(task)) / static_cast<double>(setting.asked.at(task));
      row["task"] = task;
      row["questions"] = setting.asked.at(task);
      row["right"] = setting.right.at(task);
      row["accuracy"] = accuracy;
      rows_.push_back(row);
      line["tasks"][task] = accuracy;
      sum += accuracy;
    }
    line["mean"] = sum / static_cast<double>(options_.tasks.size());
    line["tokens_per_second"] =
        static_cast<double>(setting.steps) * 1e9 / static_cast<double>(setting.ns);
    table_.push_back(line);
  }

  const Options& options_;
  const eval::Model& model_;
  eval::LlamaTokenizer tokenizer_;
  Progress progress_;
  std::vector<Setting> settings_;
  std::vector<Json> rows_, table_;
};

std::vector<Column> columns_of(const Options& options) {
  const auto plain = [](const char* key) {
    return [key](const Json& row) {
      const Json& value = row[key];
      return value.is_null() ? "" : value.is_string() ? value.get<std::string>() : value.dump();
    };
  };
  const auto percent = [](double part) { return fmt::format("{:.1f}", 100 * part); };
  std::vector<Column> columns = {{"method", false, plain("method")},
                                 {"context", true, plain("n_ctx")},
                                 {"budget", true, plain("budget")},
                                 {"dense layers", true, plain("dense_layers")}};
  for (const std::string& task : options.tasks) {
    columns.push_back({task, true, [=](const Json& row) { return percent(row["tasks"][task]); }});
  }
  columns.push_back({"mean", true, [=](const Json& row) { return percent(row["mean"]); }});
  columns.push_back({"tokens/s", true, [](const Json& row) {
                       return fmt::format("{:.0f}", row["tokens_per_second"].get<double>());
                     }});
  return columns;
}

void run(const Options& options) {
  const eval::Model model = open_model(options.model);
  for (const int dense_layers : options.dense_layers) {
    check_dense_layers(dense_layers, model.n_layers(), model.path());
  }
  Evaluation evaluation(options, model);
  for (const int64_t n_ctx : options.contexts) evaluation.run_context(n_ctx);
  evaluation.progress().clear();
  const Format format = parse_format(options.format);
  if (format == Format::md) {
    print("{}: right answers in percent, {} questions a task, {} a document\n\n", model.name(),
          options.questions, options.per_document);
  }
  print_rows(format, format == Format::md ? evaluation.table() : evaluation.rows(),
             columns_of(options));
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<Options>();
  options->tasks = eval::task_names();
  CLI::App* eval_app =
      app.add_subcommand("eval", "right answers per task and method, over long documents");
  eval_app->footer(
      "Example:\n  hata eval -c 8192,16384 --method ggml,hata,streaming --budget 1.56%,64");
  add_model(*eval_app, options->model, false);
  eval_app->add_option("-c,--ctx", options->contexts, "tokens of a document (a comma list)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{256}, int64_t{1} << 24))
      ->capture_default_str();
  add_methods(*eval_app, options->methods);
  add_budgets(*eval_app, options->budgets);
  eval_app
      ->add_option("--dense-layers", options->dense_layers,
                   "first layers that attend to every key (a comma list)")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  eval_app->add_option("--task", options->tasks, "tasks (a comma list; all of them by default)")
      ->delimiter(',')
      ->check(CLI::IsMember(eval::task_names()));
  eval_app->add_option("--questions", options->questions, "questions a task")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  eval_app->add_option("--per-document", options->per_document, "questions a document")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  eval_app->add_option("--document-seed", options->document_seed, "other documents")
      ->capture_default_str();
  add_min_ctx(*eval_app, options->min_ctx);
  add_hata_options(*eval_app, options->hata);
  add_threads(*eval_app, options->threads);
  add_format(*eval_app, options->format);
  eval_app->callback([options] { run(*options); });
}

}  // namespace hata::cli
