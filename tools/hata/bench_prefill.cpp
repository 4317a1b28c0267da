// hata bench prefill: dense attention of a batch of rows, ours and ggml's.

#include "attn_rig.h"
#include "bench.h"
#include "core/clock.h"
#include "ggml_host.h"
#include "hata/simd.h"
#include "options.h"
#include "output.h"

namespace hata::cli {
namespace {

struct Options {
  std::vector<int64_t> depths = {2048, 8192, 32768};
  std::vector<int> rows = {512};
  std::string heads = "32/8";
  int head_dim = 128;
  int threads = 1;
  double seconds = 2.0;
  std::string format = "md";
};

/// Times of single steps, in nanoseconds.
std::vector<double> measure(AttnRival& rival, double seconds) {
  constexpr size_t kMinSteps = 3;
  rival.step(0);  // takes memory
  std::vector<double> samples;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (samples.size() < kMinSteps || Clock::now() < end) {
    const auto start = Clock::now();
    rival.step(0);
    samples.push_back(static_cast<double>(ns_since(start)));
  }
  return samples;
}

/// Multiplications and additions of q.k and of the weighted values, for the cells that are seen.
double operations(const AttnCase& c) {
  const double rows = c.rows;
  const double seen = rows * static_cast<double>(c.n_kv) - rows * (rows - 1) / 2;
  return 4.0 * c.shape.n_q_heads * c.shape.head_dim * seen;
}

void run_case(const Options& options, const AttnCase& c, Team& team, Progress& progress,
              std::vector<Json>& rows) {
  progress.show("n_kv {}: filling the cache", c.n_kv);
  std::vector<AttnSet> sets(1);
  sets[0].emplace_back(c, 1, team);
  double ggml_median = 0;
  for (const std::string method : {"ggml", "prefill"}) {
    progress.show("n_kv {}, {} rows: {}", c.n_kv, c.rows, method);
    const auto rival =
        method == "ggml" ? ggml_rival(sets, options.threads) : prefill_rival(sets, team);
    const std::vector<double> samples = measure(*rival, options.seconds);
    const double median = percentile(samples, 0.5);
    if (method == "ggml") ggml_median = median;
    Json row;
    row["method"] = method;
    row["isa"] = method == "ggml" ? "native" : simd_name(simd_level());
    row["threads"] = options.threads;
    row["n_q_heads"] = c.shape.n_q_heads;
    row["n_kv_heads"] = c.shape.n_kv_heads;
    row["head_dim"] = c.shape.head_dim;
    row["n_kv"] = c.n_kv;
    row["rows"] = c.rows;
    row["steps"] = samples.size();
    row["median_ns"] = median;
    row["p10_ns"] = percentile(samples, 0.1);
    row["p90_ns"] = percentile(samples, 0.9);
    row["gflops"] = operations(c) / median;
    row["speedup"] = ggml_median / median;
    rows.push_back(row);
  }
}

const std::vector<Column> kColumns = {
    {"method", false, [](const Json& r) { return r["method"].get<std::string>(); }},
    {"n_kv", true, [](const Json& r) { return r["n_kv"].dump(); }},
    {"rows", true, [](const Json& r) { return r["rows"].dump(); }},
    {"median", true, [](const Json& r) { return human_time(r["median_ns"]); }},
    {"p10", true, [](const Json& r) { return human_time(r["p10_ns"]); }},
    {"p90", true, [](const Json& r) { return human_time(r["p90_ns"]); }},
    {"GFLOP/s", true,
     [](const Json& r) { return fmt::format("{:.0f}", r["gflops"].get<double>()); }},
    {"vs ggml", true,
     [](const Json& r) { return fmt::format("{:.2f}x", r["speedup"].get<double>()); }},
};

void run(const Options& options) {
  const Format format = parse_format(options.format);
  const HeadShape shape = parse_heads(options.heads, options.head_dim);
  configure_host("method=ggml");
  Team team(options.threads);
  Progress progress;
  std::vector<Json> rows;
  for (const int64_t depth : options.depths) {
    for (const int n_rows : options.rows) {
      if (n_rows > depth) {
        throw Error(fmt::format("--rows {}: -d {} has fewer keys than that", n_rows, depth));
      }
      run_case(options, {.shape = shape, .n_kv = depth, .rows = n_rows}, team, progress, rows);
    }
  }
  progress.clear();
  if (format == Format::md) {
    print("{} threads, {} heads of {}, f16, {}; a causal batch of the last rows\n\n",
          options.threads, options.heads, options.head_dim, simd_name(simd_level()));
  }
  print_rows(format, rows, kColumns);
}

}  // namespace

void add_bench_prefill(CLI::App& bench) {
  auto options = std::make_shared<Options>();
  CLI::App* app = bench.add_subcommand("prefill", "time dense attention of a batch of rows");
  app->footer("Example:\n  hata bench prefill -d 8192 --rows 32,512 -t 2");
  app->add_option("-d,--depth", options->depths, "keys in the cache (a comma list)")
      ->delimiter(',')
      ->check(CLI::Range(64, 1 << 24))
      ->capture_default_str();
  app->add_option("--rows", options->rows, "rows of the batch (a comma list)")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_option("--heads", options->heads, "query heads/KV heads")->capture_default_str();
  app->add_option("--head-dim", options->head_dim, "elements of a key")->capture_default_str();
  add_threads(*app, options->threads);
  app->add_option("--seconds", options->seconds, "time for each row of the table")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_format(*app, options->format);
  app->callback([options] { run(*options); });
}

}  // namespace hata::cli
