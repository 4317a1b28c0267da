#include "bench_attn_cuda.h"

#include <map>
#include <tuple>

#ifdef HATA_CUDA
#include "attn_bench.h"
#endif

namespace hata::cli {

#ifndef HATA_CUDA

void bench_attn_cuda(const CudaAttnOptions&) {
  throw Error(
      "--device cuda: this hata was built without CUDA; build it where nvcc is on the PATH");
}

#else

namespace {

std::string rate_cell(const Json& row) {
  const double gbps = row["gbps"], peak = row["peak_read_gbps"];
  return fmt::format("{:.0f} ({:.0f} %)", gbps, 100 * gbps / peak);
}

std::string ratio_cell(const Json& row) {
  return row["speedup_dense"].is_null()
             ? ""
             : fmt::format("{:.2f}x", row["speedup_dense"].get<double>());
}

const std::vector<Column> kColumns = {
    {"method", false, [](const Json& r) { return r["method"].get<std::string>(); }},
    {"stage", false, [](const Json& r) { return r["stage"].get<std::string>(); }},
    {"batch", true, [](const Json& r) { return r["batch"].dump(); }},
    {"n_kv", true, [](const Json& r) { return r["n_kv"].dump(); }},
    {"budget", true, [](const Json& r) { return r["budget"].dump(); }},
    {"median us", true, [](const Json& r) { return fmt::format("{:.1f}", r["us"].get<double>()); }},
    {"min", true, [](const Json& r) { return fmt::format("{:.1f}", r["us_min"].get<double>()); }},
    {"max", true, [](const Json& r) { return fmt::format("{:.1f}", r["us_max"].get<double>()); }},
    {"MB", true,
     [](const Json& r) { return fmt::format("{:.1f}", r["bytes"].get<double>() / 1e6); }},
    {"GB/s", true, rate_cell},
    {"vs dense", true, ratio_cell},
};

Json row_of(const bench::Row& r, double peak) {
  return {{"device", "cuda"},
          {"method", r.method},
          {"stage", r.stage},
          {"batch", r.cell.batch},
          {"n_q_heads", r.cell.n_q_heads},
          {"n_kv_heads", r.cell.n_kv_heads},
          {"head_dim", r.cell.head_dim},
          {"n_kv", r.cell.n_kv},
          {"budget", r.budget},
          {"us", r.us},
          {"us_min", r.us_min},
          {"us_max", r.us_max},
          {"bytes", r.bytes},
          {"gbps", r.bytes / r.us / 1e3},
          {"peak_read_gbps", peak},
          {"speedup_dense", Json()}};
}

bench::Options translated(const CudaAttnOptions& options) {
  bench::Options to;
  for (const int64_t depth : options.depths) {
    if (depth % 256 != 0) {
      throw Error(fmt::format("-d {}: with --device cuda a multiple of 256", depth));
    }
    bench::Cell cell;
    cell.batch = options.batch;
    cell.n_q_heads = options.shape.n_q_heads;
    cell.n_kv_heads = options.shape.n_kv_heads;
    cell.head_dim = options.shape.head_dim;
    cell.n_kv = static_cast<int>(depth);
    cell.type = options.type == "bf16" ? HATA_CUDA_BF16 : HATA_CUDA_F16;
    to.cells.push_back(cell);
  }
  to.budgets.clear();
  for (const Budget& budget : options.budgets) {
    to.budgets.push_back(budget.share > 0.0 ? budget.share : static_cast<double>(budget.tokens));
  }
  if (!options.methods.empty()) to.methods = options.methods;
  to.rbit = options.rbit;
  to.lengths = options.lengths;
  to.score = options.score == ScoreRule::squares ? HATA_CUDA_SQUARES : HATA_CUDA_SUM;
  to.memory_gb = options.memory_gb;
  return to;
}

}  // namespace

void bench_attn_cuda(const CudaAttnOptions& options) {
  Progress progress;
  double peak = 0.0;
  std::vector<Json> rows;
  try {
    bench::run(
        translated(options), [&](double bandwidth) { peak = bandwidth; },
        [&](const bench::Row& row) {
          progress.show("n_kv {}: {}", row.cell.n_kv, row.method);
          rows.push_back(row_of(row, peak));
        });
  } catch (const std::runtime_error& error) {
    throw Error(std::string("--device cuda: ") + error.what());
  }
  progress.clear();
  std::map<int, double> dense;  // by n_kv
  for (const Json& row : rows) {
    if (row["method"] == "dense") dense[row["n_kv"]] = row["us"];
  }
  for (Json& row : rows) {
    const auto at = dense.find(row["n_kv"]);
    if (at != dense.end()) row["speedup_dense"] = at->second / row["us"].get<double>();
  }
  if (options.format == Format::md) {
    print(
        "one layer's step, {} query heads, {} KV heads of {}, {}; caches cold; {:.0f} GB/s can be "
        "read\n\n",
        options.shape.n_q_heads, options.shape.n_kv_heads, options.shape.head_dim, options.type,
        peak);
  }
  print_rows(options.format, rows, kColumns);
}

#endif

}  // namespace hata::cli
