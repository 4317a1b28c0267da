#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "attn_bench.h"
#include "cuda/attend_lists.h"
#include "cuda/launch.h"
#include "cuda/rivals.h"
#include "cuda/tuning.h"
#include "data.h"

namespace hata::bench {
namespace {

constexpr size_t kL2Bytes = size_t{64} << 20;  // of the largest Hopper, about
constexpr int kMostSets = 24;

int budget_of(double given, int n_kv) {
  return std::max(1, static_cast<int>(given < 1.0 ? std::ceil(given * n_kv) : given));
}

int round_up(int n, int to) { return (n + to - 1) / to * to; }

/// One layer of one model at one moment: what a decode step reads.
struct Set {
  Buffer<std::byte> keys, values, q, out;
  Buffer<uint32_t> codes;
  Buffer<uint8_t> lengths;
  Buffer<int32_t> table;
  Buffer<std::byte> quest16, quest32, loki;
};

/// All sets of a cell, and the steps over them.
class Bench {
 public:
  Bench(const Options& options, const Cell& cell, cudaStream_t stream)
      : options_(options), cell_(cell), stream_(stream) {
    const double bytes = cell.cache_bytes() * 1.1;
    // The least that a step reads: codes, and a few keys. As many sets as keep these out of the L2.
    const double touched = cell.pairs() * (cell.n_kv * 16.0 + 512 * 2 * cell.row_bytes());
    const double wanted = std::ceil(3.0 * static_cast<double>(kL2Bytes) / touched) + 1;
    const double allowed = std::floor(options.memory_gb * 1e9 / bytes);
    n_sets_ = static_cast<int>(std::min({wanted, allowed, double{kMostSets}}));
    n_sets_ = std::max(n_sets_, 2);
    fill();
  }

  void measure(const std::string& method, double given, const std::function<void(const Row&)>& row);

 private:
  void fill();
  hata_cuda_step step(int set, int budget, hata_cuda_mode mode) const;
  double step_bytes(int budget) const;
  void report(const std::string& method, const char* stage, int budget, double bytes,
              const std::function<void(int)>& enqueue, const std::function<void(const Row&)>& row);
  void measure_parts(const std::string& method, int budget, const std::function<void(int)>& enqueue,
                     const std::function<void(const Row&)>& row);
  void measure_quest(int page, int budget, const std::function<void(const Row&)>& row);
  void measure_loki(int budget, const std::function<void(const Row&)>& row);

  const Options& options_;
  Cell cell_;
  cudaStream_t stream_;
  int n_sets_ = 0;
  std::vector<Set> sets_;
  Buffer<float> projection_, inv_units_, basis_;
  Buffer<std::byte> workspace_, rival_workspace_;
  Buffer<int32_t> lists_, counts_;
};

void Bench::fill() {
  const Cell& c = cell_;
  const size_t n_rows = static_cast<size_t>(c.batch) * c.n_kv * c.n_kv_heads;
  const size_t elements = n_rows * c.head_dim;
  const int words = options_.rbit / 32;
  const int capacity = round_up(c.n_kv, 256);
  projection_ = Buffer<float>(static_cast<size_t>(c.n_kv_heads) * c.head_dim * options_.rbit);
  fill_normal(projection_.get(), HATA_CUDA_F32, projection_.size(), 7, 1.0f, stream_);
  std::vector<float> units(static_cast<size_t>(c.n_kv_heads),
                           8.0f / std::sqrt(static_cast<float>(c.head_dim)));
  inv_units_ = Buffer<float>(units.size());
  check(cudaMemcpy(inv_units_.get(), units.data(), units.size() * 4, cudaMemcpyHostToDevice),
        "copy");
  for (int s = 0; s < n_sets_; ++s) {
    Set set;
    set.keys = Buffer<std::byte>(elements * 2);
    set.values = Buffer<std::byte>(elements * 2);
    set.q = Buffer<std::byte>(static_cast<size_t>(c.batch) * c.n_q_heads * c.head_dim * 2);
    set.out = Buffer<std::byte>(set.q.size());
    const auto seed = static_cast<uint64_t>(3 * s);
    fill_normal(set.keys.get(), c.type, elements, seed + 11, 1.0f, stream_,
                options_.alike ? c.head_dim * c.n_kv_heads : 0);
    if (options_.late > 0) {
      const size_t of_sequence = elements / static_cast<size_t>(c.batch);
      const size_t of_cell = static_cast<size_t>(c.n_kv_heads) * c.head_dim;
      const size_t last = static_cast<size_t>(std::min(options_.late, c.n_kv)) * of_cell;
      for (size_t b = 1; b <= static_cast<size_t>(c.batch); ++b) {
        fill_normal(set.keys.get() + (b * of_sequence - last) * 2, c.type, last, seed + 14 + b,
                    1.7f, stream_);
      }
    }
    fill_normal(set.values.get(), c.type, elements, seed + 12, 1.0f, stream_);
    fill_normal(set.q.get(), c.type, set.q.size() / 2, seed + 13, 1.0f, stream_);
    const size_t slots = static_cast<size_t>(c.pairs()) * capacity;
    set.codes = Buffer<uint32_t>(slots * words);
    if (options_.lengths) {
      set.lengths = Buffer<uint8_t>(slots / 2);
      set.lengths.zero();
    }
    if (c.page_size > 0) {
      set.table = Buffer<int32_t>(static_cast<size_t>(c.batch) * c.n_kv / c.page_size);
      fill_permutation(set.table.get(), static_cast<int>(set.table.size()), seed + 1, stream_);
    }
    sets_.push_back(std::move(set));
    const hata_cuda_step one = step(s, 512, HATA_CUDA_SPARSE);
    for (int b = 0; b < c.batch; ++b) {
      const hata_cuda_encode encode{.shape = one.shape,
                                    .cache = one.cache,
                                    .codes = one.codes,
                                    .projection = one.projection,
                                    .sequence = b,
                                    .first = 0,
                                    .count = c.n_kv,
                                    .cells = nullptr};
      check(hata_cuda_encode_keys(&encode, stream_), "encode");
    }
  }
  size_t bytes = 0;
  for (const double given : options_.budgets) {
    const hata_cuda_step one = step(0, budget_of(given, c.n_kv), HATA_CUDA_AUTO);
    const size_t size = hata_cuda_workspace_size(&one);
    if (size == 0) check(HATA_CUDA_FAILED, "workspace");
    bytes = std::max(bytes, size);
  }
  workspace_ = Buffer<std::byte>(bytes);
  workspace_.zero();
  check(cudaStreamSynchronize(stream_), "fill");
}

hata_cuda_step Bench::step(int s, int budget, hata_cuda_mode mode) const {
  const Cell& c = cell_;
  const Set& set = sets_[static_cast<size_t>(s)];
  const int64_t row = c.head_dim * 2;
  hata_cuda_step step{};
  step.shape = {c.n_q_heads, c.n_kv_heads, c.head_dim, options_.rbit};
  step.cache.keys = set.keys.get();
  step.cache.values = set.values.get();
  step.cache.type = c.type;
  step.cache.cell_stride = row * c.n_kv_heads;
  step.cache.head_stride = row;
  step.cache.seq_stride = step.cache.cell_stride * c.n_kv;
  if (c.page_size > 0) {
    step.cache.block_table = set.table.get();
    step.cache.table_stride = c.n_kv / c.page_size;
    step.cache.page_size = c.page_size;
    step.cache.page_stride = step.cache.cell_stride * c.page_size;
  }
  step.codes = {set.codes.get(), options_.lengths ? set.lengths.get() : nullptr,
                round_up(c.n_kv, 256)};
  step.projection.keys = projection_.get();
  step.projection.inv_units = inv_units_.get();
  step.mode = mode;
  step.n_rows = c.batch;
  step.q = set.q.get();
  step.q_type = c.type;
  step.q_head_stride = c.head_dim;
  step.q_row_stride = int64_t{c.head_dim} * c.n_q_heads;
  step.out = set.out.get();
  step.out_type = c.type;
  step.out_head_stride = step.q_head_stride;
  step.out_row_stride = step.q_row_stride;
  step.max_n_kv = c.n_kv;
  step.score = options_.score;
  step.budget = budget;
  step.sink = 1;
  step.recent = std::min(32, budget / 2);
  step.encode_last = 1;
  step.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  return step;
}

double Bench::step_bytes(int budget) const {
  const Cell& c = cell_;
  const double code = options_.rbit / 8.0 + (options_.lengths ? 0.5 : 0.0);
  return c.pairs() * (c.n_kv * code + std::min(budget, c.n_kv) * 2 * c.row_bytes()) +
         static_cast<double>(projection_.size()) * 4;
}

void Bench::report(const std::string& method, const char* stage, int budget, double bytes,
                   const std::function<void(int)>& enqueue,
                   const std::function<void(const Row&)>& row) {
  const double expected = bytes / 3e6 + 10;
  const Time t = time_graph(enqueue, n_sets_, expected, stream_);
  row({cell_, method, stage, budget, t.median, t.min, t.max, bytes});
}

void Bench::measure(const std::string& method, double given,
                    const std::function<void(const Row&)>& row) {
  const int budget = budget_of(given, cell_.n_kv);
  const bool squares = method == "hata:score=squares";
  const auto decode = [&](hata_cuda_mode mode, bool early, bool encode_last = true) {
    return [=, this](int set) {
      hata_cuda_step s = step(set, budget, mode);
      if (squares) s.score = HATA_CUDA_SQUARES;
      s.early = early ? 1 : 0;
      s.encode_last = encode_last ? 1 : 0;
      check(hata_cuda_decode(&s, workspace_.get(), workspace_.size(), stream_), "decode");
    };
  };
  if (method == "dense") {
    report(method, "step", cell_.n_kv, cell_.cache_bytes(), decode(HATA_CUDA_DENSE, false, false),
           row);
  } else if (method == "hata" || method == "hata-early" || squares) {
    const auto enqueue = decode(HATA_CUDA_SPARSE, method == "hata-early");
    report(method, "step", budget, step_bytes(budget), enqueue, row);
    if (options_.clocks) measure_parts(method, budget, enqueue, row);
  } else if (method == "auto") {
    const hata_cuda_step s = step(0, budget, HATA_CUDA_AUTO);
    const double bytes = hata_cuda_runs_dense(&s) != 0 ? cell_.cache_bytes() : step_bytes(budget);
    report(method, "step", budget, bytes, decode(HATA_CUDA_AUTO, false), row);
  } else if (method == "attend") {
    const int capacity = round_up(budget, 32);
    std::vector<int32_t> cells(static_cast<size_t>(cell_.pairs()) * capacity);
    for (size_t i = 0; i < cells.size(); ++i) {
      const auto at = static_cast<int64_t>(i % capacity);
      cells[i] = static_cast<int32_t>(at * cell_.n_kv / capacity +
                                      (i * 2654435761u >> 7) % std::max(1, cell_.n_kv / capacity));
    }
    lists_ = Buffer<int32_t>(cells.size());
    check(cudaMemcpy(lists_.get(), cells.data(), cells.size() * 4, cudaMemcpyHostToDevice), "copy");
    const double bytes = 2.0 * cell_.pairs() * budget * cell_.row_bytes();
    report(
        method, "attend", budget, bytes,
        [&](int set) {
          hata_cuda_step s = step(set, budget, HATA_CUDA_DENSE);
          s.encode_last = 0;
          check(hata::cuda::attend_lists(s, lists_.get(), nullptr, capacity, workspace_.get(),
                                         workspace_.size(), stream_),
                "attend");
        },
        row);
  } else if (method == "quest16" || method == "quest32") {
    measure_quest(method == "quest16" ? 16 : 32, budget, row);
  } else if (method == "loki") {
    measure_loki(budget, row);
  } else {
    throw std::runtime_error("method " + method + ": want one of\n" + methods_help());
  }
}

// Where a step's time goes, from the last replay: means over blocks, as their first threads see it.
void Bench::measure_parts(const std::string& method, int budget,
                          const std::function<void(int)>& enqueue,
                          const std::function<void(const Row&)>& row) {
  const size_t most = static_cast<size_t>(cell_.pairs()) * cuda::kMostBlocks;
  Buffer<long long> clocks(most * cuda::kParts);
  clocks.zero();
  cuda::tuning().clocks = clocks.get();
  time_graph(enqueue, n_sets_, 100, stream_);
  cuda::tuning().clocks = nullptr;
  std::vector<long long> at(clocks.size());
  check(cudaMemcpy(at.data(), clocks.get(), at.size() * sizeof(long long), cudaMemcpyDeviceToHost),
        "copy");
  int device = 0, khz = 0;
  check(cudaGetDevice(&device), "device");
  check(cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, device), "clock rate");
  for (int part = 1; part < cuda::kParts; ++part) {
    double sum = 0, least = 1e30, greatest = 0;
    int n = 0;
    for (size_t block = 0; block < most; ++block) {
      const long long* of = at.data() + block * cuda::kParts;
      if (of[0] == 0) continue;  // fewer blocks
      const double us = static_cast<double>(of[part] - of[part - 1]) * 1e3 / khz;
      sum += us, least = std::min(least, us), greatest = std::max(greatest, us);
      ++n;
    }
    if (n == 0) throw std::runtime_error("--clocks: want a build with HATA_CUDA_CLOCKS=ON");
    row({cell_, method, cuda::kPartNames[part], budget, sum / n, least, greatest, 0});
  }
}

void Bench::measure_quest(int page, int budget, const std::function<void(const Row&)>& row) {
  const auto pages = [&](int set) {
    Set& s = sets_[static_cast<size_t>(set)];
    return cuda::QuestPages{(page == 16 ? s.quest16 : s.quest32).get(), page, cell_.n_kv / page};
  };
  for (int set = 0; set < n_sets_; ++set) {
    Set& s = sets_[static_cast<size_t>(set)];
    Buffer<std::byte>& bounds = page == 16 ? s.quest16 : s.quest32;
    const hata_cuda_step one = step(set, budget, HATA_CUDA_SPARSE);
    if (bounds.size() == 0) {
      bounds = Buffer<std::byte>(cuda::quest_store_size(one, cell_.batch, pages(set)));
      check(cuda::quest_build(one, pages(set), stream_), "quest");
    }
  }
  const hata_cuda_step one = step(0, budget, HATA_CUDA_SPARSE);
  rival_workspace_ = Buffer<std::byte>(cuda::quest_workspace_size(one, pages(0)));
  rival_workspace_.zero();
  const double bytes =
      cuda::quest_score_bytes(one, pages(0)) + 2.0 * cell_.pairs() * budget * cell_.row_bytes();
  report(
      "quest" + std::to_string(page), "step", budget, bytes,
      [&](int set) {
        check(
            cuda::quest_step(step(set, budget, HATA_CUDA_SPARSE), pages(set),
                             cuda::RivalPath::automatic, rival_workspace_.get(),
                             rival_workspace_.size(), workspace_.get(), workspace_.size(), stream_),
            "quest");
      },
      row);
}

void Bench::measure_loki(int budget, const std::function<void(const Row&)>& row) {
  if (basis_.size() == 0) {
    basis_ = Buffer<float>(static_cast<size_t>(cell_.n_kv_heads) * cell_.head_dim * 32);
    fill_normal(basis_.get(), HATA_CUDA_F32, basis_.size(), 5,
                1.0f / std::sqrt(static_cast<float>(cell_.head_dim)), stream_);
  }
  const auto keys = [&](int set) {
    return cuda::LokiKeys{sets_[static_cast<size_t>(set)].loki.get(), basis_.get(),
                          round_up(cell_.n_kv, 256)};
  };
  for (int set = 0; set < n_sets_; ++set) {
    Set& s = sets_[static_cast<size_t>(set)];
    if (s.loki.size() > 0) continue;
    const hata_cuda_step one = step(set, budget, HATA_CUDA_SPARSE);
    s.loki = Buffer<std::byte>(cuda::loki_store_size(one, cell_.batch, keys(set)));
    check(cuda::loki_build(one, keys(set), stream_), "loki");
  }
  const hata_cuda_step one = step(0, budget, HATA_CUDA_SPARSE);
  rival_workspace_ = Buffer<std::byte>(cuda::loki_workspace_size(one, keys(0)));
  rival_workspace_.zero();
  const double bytes =
      cuda::loki_score_bytes(one, keys(0)) + 2.0 * cell_.pairs() * budget * cell_.row_bytes();
  report(
      "loki", "step", budget, bytes,
      [&](int set) {
        check(
            cuda::loki_step(step(set, budget, HATA_CUDA_SPARSE), keys(set),
                            cuda::RivalPath::automatic, rival_workspace_.get(),
                            rival_workspace_.size(), workspace_.get(), workspace_.size(), stream_),
            "loki");
      },
      row);
}

}  // namespace

const char* methods_help() {
  return "dense       all keys, by our own kernel\n"
         "hata        always sparse\n"
         "hata:score=squares  the same by the rule of squares\n"
         "hata-early  as hata, each step launched to overlap with the one before\n"
         "auto        sparse or dense, whichever was measured to be faster\n"
         "attend      attention to given keys alone (the last stage)\n"
         "quest16, quest32  Quest with pages of 16 or 32 keys\n"
         "loki        Loki with 32 channels\n";
}

Cell Cell::parse(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t colon = std::min(text.find(':', at), text.size());
    parts.push_back(text.substr(at, colon - at));
    at = colon + 1;
  }
  const auto bad = [&](const std::string& why) {
    return std::runtime_error("cell '" + text + "': " + why +
                              "; want B:n_q_heads:n_kv_heads:n_kv[:f16|bf16[:page]]");
  };
  if (parts.size() < 4 || parts.size() > 6) throw bad("wrong number of fields");
  const auto number = [&](const std::string& s) {
    char* end = nullptr;
    const long n = std::strtol(s.c_str(), &end, 10);
    if (s.empty() || *end != '\0' || n < 1) throw bad("'" + s + "' is no positive number");
    return static_cast<int>(n);
  };
  Cell c;
  c.batch = number(parts[0]);
  c.n_q_heads = number(parts[1]);
  c.n_kv_heads = number(parts[2]);
  c.n_kv = number(parts[3]);
  if (parts.size() > 4) {
    if (parts[4] != "f16" && parts[4] != "bf16") throw bad("'" + parts[4] + "' is no type");
    if (parts[4] == "bf16") c.type = HATA_CUDA_BF16;
  }
  if (parts.size() > 5) c.page_size = number(parts[5]);
  if (c.n_kv % 256 != 0) throw bad("n_kv must be a multiple of 256");
  if (c.page_size > 0 && (c.batch & (c.batch - 1) || c.n_kv & (c.n_kv - 1))) {
    throw bad("a paged cache needs batch and n_kv that are powers of two");
  }
  return c;
}

double run(const Options& options, const std::function<void(double)>& begin,
           const std::function<void(const Row&)>& row) {
  check(hata_cuda_available(), "CUDA");
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  const double bandwidth = read_bandwidth(stream);
  begin(bandwidth);
  const auto started = std::chrono::steady_clock::now();
  for (const Cell& cell : options.cells) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - started;
    if (spent.count() > options.seconds) break;
    if (2 * 1.1 * cell.cache_bytes() > options.memory_gb * 1e9) {
      std::fprintf(stderr, "batch %d, n_kv %d: left out, two caches take more than %.0f GB\n",
                   cell.batch, cell.n_kv, options.memory_gb);
      continue;
    }
    Bench bench(options, cell, stream);
    for (const std::string& method : options.methods) {
      bool first = true;
      for (const double budget : options.budgets) {
        const bool once = method == "dense";
        if (once && !first) break;
        first = false;
        if (!once && budget >= cell.n_kv) continue;
        bench.measure(method, budget, row);
      }
    }
  }
  cudaStreamDestroy(stream);
  return bandwidth;
}

}  // namespace hata::bench
