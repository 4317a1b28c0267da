// hata-bench-cuda: attention steps on a GPU, as CSV on standard output (tables.py reads it).
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

#include "attn_bench.h"
#include "cuda/tuning.h"

namespace {

using hata::bench::Cell;
using hata::bench::Options;
using hata::bench::Row;

constexpr const char* kUsage =
    "usage: hata-bench-cuda [options] CELL...\n"
    "  CELL  B:n_q_heads:n_kv_heads:n_kv[:f16|bf16[:page_size]], e.g. 8:32:8:32768\n"
    "  --budgets LIST   keys, or parts of n_kv as 1/64 (default 512,1/64)\n"
    "  --methods LIST   (default dense,hata,auto):\n%s"
    "  --head-dim N     (default 128)\n"
    "  --rbit N         64, 128 or 256 (default 128)\n"
    "  --no-lengths     the paper's order\n"
    "  --alike          keys about a common mean, as those of real models\n"
    "  --late N         most of the chosen keys lie in the last N cells (contiguous caches)\n"
    "  --clocks         also the parts of HATA's kernel (if built with HATA_CUDA_CLOCKS)\n"
    "  --memory GB      of keys and values (default 70)\n"
    "  --seconds S      no new cell is begun after that\n"
    "  --tune N,W,S,F   blocks a cluster, warps a block (16 or 8), splits, fused (0 or 1);\n"
    "                   0 and -1: as planned\n";

std::vector<std::string> list(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    parts.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

double budget(const std::string& text) {
  const bool part = text.starts_with("1/");
  const double n = std::atof(text.c_str() + (part ? 2 : 0));
  if (!(n >= 1.0)) throw std::runtime_error("budget '" + text + "': want a number of keys or 1/N");
  return part ? 1.0 / n : n;
}

void print(const Row& r) {
  const Cell& c = r.cell;
  std::printf("%s,%d,%d,%d,%d,%s,%s,%d,%d,%s,%.3f,%.3f,%.3f,%.0f\n", r.method.c_str(), c.batch,
              c.n_q_heads, c.n_kv_heads, c.head_dim, c.type == HATA_CUDA_BF16 ? "bf16" : "f16",
              c.page_size > 0 ? ("paged" + std::to_string(c.page_size)).c_str() : "contiguous",
              c.n_kv, r.budget, r.stage.c_str(), r.us, r.us_min, r.us_max, r.bytes);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  Options options;
  int head_dim = 128;
  std::vector<std::string> cells;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw std::runtime_error(std::string(arg) + " needs a value");
      return argv[++i];
    };
    if (arg == "--budgets") {
      options.budgets.clear();
      for (const std::string& b : list(value())) options.budgets.push_back(budget(b));
    } else if (arg == "--methods") {
      options.methods = list(value());
    } else if (arg == "--head-dim") {
      head_dim = std::atoi(value().c_str());
    } else if (arg == "--rbit") {
      options.rbit = std::atoi(value().c_str());
    } else if (arg == "--no-lengths") {
      options.lengths = false;
    } else if (arg == "--alike") {
      options.alike = true;
    } else if (arg == "--late") {
      options.late = std::atoi(value().c_str());
    } else if (arg == "--clocks") {
      options.clocks = true;
    } else if (arg == "--memory") {
      options.memory_gb = std::atof(value().c_str());
    } else if (arg == "--seconds") {
      options.seconds = std::atof(value().c_str());
    } else if (arg == "--tune") {
      int n[4] = {0, 0, 0, -1};
      std::sscanf(value().c_str(), "%d,%d,%d,%d", n, n + 1, n + 2, n + 3);
      hata::cuda::tuning() = {n[0], n[1], n[2], n[3]};
    } else if (arg == "--help" || arg.starts_with("-")) {
      std::fprintf(stderr, kUsage, hata::bench::methods_help());
      return arg == "--help" ? 0 : 2;
    } else {
      cells.emplace_back(arg);
    }
  }
  for (const std::string& cell : cells) {
    options.cells.push_back(Cell::parse(cell));
    options.cells.back().head_dim = head_dim;
  }
  std::printf(
      "method,batch,n_q_heads,n_kv_heads,head_dim,type,layout,n_kv,budget,stage,us,us_min,"
      "us_max,bytes\n");
  hata::bench::run(
      options, [](double gbs) { std::printf("# bandwidth_gbs=%.0f\n", gbs); }, print);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hata-bench-cuda: %s\n", error.what());
    return 1;
  }
}
