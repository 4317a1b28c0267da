// hata bench attn: one attention step, our methods and their rivals in one process.
#include <algorithm>
#include <cmath>
#include <optional>

#include "attn_rig.h"
#include "bandwidth.h"
#include "bench.h"
#include "bench_attn_cuda.h"
#include "core/clock.h"
#include "ggml_host.h"
#include "hata/simd.h"
#include "options.h"
#include "output.h"

namespace hata::cli {
namespace {

struct Options {
  std::vector<int64_t> depths = {8192, 32768, 131072};
  std::string heads = "32/8";
  int head_dim = 128;
  std::string type = "f16";
  std::vector<Budget> budgets = {Budget::parse("512")};
  std::vector<int> rows = {1};
  int sequences = 1;
  std::vector<std::string> methods = {"ggml", "dense", "hata"};
  HataOptions hata;
  bool huge_pages = true;
  int threads = 1;
  double seconds = 2.0;
  double memory_gb = 8.0;
  std::string device = "cpu";
  std::string format = "md";
};

// Times of single steps, in nanoseconds.
struct Samples {
  std::vector<double> total, encode, score, select, rerank, attend;
  StageCounters sum;

  void add(double ns, const StageCounters& c) {
    total.push_back(ns);
    encode.push_back(static_cast<double>(c.encode_ns));
    score.push_back(static_cast<double>(c.score_ns));
    select.push_back(static_cast<double>(c.select_ns));
    rerank.push_back(static_cast<double>(c.rerank_ns));
    attend.push_back(static_cast<double>(c.attend_ns));
    sum += c;
  }
};

// What all measurements of one run share.
struct Bench {
  explicit Bench(const Options& o)
      : options(o),
        shape(parse_heads(o.heads, o.head_dim)),
        cache_bytes(last_level_cache()),
        team(o.threads),
        buffer(team, 2 * cache_bytes),
        peak(buffer.peak_bandwidth()) {}

  const Options& options;
  HeadShape shape;
  size_t cache_bytes;
  Team team;
  ReadBuffer buffer;
  double peak;  ///< bytes a second
  Progress progress;
  std::vector<Json> rows;

  void run_case(const AttnCase& attn_case);

 private:
  std::vector<AttnSet> make_sets(const AttnCase& attn_case);
  void measure_methods(const AttnCase& attn_case, std::vector<AttnSet>& sets);
  Samples measure(AttnRival& rival, size_t n_sets, size_t dense_bytes);
  Json row(const AttnCase& attn_case, const std::string& method, const Budget* budget,
           const Samples& samples) const;
};

// Enough sets that dense attention never finds one in a cache; at least two.
std::vector<AttnSet> Bench::make_sets(const AttnCase& c) {
  const size_t bytes = c.cache_bytes() * c.caches();
  const size_t wanted = std::max<size_t>(2, cache_bytes * 5 / 4 / bytes + 2);
  const auto allowed = static_cast<size_t>(options.memory_gb * 1e9 / static_cast<double>(bytes));
  if (allowed < 1) {
    throw Error(fmt::format(
        "-d {}: the keys and values take {}, --memory allows {:.1f} GB; raise it or lower -d",
        c.n_kv, human_bytes(static_cast<double>(bytes)), options.memory_gb));
  }
  std::vector<AttnSet> sets(std::min(wanted, allowed));
  uint64_t seed = options.hata.seed;
  for (size_t s = 0; s < sets.size(); ++s) {
    progress.show("n_kv {}: filling cache {}/{}", c.n_kv, s + 1, sets.size());
    for (int i = 0; i < c.caches(); ++i) sets[s].emplace_back(c, ++seed, team);
  }
  return sets;
}

// Steps over all sets in turn. Between two steps on the same set at least as many bytes are read
// as the last-level cache holds: by the steps on other sets, the rest from a buffer.
Samples Bench::measure(AttnRival& rival, size_t n_sets, size_t dense_bytes) {
  constexpr size_t kMinSteps = 10;
  for (size_t set = 0; set < n_sets; ++set) rival.step(set);  // makes codes, takes memory
  rival.take_counters();
  rival.step(0);
  const StageCounters touched = rival.take_counters();
  size_t bytes = static_cast<size_t>(touched.choose_bytes + touched.attend_bytes);
  if (bytes == 0) bytes = dense_bytes;
  const size_t others = bytes * (n_sets - 1);
  const size_t evict = others < cache_bytes ? cache_bytes - others : 0;

  Samples samples;
  const auto end = Clock::now() + std::chrono::duration<double>(options.seconds);
  for (size_t i = 0; i < kMinSteps || Clock::now() < end; ++i) {
    if (evict > 0) buffer.read(evict);
    team.run([](const Worker&) {});  // threads are awake, as they are within a graph
    const auto start = Clock::now();
    rival.step(i % n_sets);
    const double ns = static_cast<double>(ns_since(start));
    samples.add(ns, rival.take_counters());
  }
  return samples;
}

void Bench::run_case(const AttnCase& attn_case) {
  std::vector<AttnSet> sets = make_sets(attn_case);
  measure_methods(attn_case, sets);
}

void Bench::measure_methods(const AttnCase& c, std::vector<AttnSet>& sets) {
  const size_t first_row = rows.size();
  const auto add = [&](const std::string& method, const Budget* budget, AttnRival& rival) {
    progress.show("n_kv {}, {} rows: {}", c.n_kv, c.rows_per_cache(), method);
    const size_t dense_bytes = c.cache_bytes() * c.caches();
    rows.push_back(row(c, method, budget, measure(rival, sets.size(), dense_bytes)));
  };
  for (const std::string& method : options.methods) {
    if (method == "ggml") {
      add(method, nullptr, *ggml_rival(sets, options.threads));
    } else if (method == "dense") {
      add(method, nullptr, *selector_rival(sets, method, options.hata, Budget{}, team));
    } else {
      for (const Budget& budget : options.budgets) {
        add(method, &budget, *selector_rival(sets, method, options.hata, budget, team));
      }
    }
  }
  const auto set_ratio = [&](const char* key, const char* rival) {
    for (size_t r = first_row; r < rows.size(); ++r) {
      if (rows[r]["method"] != rival) continue;
      const double base = rows[r]["median_ns"];
      for (size_t i = first_row; i < rows.size(); ++i) {
        rows[i][key] = base / rows[i]["median_ns"].get<double>();
      }
    }
  };
  set_ratio("speedup", "ggml");
  set_ratio("speedup_dense", "dense");
}

Json Bench::row(const AttnCase& c, const std::string& method, const Budget* budget,
                const Samples& s) const {
  const bool ours = method != "ggml";
  const auto steps = static_cast<double>(s.total.size());
  const double median = percentile(s.total, 0.5);
  double bytes = static_cast<double>(c.cache_bytes()) * c.caches();
  if (ours) bytes = static_cast<double>(s.sum.choose_bytes + s.sum.attend_bytes) / steps;
  const auto stage = [&](const std::vector<double>& ns) {
    return ours ? Json(percentile(ns, 0.5)) : Json();
  };
  const auto step_rows = static_cast<int64_t>(c.rows_per_cache()) * c.caches();
  Json json;
  json["method"] = method;
  json["isa"] = ours ? simd_name(simd_level()) : "native";
  json["threads"] = options.threads;
  json["n_q_heads"] = c.shape.n_q_heads;
  json["n_kv_heads"] = c.shape.n_kv_heads;
  json["head_dim"] = c.shape.head_dim;
  json["kv_type"] = options.type;
  json["n_kv"] = c.n_kv;
  json["rows"] = step_rows;
  json["sequences"] = c.sequences;
  json["caches"] = c.caches();
  json["budget"] = budget == nullptr
                       ? Json()
                       : Json(s.sum.keys_attended / step_rows / static_cast<int64_t>(steps));
  json["steps"] = s.total.size();
  json["median_ns"] = median;
  json["p10_ns"] = percentile(s.total, 0.1);
  json["p90_ns"] = percentile(s.total, 0.9);
  json["encode_ns"] = stage(s.encode);
  json["score_ns"] = stage(s.score);
  json["select_ns"] = stage(s.select);
  json["rerank_ns"] = stage(s.rerank);
  json["attend_ns"] = stage(s.attend);
  json["choose_bytes"] = ours ? Json(static_cast<double>(s.sum.choose_bytes) / steps) : Json();
  json["attend_bytes"] = ours ? Json(static_cast<double>(s.sum.attend_bytes) / steps) : Json(bytes);
  json["read_gbps"] = bytes / median;
  json["peak_read_gbps"] = peak / 1e9;
  json["speedup"] = Json();
  json["speedup_dense"] = Json();
  return json;
}

std::string stage_cell(const Json& row, const char* key) {
  return row[key].is_null() ? "" : fmt::format("{:.1f}", row[key].get<double>() / 1e3);
}

// Bytes read to choose, per key and KV head.
std::string choose_cell(const Json& row) {
  if (row["choose_bytes"].is_null() || row["budget"].is_null()) return "";
  const double keys =
      row["n_kv"].get<double>() * row["n_kv_heads"].get<double>() * row["caches"].get<double>();
  return fmt::format("{:.1f}", row["choose_bytes"].get<double>() / keys);
}

std::string ratio_cell(const Json& row, const char* key) {
  return row[key].is_null() ? "" : fmt::format("{:.2f}x", row[key].get<double>());
}

// Bytes read to choose against the time of choosing.
std::string score_rate(const Json& row) {
  if (row["score_ns"].is_null() || row["score_ns"] == 0.0) return "";
  const double ns = row["score_ns"].get<double>() + row["rerank_ns"].get<double>();
  const double rate = row["choose_bytes"].get<double>() / ns;
  return fmt::format("{:.1f} ({:.0f} %)", rate, 100 * rate / row["peak_read_gbps"].get<double>());
}

std::string attend_rate(const Json& row) {
  if (row["attend_ns"].is_null()) return "";
  return fmt::format("{:.1f}", row["attend_bytes"].get<double>() / row["attend_ns"].get<double>());
}

const std::vector<Column> kColumns = {
    {"method", false, [](const Json& r) { return r["method"].get<std::string>(); }},
    {"n_kv", true,
     [](const Json& r) {
       const int caches = r["caches"];
       return (caches > 1 ? fmt::format("{} x ", caches) : "") + r["n_kv"].dump();
     }},
    {"rows", true, [](const Json& r) { return r["rows"].dump(); }},
    {"budget", true,
     [](const Json& r) { return r["budget"].is_null() ? "all" : r["budget"].dump(); }},
    {"choose B/key", true, choose_cell},
    {"median", true, [](const Json& r) { return human_time(r["median_ns"]); }},
    {"p10", true, [](const Json& r) { return human_time(r["p10_ns"]); }},
    {"p90", true, [](const Json& r) { return human_time(r["p90_ns"]); }},
    {"encode us", true, [](const Json& r) { return stage_cell(r, "encode_ns"); }},
    {"score us", true, [](const Json& r) { return stage_cell(r, "score_ns"); }},
    {"select us", true, [](const Json& r) { return stage_cell(r, "select_ns"); }},
    {"attend us", true, [](const Json& r) { return stage_cell(r, "attend_ns"); }},
    {"GB/s", true,
     [](const Json& r) { return fmt::format("{:.1f}", r["read_gbps"].get<double>()); }},
    {"score GB/s", true, score_rate},
    {"attend GB/s", true, attend_rate},
    {"vs ggml", true, [](const Json& r) { return ratio_cell(r, "speedup"); }},
    {"vs dense", true, [](const Json& r) { return ratio_cell(r, "speedup_dense"); }},
};

// The table's; that of the re-rank, a part of select, only where there was one.
std::vector<Column> columns_of(const std::vector<Json>& rows) {
  std::vector<Column> columns = kColumns;
  const bool reranks = std::any_of(rows.begin(), rows.end(), [](const Json& r) {
    return !r["rerank_ns"].is_null() && r["rerank_ns"] > 0.0;
  });
  if (!reranks) return columns;
  const auto attend = std::find_if(columns.begin(), columns.end(),
                                   [](const Column& c) { return c.title == "attend us"; });
  columns.insert(attend,
                 {"of it rerank", true, [](const Json& r) { return stage_cell(r, "rerank_ns"); }});
  return columns;
}

// Four sequences in one cache against a cache each: the ratio of their times.
void print_unified_ratios(const std::vector<Json>& rows) {
  for (const Json& unified : rows) {
    if (unified["sequences"] == 1 || unified["caches"] != 1) continue;
    for (const Json& apart : rows) {
      if (apart["caches"] == 1 || apart["method"] != unified["method"]) continue;
      if (apart["n_kv"].get<int64_t>() * apart["caches"].get<int64_t>() != unified["n_kv"])
        continue;
      if (apart["budget"] != unified["budget"]) continue;
      print("{}: {} sequences in one cache of {} take {:.2f} times as long as in {} caches of {}\n",
            unified["method"].get<std::string>(), unified["sequences"].get<int>(),
            unified["n_kv"].get<int64_t>(),
            unified["median_ns"].get<double>() / apart["median_ns"].get<double>(),
            apart["caches"].get<int>(), apart["n_kv"].get<int64_t>());
    }
  }
}

void run_on_gpu(const Options& options, bool methods_given) {
  bench_attn_cuda({.depths = options.depths,
                   .shape = parse_heads(options.heads, options.head_dim),
                   .type = options.type,
                   .budgets = options.budgets,
                   .batch = options.sequences,
                   .methods = methods_given ? options.methods : std::vector<std::string>{},
                   .rbit = options.hata.rbit,
                   .lengths = options.hata.lengths,
                   .score = options.hata.score,
                   .memory_gb = options.memory_gb,
                   .format = parse_format(options.format)});
}

void run(const Options& options) {
  const Format format = parse_format(options.format);
  configure_host("method=ggml");
  Bench bench(options);
  for (const int64_t depth : options.depths) {
    if (options.sequences > 1) {
      bench.run_case({.shape = bench.shape,
                      .n_kv = depth,
                      .sequences = options.sequences,
                      .unified = false,
                      .huge_pages = options.huge_pages});
      bench.run_case({.shape = bench.shape,
                      .n_kv = depth * options.sequences,
                      .sequences = options.sequences,
                      .huge_pages = options.huge_pages});
      continue;
    }
    for (const int rows : options.rows) {
      bench.run_case(
          {.shape = bench.shape, .n_kv = depth, .rows = rows, .huge_pages = options.huge_pages});
    }
  }
  bench.progress.clear();
  if (format == Format::md) {
    print("{} threads, {} heads of {}, {}, {}; caches cold; {:.1f} GB/s can be read\n\n",
          options.threads, options.heads, options.head_dim, options.type, simd_name(simd_level()),
          bench.peak / 1e9);
  }
  print_rows(format, bench.rows, columns_of(bench.rows));
  if (format == Format::md) print_unified_ratios(bench.rows);
}

}  // namespace

void add_bench_attn(CLI::App& bench) {
  auto options = std::make_shared<Options>();
  CLI::App* app = bench.add_subcommand("attn", "time one attention step against its rivals");
  app->footer(
      "Example:\n  hata bench attn -d 32768,131072 -t 2 --budget 512,1.56% --rows 1,4 -o json");
  app->add_option("-d,--depth", options->depths, "keys in the cache (a comma list)")
      ->delimiter(',')
      ->check(CLI::Range(64, 1 << 24))
      ->capture_default_str();
  app->add_option("--heads", options->heads, "query heads/KV heads")->capture_default_str();
  app->add_option("--head-dim", options->head_dim, "elements of a key")->capture_default_str();
  add_cache_type(*app, options->type);
  add_budgets(*app, options->budgets);
  app->add_option("--rows", options->rows, "rows of one sequence (a comma list)")
      ->delimiter(',')
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app->add_option("--sequences", options->sequences,
                  "this many sequences of -d keys: in one unified cache, and in a cache each")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  add_methods(*app, options->methods);
  add_hata_options(*app, options->hata);
  add_huge_pages(*app, options->huge_pages);
  add_threads(*app, options->threads);
  app->add_option("--seconds", options->seconds, "time for each row of the table")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--memory", options->memory_gb, "GB that keys and values may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option(
         "--device", options->device,
         "cpu, or cuda: the kernels of libhata-cuda (methods: dense, hata, "
         "hata:score=squares, hata-early, auto, attend, quest16, quest32, loki; --sequences is the "
         "batch)")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  add_format(*app, options->format);
  app->callback([options, app] {
    if (options->device == "cpu") return run(*options);
    run_on_gpu(*options, app->count("--method") > 0);
  });
}

}  // namespace hata::cli
