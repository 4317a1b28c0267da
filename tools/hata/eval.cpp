// hata eval: every method on every task, question and answer through sparse decode steps.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "commands.h"
#include "eval/jsonl.h"
#include "eval/run.h"
#include "eval/summary.h"
#include "eval_output.h"
#include "hata/types.h"
#include "model.h"
#include "options.h"
#include "output.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model;
  std::vector<std::string> tasks;
  std::vector<std::string> jsonl, text;  ///< files
  std::vector<int64_t> contexts = {8192};
  std::vector<std::string> methods = {"exact-prob", "exact-logit", "hata", "hata-paper", "random"};
  std::vector<Budget> budgets = {Budget::parse("1.56%")};
  std::vector<DenseLayers> dense_layers = {DenseLayers{}};
  int64_t min_ctx = 1024;
  std::string weights = "auto";
  eval::RunOptions run;
  std::string states;
  double states_gb = 4;
  std::string format = "md";
  std::string out, resume, export_to, against;
};

constexpr const char* kFormats[] = {"md", "csv", "json", "html"};

// --- where results go

void check_writable(const std::string& path) {
  if (!std::ofstream(path, std::ios::app).good()) {
    throw Error(path + ": cannot be written; name another file or folder with --out");
  }
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  if (!(out << text).flush()) throw Error(path + ": cannot be written");
}

/// A folder gets every format and the results themselves; a file the format of -o.
class Output {
 public:
  explicit Output(const Options& options)
      : format_(options.format), path_(options.out), against_(options.against) {
    std::error_code error;
    is_folder_ = !path_.empty() && (path_.back() == '/' || fs::is_directory(path_, error));
    if (is_folder_) {
      fs::create_directories(path_, error);
      for (const char* format : kFormats) check_writable(report(format));
    } else if (!path_.empty()) {
      check_writable(path_);
    }
  }

  std::string results(const std::string& resume) const {
    return resume.empty() && is_folder_ ? (fs::path(path_) / "results.jsonl").string() : resume;
  }

  void put(const eval::Results& results) const {
    const Json summary = eval::summarize(results, against_);
    if (path_.empty()) return write(render_evaluation(format_, summary, results));
    if (!is_folder_) return write_file(path_, render_evaluation(format_, summary, results));
    for (const char* format : kFormats) {
      write_file(report(format), render_evaluation(format, summary, results));
    }
  }

 private:
  std::string report(const char* format) const {
    return fs::path(path_) / (std::string("eval.") + format);
  }

  std::string format_, path_, against_;
  bool is_folder_ = false;
};

// --- the run

eval::RunOptions run_options(const Options& options) {
  eval::RunOptions run = options.run;
  run.tasks = options.tasks;
  for (const std::string& file : options.jsonl) run.tasks.push_back("jsonl:" + file);
  for (const std::string& file : options.text) run.tasks.push_back("text:" + file);
  run.tasks = eval::expand_tasks(run.tasks.empty() ? std::vector<std::string>{"words"} : run.tasks);
  run.contexts = options.contexts;
  run.settings = eval::make_settings(eval::expand_methods(options.methods), options.budgets,
                                     options.dense_layers,
                                     {.min_ctx = options.min_ctx, .weights = options.weights});
  return run;
}

eval::Listener listener(Progress& progress) {
  return {.progress =
              [&](const std::string& what, double share, double left) {
                progress.show("{:.0f} %{}  {}", 100 * share,
                              left < 0 ? "" : ", " + human_duration(left) + " left", what);
              },
          .note =
              [&](const std::string& line) {
                progress.clear();
                fmt::print(stderr, "hata: {}\n", line);
              }};
}

void run_tasks(const Options& options, const eval::Model& model, const eval::RunOptions& run) {
  const uint64_t fingerprint = eval::file_fingerprint(model.path());
  const Output output(options);
  const eval::States states(options.states, static_cast<int64_t>(options.states_gb * 1e9),
                            fingerprint);
  eval::ResultsFile file(output.results(options.resume),
                         eval::settings_json(run, model, fingerprint));
  Progress progress;
  const eval::Listener listens = listener(progress);
  if (file.continued() > 0) {
    listens.note(fmt::format("{} results are there already; going on", file.continued()));
  }
  eval::run(model, run, states, file, listens);
  progress.clear();
  output.put(file.results());
  const int64_t errors = file.results().errors;
  if (errors == 0) return;
  throw Error(
      fmt::format("{} of the documents and settings could not be asked (named above); all "
                  "other results are complete",
                  errors));
}

void export_tasks(const Options& options, const eval::Model& model, const eval::RunOptions& run) {
  std::ofstream out(options.export_to, std::ios::binary);
  const int64_t n = eval::export_jsonl(model, run, out);
  if (!out.flush()) throw Error(options.export_to + ": cannot be written");
  fmt::print(stderr, "hata: {} lines written to {}\n", n, options.export_to);
}

void run(const Options& options) {
  const eval::Model model = open_model(options.model, eval::Device::cpu);
  for (const DenseLayers& layers : options.dense_layers) {
    layers.check(model.n_layers(), model.path());
  }
  check_weights(options.weights, model.path());
  const eval::RunOptions run = run_options(options);
  if (!options.export_to.empty()) return export_tasks(options, model, run);
  run_tasks(options, model, run);
}

// --- options

std::string task_list() {
  std::string text;
  for (const auto& task : eval::task_help())
    text += fmt::format("  {:<22}{}\n", task.name, task.text);
  return text;
}

// An option whose values must please `check`, which throws Error.
template <class Check>
void add_checked_list(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                      const std::string& help, Check check) {
  app.add_option(name, values, help)
      ->delimiter(',')
      ->check([check](const std::string& value) {
        try {
          (void)check(std::vector<std::string>{value});
          return std::string();
        } catch (const Error& error) {
          return std::string(error.what());
        }
      })
      ->capture_default_str();
}

void add_what(CLI::App& app, Options& options) {
  add_checked_list(app, "--task", options.tasks,
                   "tasks (a comma list), listed below; default: words", eval::expand_tasks);
  app.add_option("--jsonl", options.jsonl, "samples of your own: a file of JSON lines");
  app.add_option("--text", options.text, "plain text, compared with dense attention");
  app.add_option("-c,--ctx", options.contexts, "tokens of a document (a comma list)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{256}, int64_t{1} << 24))
      ->capture_default_str();
  add_checked_list(app, "--method", options.methods,
                   "methods (a comma list), listed below; all: each as published; windowed: the "
                   "others with HATA's window",
                   eval::expand_methods);
  add_budgets(app, options.budgets);
  add_dense_layers(app, options.dense_layers);
  app.add_option("--against", options.against,
                 "a method of the list: all others are compared with it, too, question by question")
      ->check(CLI::Validator(
          [&options](std::string& name) {
            const auto methods = eval::expand_methods(options.methods);
            const bool known = std::find(methods.begin(), methods.end(), name) != methods.end();
            return known ? std::string() : "'" + name + "' is not one of the methods asked for";
          },
          "METHOD"));
  add_min_ctx(app, options.min_ctx);
  add_weights(app, options.weights);
}

void add_how(CLI::App& app, Options& options) {
  app.add_option("--samples", options.run.samples,
                 "documents a task and length (default: 8, or all of a file)")
      ->check(CLI::PositiveNumber);
  app.add_option("--per-document", options.run.per_document, "questions about a document")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seed", options.run.seed, "other documents")->capture_default_str();
  app.add_option("--inspect", options.run.inspect,
                 "questions a document whose first answer is compared with exact attention")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--states", options.states,
                 "a folder that keeps read documents for later runs (65 MB for 8K tokens of the "
                 "bundled model)");
  app.add_option("--states-limit", options.states_gb, "gigabytes in it; the oldest go first")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_threads(app, options.run.threads);
  add_device(app, options.run.device);
}

void add_outputs(CLI::App& app, Options& options) {
  auto* format = app.add_option("-o,--output", options.format, "md, csv, json, jsonl or html")
                     ->check(CLI::IsMember({"md", "csv", "json", "jsonl", "html"}))
                     ->capture_default_str();
  app.add_flag_callback(
         "--json", [&options] { options.format = "json"; }, "the same as -o json")
      ->excludes(format);
  app.add_option("--out", options.out,
                 "a file for the output, or a folder for all formats and the results");
  app.add_option("--resume", options.resume,
                 "a file that results are appended to; an interrupted run goes on from it");
  app.add_option("--export-jsonl", options.export_to,
                 "write the tasks to a file for other harnesses, and ask nothing");
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* eval_app =
      app.add_subcommand("eval", "right answers per task and method, over long documents");
  eval_app->footer(
      "Tasks:\n" + task_list() + "\nMethods:\n" + methods_help() +
      "\nExample:\n  hata eval -c 8192 --method all --budget 64,256,1.56% --out eval/");
  add_model(*eval_app, options->model, false);
  add_what(*eval_app, *options);
  add_how(*eval_app, *options);
  add_outputs(*eval_app, *options);
  eval_app->callback([options] { run(*options); });
}

}  // namespace hata::cli
