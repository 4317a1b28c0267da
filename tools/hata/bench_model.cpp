// hata bench model: decode speed of a whole model at a depth, in llama-bench's terms.
#include <sys/sysinfo.h>

#include <cmath>
#include <ctime>
#include <fstream>
#include <numeric>

#include "bench.h"
#include "cache_fill.h"
#include "core/clock.h"
#include "core/random.h"
#include "eval/setting.h"
#include "ggml_host.h"
#include "hata/types.h"
#include "model.h"
#include "options.h"
#include "output.h"

namespace hata::cli {
namespace {

struct Options {
  std::string model;
  std::vector<int64_t> depths = {512, 8192, 32768};
  int n_gen = 16;
  int repetitions = 3;
  std::string fill = "state";
  std::vector<std::string> methods = {"ggml", "dense", "hata"};
  std::vector<Budget> budgets = {Budget::parse("512")};
  std::vector<DenseLayers> dense_layers = {DenseLayers{}};
  int64_t min_ctx = 1024;
  std::string cache_type = "f16";
  HataOptions hata;
  int threads = 1;
  std::string format = "md";
};

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof(text), "%FT%TZ", std::gmtime(&now));
  return text;
}

std::string backends() {
  std::string names;
  for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
    const std::string name = ggml_backend_reg_name(ggml_backend_reg_get(i));
    names += (names.empty() ? "" : ",") + name;
  }
  return names;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double m = mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - m) * (v - m);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

class ModelBench {
 public:
  ModelBench(const Options& options, const eval::Model& model, const weights::ModelShape& shape)
      : options_(options), model_(model), shape_(shape), team_(options.threads) {}

  void run_depth(int64_t depth) {
    configure_host("method=dense");
    eval::Session session(model_,
                          {.n_ctx = depth + options_.n_gen + 1, .threads = options_.threads});
    fill(session, depth);
    for (const std::string& method : options_.methods) {
      MethodOptions m{.method = method, .hata = options_.hata, .min_ctx = options_.min_ctx};
      if (method == "ggml" || method == "dense") {
        measure(session, depth, m);
        continue;
      }
      for (const DenseLayers& dense_layers : options_.dense_layers) {
        for (const Budget& budget : options_.budgets) {
          m.dense_layers = dense_layers;
          m.budget = budget;
          measure(session, depth, m);
        }
      }
    }
  }

  Progress& progress() { return progress_; }
  const std::vector<Json>& rows() const { return rows_; }

 private:
  void fill(eval::Session& session, int64_t depth) {
    if (depth == 0) return;
    if (options_.fill == "decode") {
      std::vector<eval::Token> tokens(static_cast<size_t>(depth));
      for (auto& token : tokens) token = random_token();
      session.prefill(
          tokens, [&](int64_t done) { progress_.show("depth {}: {} tokens read", depth, done); });
      return;
    }
    progress_.show("depth {}: filling the cache", depth);
    if (!writer_) {
      writer_ = std::make_unique<StateWriter>(model_, shape_, options_.threads);
    }
    session.restore(writer_->random_state(depth, options_.hata.seed, team_), depth);
  }

  eval::Token random_token() {
    return static_cast<eval::Token>(
        random_.below(static_cast<size_t>(llama_vocab_n_tokens(model_.vocab()))));
  }

  // n_gen tokens, one at a time; then the cache is as before.
  double generate(eval::Session& session, int n) {
    const int64_t depth = session.size();
    const auto start = Clock::now();
    for (int i = 0; i < n; ++i) session.decode(random_token());
    const double ns = static_cast<double>(ns_since(start));
    session.truncate(depth);
    return ns;
  }

  void measure(eval::Session& session, int64_t depth, const MethodOptions& method) {
    progress_.show("depth {}: {}", depth, method.method);
    configure_host(host_options(method));
    generate(session, 1);  // warm-up; makes the codes
    std::vector<double> ns;
    for (int i = 0; i < options_.repetitions; ++i) ns.push_back(generate(session, options_.n_gen));
    rows_.push_back(row(depth, method, ns));
  }

  // llama-bench's keys in its order, and ours behind them.
  Json row(int64_t depth, const MethodOptions& method, const std::vector<double>& ns) const {
    std::vector<double> speeds;
    for (const double t : ns) speeds.push_back(options_.n_gen * 1e9 / t);
    const auto context = llama_context_default_params();
    const auto params = llama_model_default_params();
    Json row;
    row["build_commit"] = llama_version();
    row["build_number"] = 0;
    row["cpu_info"] = cpu_name();
    row["gpu_info"] = "";
    row["backends"] = backends();
    row["model_filename"] = model_.path();
    row["model_type"] = model_.description();
    row["model_size"] = llama_model_size(model_.get());
    row["model_n_params"] = llama_model_n_params(model_.get());
    row["n_batch"] = eval::SessionOptions{}.n_batch;
    row["n_ubatch"] = eval::SessionOptions{}.n_batch;
    row["n_threads"] = options_.threads;
    row["type_k"] = row["type_v"] = options_.cache_type;
    row["n_gpu_layers"] = params.n_gpu_layers;
    row["split_mode"] = "layer";
    row["main_gpu"] = params.main_gpu;
    row["no_kv_offload"] = !context.offload_kqv;
    row["flash_attn"] = 1;
    row["load_mode"] = llama_load_mode_name(params.load_mode);
    row["embeddings"] = false;
    row["no_op_offload"] = context.op_offload ? 0 : 1;
    row["n_prompt"] = 0;
    row["n_gen"] = options_.n_gen;
    row["n_depth"] = depth;
    row["test_time"] = utc_now();
    row["avg_ns"] = mean(ns);
    row["stddev_ns"] = deviation(ns);
    row["avg_ts"] = mean(speeds);
    row["stddev_ts"] = deviation(speeds);
    const bool sparse = method.method != "ggml" && method.method != "dense";
    const bool codes = sparse && method.method.rfind("hata", 0) == 0;
    row["attn_method"] = method.method;
    row["budget"] = sparse ? Json(method.budget.text()) : Json();
    row["rbit"] = codes ? Json(method.hata.rbit) : Json();
    row["dense_layers"] = sparse ? eval::dense_layers_json(method.dense_layers) : Json();
    return row;
  }

  const Options& options_;
  const eval::Model& model_;
  const weights::ModelShape& shape_;
  Team team_;
  Random random_{1};
  std::unique_ptr<StateWriter> writer_;
  Progress progress_;
  std::vector<Json> rows_;
};

std::string optional_cell(const Json& row, const char* key) {
  const Json& value = row[key];
  return value.is_null() ? "" : value.is_string() ? value.get<std::string>() : value.dump();
}

const std::vector<Column> kColumns = {
    {"model", false, [](const Json& r) { return r["model_type"].get<std::string>(); }},
    {"size", true,
     [](const Json& r) {
       return fmt::format("{:.2f} MiB", r["model_size"].get<double>() / (1 << 20));
     }},
    {"params", true,
     [](const Json& r) {
       return fmt::format("{:.2f} M", r["model_n_params"].get<double>() / 1e6);
     }},
    {"threads", true, [](const Json& r) { return r["n_threads"].dump(); }},
    {"attention", false, [](const Json& r) { return r["attn_method"].get<std::string>(); }},
    {"budget", true, [](const Json& r) { return optional_cell(r, "budget"); }},
    {"rbit", true, [](const Json& r) { return optional_cell(r, "rbit"); }},
    {"dense layers", true, [](const Json& r) { return optional_cell(r, "dense_layers"); }},
    {"test", true,
     [](const Json& r) {
       const int64_t depth = r["n_depth"];
       return fmt::format("tg{}", r["n_gen"].get<int>()) +
              (depth > 0 ? fmt::format(" @ d{}", depth) : "");
     }},
    {"t/s", true,
     [](const Json& r) {
       return fmt::format("{:.2f} ± {:.2f}", r["avg_ts"].get<double>(),
                          r["stddev_ts"].get<double>());
     }},
};

void run(const Options& options) {
  const weights::ModelShape shape = weights::model_shape(weights::read_gguf(options.model));
  const eval::Model model = open_model(options.model);
  for (const DenseLayers& layers : options.dense_layers) {
    layers.check(model.n_layers(), model.path());
  }
  ModelBench bench(options, model, shape);
  for (const int64_t depth : options.depths) bench.run_depth(depth);
  bench.progress().clear();
  print_rows(parse_format(options.format), bench.rows(), kColumns);
}

}  // namespace

void add_bench_model(CLI::App& bench) {
  auto options = std::make_shared<Options>();
  CLI::App* app = bench.add_subcommand("model", "decode speed of a whole model at a depth");
  app->footer(
      "Example:\n  hata bench model -m model.gguf -d 512,32768,131072 --dense-layers 0 -o md");
  add_model(*app, options->model, true);
  app->add_option("-d,--n-depth", options->depths, "tokens in the cache (a comma list)")
      ->delimiter(',')
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app->add_option("-n,--n-gen", options->n_gen, "tokens to decode")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("-r,--repetitions", options->repetitions, "how often")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--fill", options->fill,
                  "how the cache is filled: state (random keys and values) or decode (slow)")
      ->check(CLI::IsMember({"state", "decode"}))
      ->capture_default_str();
  add_methods(*app, options->methods);
  add_budgets(*app, options->budgets);
  add_dense_layers(*app, options->dense_layers);
  add_min_ctx(*app, options->min_ctx);
  add_cache_type(*app, options->cache_type);
  add_hata_options(*app, options->hata);
  add_threads(*app, options->threads);
  add_format(*app, options->format);
  app->callback([options] { run(*options); });
}

}  // namespace hata::cli
