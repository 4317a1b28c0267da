#include "options.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>

#include "core/words.h"
#include "hata/types.h"
#include "output.h"
#include "weights/weights_file.h"

namespace hata::cli {
namespace {

// Runs a check of the library's and words its error as one of the command line.
template <class Fn>
void checked(const std::string& option, Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    throw CLI::ValidationError(option, error.what());
  }
}

// The same for CLI::App's checks: they name the option.
template <class Fn>
std::string problem(Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

constexpr const char* kBudgetHelp =
    "keys a row may attend to: a number, a part of the context (1.56%), or auto:0.99 (as many as "
    "keep so much of the attention, by trained weights)";
constexpr const char* kDenseLayersHelp =
    "layers that attend to every key: how many of the first ones (2), further ones (0+5+7), or "
    "auto (as the trained weights say)";

void check_method(const std::string& name) { (void)make_selector(name, HataOptions{}); }

}  // namespace

void add_budget(CLI::App& app, const std::string& name, const std::string& help, Budget& budget) {
  app.add_option_function<std::string>(
         name,
         [name, &budget](const std::string& text) {
           checked(name, [&] { budget = Budget::parse(text); });
         },
         help)
      ->default_str(budget.text());
}

void add_budget(CLI::App& app, Budget& budget) { add_budget(app, "--budget", kBudgetHelp, budget); }

void add_dense_layers(CLI::App& app, DenseLayers& dense_layers) {
  app.add_option_function<std::string>(
         "--dense-layers",
         [&dense_layers](const std::string& text) {
           checked("--dense-layers", [&] { dense_layers = DenseLayers::parse(text); });
         },
         kDenseLayersHelp)
      ->default_str(dense_layers.text());
}

void add_min_ctx(CLI::App& app, int64_t& min_ctx) {
  app.add_option("--min-ctx", min_ctx, "rows with fewer keys attend to all of them")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

void add_prefill(CLI::App& app, bool& prefill) {
  app.add_option_function<std::string>(
         "--prefill", [&prefill](const std::string& text) { prefill = text == "on"; },
         "our dense attention for prompts, too: on, or off (ggml's)")
      ->check(CLI::IsMember({"on", "off"}))
      ->default_str("on");
}

void add_huge_pages(CLI::App& app, bool& huge_pages) {
  app.add_option_function<std::string>(
         "--huge-pages", [&huge_pages](const std::string& text) { huge_pages = text == "on"; },
         "caches in huge pages, if the kernel has some: on or off")
      ->check(CLI::IsMember({"on", "off"}))
      ->default_str("on");
}

void add_weights(CLI::App& app, std::string& weights) {
  app.add_option(
         "--weights", weights,
         "trained codes: auto (a file beside the model, hata-<its name>*.gguf), off (random "
         "codes), or a file")
      ->check([](const std::string& given) {
        if (given == "auto" || given == "off") return std::string();
        return problem([&] { (void)weights::shared_weights(given); });
      })
      ->capture_default_str();
}

void add_rbit(CLI::App& app, int& rbit) {
  app.add_option("--rbit", rbit, "bits of a code: 64, 128 or 256")
      ->check(CLI::IsMember({64, 128, 256}))
      ->capture_default_str();
}

void add_rerank(CLI::App& app, int& rerank) {
  app.add_option("--rerank", rerank,
                 "2 to 16: so many times the budget are ranked again by 4-bit keys (0: off)")
      ->check([](const std::string& given) {
        return problem([&] { (void)make_selector("hata:rerank=" + given, HataOptions{}); });
      })
      ->capture_default_str();
}

void add_cache_type(CLI::App& app, std::string& type) {
  app.add_option("--cache-type", type, "type of the cached keys and values: f16")
      ->check([](const std::string& name) {
        if (name == "f16") return std::string();
        return fmt::format("'{}' cannot be read by sparse attention; give f16", name);
      })
      ->capture_default_str();
}

void add_hata_options(CLI::App& app, HataOptions& options) {
  app.add_option("--sink", options.sink, "first tokens that are always kept, inside the budget")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--recent", [&options](const std::string& text) { options.recent = Recent::parse(text); },
         "last tokens that are always kept, inside the budget: a number, a part of it (0.75k), or "
         "-1 "
         "(what trained weights say of a layer, else min(32, budget / 2))")
      ->check([](const std::string& text) { return problem([&] { (void)Recent::parse(text); }); })
      ->default_str("-1");
  app.add_option_function<std::string>(
         "--lengths", [&options](const std::string& text) { options.lengths = text == "on"; },
         "weigh scores by the keys' lengths: on or off (the paper's order)")
      ->check(CLI::IsMember({"on", "off"}))
      ->default_str("on");
  app.add_option_function<std::string>(
         "--score",
         [&options](const std::string& text) {
           options.score = text == "sum" ? ScoreRule::sum : ScoreRule::squares;
         },
         "sum (of the heads' distances) or squares (of each head's agreement beyond chance)")
      ->check(CLI::IsMember({"sum", "squares"}))
      ->default_str("sum");
  add_rerank(app, options.rerank);
  app.add_option("--seed", options.seed, "seed of the random projection")->capture_default_str();
  add_rbit(app, options.rbit);
}

void add_method_options(CLI::App& app, MethodOptions& options) {
  app.add_option("--method", options.method,
                 "a method and its parameters, as in quest:page=32; or ggml (hands off)")
      ->check([](const std::string& name) {
        return name == "ggml" ? std::string() : problem([&] { check_method(name); });
      })
      ->capture_default_str();
  add_budget(app, options.budget);
  add_dense_layers(app, options.dense_layers);
  add_min_ctx(app, options.min_ctx);
  add_prefill(app, options.prefill);
  add_huge_pages(app, options.huge_pages);
  add_weights(app, options.weights);
  add_hata_options(app, options.hata);
}

void add_format(CLI::App& app, std::string& format) {
  auto* output = app.add_option("-o,--output", format, "md, csv, json or jsonl")
                     ->check(CLI::IsMember({"md", "csv", "json", "jsonl"}))
                     ->capture_default_str();
  app.add_flag_callback(
         "--json", [&format] { format = "json"; }, "the same as -o json")
      ->excludes(output);
}

void add_threads(CLI::App& app, int& threads) {
  threads = default_threads();
  app.add_option("-t,--threads", threads, "threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

namespace {

// A comma list of values that T::parse reads; what the vector holds is the default.
template <class T>
void add_parsed_list(CLI::App& app, const char* name, std::vector<T>& values, const char* help) {
  std::string defaults;
  for (const T& value : values) defaults += (defaults.empty() ? "" : ",") + value.text();
  app.add_option_function<std::vector<std::string>>(
         name,
         [name, &values](const std::vector<std::string>& texts) {
           values.clear();
           for (const auto& text : texts) {
             checked(name, [&] { values.push_back(T::parse(text)); });
           }
         },
         help)
      ->delimiter(',')
      ->default_str(defaults);
}

}  // namespace

void add_budgets(CLI::App& app, std::vector<Budget>& budgets) {
  add_parsed_list(app, "--budget", budgets, kBudgetHelp);
}

void add_dense_layers(CLI::App& app, std::vector<DenseLayers>& dense_layers) {
  add_parsed_list(app, "--dense-layers", dense_layers, kDenseLayersHelp);
}

void add_methods(CLI::App& app, std::vector<std::string>& methods) {
  app.add_flag_callback(
      "--help-methods",
      [] {
        print("{}", methods_help());
        throw CLI::Success();
      },
      "list the methods with their parameters, and exit");
  app.add_option("--method", methods,
                 "ggml, dense, hata, quest:page=32, ... (a comma list); --help-methods lists them")
      ->delimiter(',')
      ->check([](const std::string& name) {
        return name == "ggml" ? std::string() : problem([&] { check_method(name); });
      })
      ->capture_default_str();
}

std::string host_options(const MethodOptions& options) {
  if (options.method == "ggml") return "method=ggml";
  const auto on = [](bool value) { return value ? "on" : "off"; };
  const HataOptions& hata = options.hata;
  return fmt::format(
      "method={} budget={} dense-layers={} min-ctx={} sink={} recent={} lengths={} score={} "
      "rerank={} weights={} seed={} rbit={} prefill={} huge-pages={}",
      as_word(options.method), options.budget.text(), options.dense_layers.text(), options.min_ctx,
      hata.sink, hata.recent.text(), on(hata.lengths),
      hata.score == ScoreRule::sum ? "sum" : "squares", hata.rerank, as_word(options.weights),
      hata.seed, hata.rbit, on(options.prefill), on(options.huge_pages));
}

void check_weights(const std::string& weights, const std::string& model, const char* option) {
  if (weights == "auto" || weights == "off") return;
  const std::string theirs = weights::shared_weights(weights)->fingerprint;
  const std::string ours = weights::model_fingerprint(weights::read_gguf(model));
  if (theirs == ours) return;
  throw Error(fmt::format(
      "{} {}: made for another model: its fingerprint is {}, that of {} is {}; train some "
      "for this model (hata train), or leave the option out",
      option, weights, theirs, model, ours.empty() ? "none" : ours));
}

void check_output_folder(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder)) {
    throw Error("-o " + path + ": there is no folder " + folder.string() + "; make it first");
  }
}

int default_threads() {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0) return 1;
  return std::max(1, CPU_COUNT(&cpus));
}

}  // namespace hata::cli
