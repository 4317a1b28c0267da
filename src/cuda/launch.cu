// Checks a step, plans it (which kernels, how many blocks, how much shared memory) and launches it:
// the C interface of include/hata/cuda.h.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "attend_lists.h"
#include "launch.h"
#include "plan.h"
#include "step.cuh"
#include "tuning.h"

namespace hata::cuda {

// Of the files in instances/.
using LaunchFused = cudaError_t(const StepParams&, int, int, cudaStream_t, int*);
LaunchFused launch_fused_f16_64, launch_fused_f16_128, launch_fused_bf16_64, launch_fused_bf16_128;
using Launch = cudaError_t(const StepParams&, int, int, cudaStream_t);
Launch launch_choose_64, launch_choose_128, launch_choose_256;
cudaError_t launch_split_f16(const StepParams& p, cudaStream_t stream);
cudaError_t launch_split_bf16(const StepParams& p, cudaStream_t stream);
cudaError_t launch_split_q8_0(const StepParams& p, cudaStream_t stream);

cudaError_t launch_fused(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream,
                         int* active) {
  const bool bf16 = p.cache.type == HATA_CUDA_BF16;
  LaunchFused& launch = p.head_dim == 64 ? (bf16 ? launch_fused_bf16_64 : launch_fused_f16_64)
                                         : (bf16 ? launch_fused_bf16_128 : launch_fused_f16_128);
  return launch(p, n_blocks, bytes, stream, active);
}

cudaError_t launch_choose(const StepParams& p, int n_blocks, int bytes, cudaStream_t stream) {
  Launch& launch = p.rbit == 64    ? launch_choose_64
                   : p.rbit == 128 ? launch_choose_128
                                   : launch_choose_256;
  return launch(p, n_blocks, bytes, stream);
}

cudaError_t launch_split(const StepParams& given, cudaStream_t stream) {
  StepParams p = given;
  const auto inverse_of = [](int n) { return n > 1 ? 0xffffffffu / n + 1 : 0u; };
  p.splits_inverse = inverse_of(p.splits);
  p.heads_inverse = inverse_of(p.n_kv_heads);
  switch (p.cache.type) {
    case HATA_CUDA_BF16:
      return launch_split_bf16(p, stream);
    case HATA_CUDA_Q8_0:
      return launch_split_q8_0(p, stream);
    default:
      return launch_split_f16(p, stream);
  }
}

Tuning& tuning() {
  static Tuning fixed;
  return fixed;
}

cudaError_t allow(const void* kernel, int shared_bytes) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, int> known;
  int device = 0;
  if (const cudaError_t e = cudaGetDevice(&device); e != cudaSuccess) return e;
  const std::lock_guard lock(mutex);
  int& allowed = known[{kernel, device}];
  if (shared_bytes <= allowed) return cudaSuccess;
  const cudaError_t e =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (e != cudaSuccess) return e;
  allowed = shared_bytes;
  // Else the driver may leave so much to the L1 cache that fewer blocks fit.
  return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                              cudaSharedmemCarveoutMaxShared);
}

namespace {

thread_local std::string last_error;

__attribute__((format(printf, 2, 3))) hata_cuda_status fail(hata_cuda_status status,
                                                            const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  last_error = text;
  return status;
}

hata_cuda_status bad(const char* field, int64_t value, const char* want) {
  return fail(HATA_CUDA_BAD_ARGUMENT, "%s is %lld; want %s", field, static_cast<long long>(value),
              want);
}

hata_cuda_status done(cudaError_t e, const char* what) {
  if (e == cudaSuccess) return HATA_CUDA_OK;
  return fail(HATA_CUDA_FAILED, "%s: %s", what, cudaGetErrorString(e));
}

// Graphics processors have uneven numbers of multiprocessors in their parts, and a cluster lies in
// one part: 31 clusters of 4 fit an H200 of 132, not 33.
void count_clusters(Device& device) {
  StepParams p{};
  p.n_rows = p.n_kv_heads = p.group = 1;
  p.head_dim = 128;
  p.cache.type = HATA_CUDA_F16;
  device.clusters[1] = device.multiprocessors;
  for (int n = 2; n <= kMostBlocks && device.major >= 9; n *= 2) {
    int active = 0;
    if (launch_fused(p, n, device.block_bytes - kStaticBytes, nullptr, &active) != cudaSuccess) {
      cudaGetLastError();  // it stays the last error until it is asked for
      active = 0;
    }
    device.clusters[n] = active;
  }
}

// The current device, asked once.
hata_cuda_status this_device(Device& out) {
  static std::mutex mutex;
  static std::map<int, Device> known;
  int device = 0;
  if (const cudaError_t e = cudaGetDevice(&device); e != cudaSuccess) {
    return fail(HATA_CUDA_NO_DEVICE, "no CUDA device: %s", cudaGetErrorString(e));
  }
  const std::lock_guard lock(mutex);
  const auto at = known.find(device);
  if (at != known.end()) {
    out = at->second;
  } else {
    const auto get = [&](cudaDeviceAttr attribute) {
      int value = 0;
      cudaDeviceGetAttribute(&value, attribute, device);
      return value;
    };
    out = {.multiprocessors = get(cudaDevAttrMultiProcessorCount),
           .shared_bytes = get(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
           .block_bytes = get(cudaDevAttrMaxSharedMemoryPerBlockOptin),
           .major = get(cudaDevAttrComputeCapabilityMajor),
           .clusters = {}};
    if (out.multiprocessors == 0) {
      return fail(HATA_CUDA_NO_DEVICE, "CUDA device %d does not answer", device);
    }
    count_clusters(out);
    known[device] = out;
  }
  if (out.major < 8) {
    return fail(HATA_CUDA_NO_DEVICE,
                "CUDA device %d has compute capability %d.x; kernels are built for 8.0 and later",
                device, out.major);
  }
  return HATA_CUDA_OK;
}

constexpr int kMostPairs = 65535;  // rows times KV heads: of a grid's second dimension

hata_cuda_status check(const hata_cuda_shape& s) {
  if (s.n_kv_heads < 1) return bad("shape.n_kv_heads", s.n_kv_heads, "1 or more");
  if (s.n_q_heads < 1 || s.n_q_heads % s.n_kv_heads != 0) {
    return bad("shape.n_q_heads", s.n_q_heads, "a multiple of n_kv_heads");
  }
  if (s.n_q_heads / s.n_kv_heads > kMaxGroup) {
    return bad("shape.n_q_heads / n_kv_heads", s.n_q_heads / s.n_kv_heads, "at most 16");
  }
  const int d = s.head_dim;
  if (d != 64 && d != 80 && d != 96 && d != 128 && d != 256) {
    return bad("shape.head_dim", d, "64, 80, 96, 128 or 256");
  }
  if (s.rbit != 64 && s.rbit != 128 && s.rbit != 256) {
    return bad("shape.rbit", s.rbit, "64, 128 or 256");
  }
  return HATA_CUDA_OK;
}

hata_cuda_status check(const hata_cuda_cache& c, int head_dim) {
  if (c.keys == nullptr) return bad("cache.keys", 0, "device memory");
  if (c.values == nullptr) return bad("cache.values", 0, "device memory");
  const bool q8_0 = c.type == HATA_CUDA_Q8_0;
  if (c.type != HATA_CUDA_F16 && c.type != HATA_CUDA_BF16 && !q8_0) {
    return bad("cache.type", c.type, "HATA_CUDA_F16, HATA_CUDA_BF16 or HATA_CUDA_Q8_0");
  }
  if (q8_0 && head_dim % kQ8Block != 0) {
    return bad("shape.head_dim", head_dim,
               "64, 96, 128 or 256: blocks of HATA_CUDA_Q8_0 are of 32");
  }
  const std::pair<const char*, int64_t> starts[] = {
      {"cache.keys", reinterpret_cast<intptr_t>(c.keys)},
      {"cache.values", reinterpret_cast<intptr_t>(c.values)},
      {"cache.seq_stride", c.block_table == nullptr ? c.seq_stride : 0},
      {"cache.cell_stride", c.cell_stride},
      {"cache.head_stride", c.head_stride},
      {"cache.page_stride", c.block_table != nullptr ? c.page_stride : 0}};
  for (const auto& [field, value] : starts) {
    if (value % (q8_0 ? 2 : 16) != 0) {
      return bad(field, value,
                 q8_0 ? "a multiple of 2 bytes (blocks of HATA_CUDA_Q8_0 start with an f16)"
                      : "a multiple of 16 bytes (rows are read by 16)");
    }
  }
  if (c.block_table != nullptr &&
      (c.page_size < 16 || c.page_size > 256 || (c.page_size & (c.page_size - 1)) != 0)) {
    return bad("cache.page_size", c.page_size, "a power of two from 16 to 256");
  }
  return HATA_CUDA_OK;
}

hata_cuda_status check(const hata_cuda_codes& c, const hata_cuda_cache& cache,
                       const hata_cuda_projection& p) {
  if (c.codes == nullptr) return bad("codes.codes", 0, "device memory");
  if (cache.block_table == nullptr && (c.capacity < kPiece || c.capacity % kPiece != 0)) {
    return bad("codes.capacity", c.capacity, "a multiple of 128");
  }
  if (reinterpret_cast<intptr_t>(c.codes) % 16 != 0 ||
      reinterpret_cast<intptr_t>(c.lengths) % 16 != 0) {
    return fail(HATA_CUDA_BAD_ARGUMENT, "codes.codes, codes.lengths: want addresses of 16 bytes");
  }
  if (p.keys == nullptr) return bad("projection.keys", 0, "device memory");
  if (c.lengths != nullptr && p.inv_units == nullptr) {
    return bad("projection.inv_units", 0, "device memory, since codes.lengths is given");
  }
  return HATA_CUDA_OK;
}

hata_cuda_status check(const hata_cuda_step& s) {
  hata_cuda_status status = check(s.shape);
  if (status == HATA_CUDA_OK) status = check(s.cache, s.shape.head_dim);
  if (status == HATA_CUDA_OK && (s.mode != HATA_CUDA_DENSE || s.encode_last != 0)) {
    status = check(s.codes, s.cache, s.projection);
  }
  if (status != HATA_CUDA_OK) return status;
  if (s.n_rows < 1) return bad("n_rows", s.n_rows, "1 or more");
  if (int64_t{s.n_rows} * s.shape.n_kv_heads > kMostPairs) {
    return bad("n_rows * n_kv_heads", int64_t{s.n_rows} * s.shape.n_kv_heads, "at most 65535");
  }
  if (s.max_n_kv < 1) return bad("max_n_kv", s.max_n_kv, "1 or more");
  if (s.mode != HATA_CUDA_DENSE && s.cache.block_table == nullptr &&
      s.max_n_kv > s.codes.capacity) {
    return bad("max_n_kv", s.max_n_kv, "at most codes.capacity");
  }
  if (s.mode != HATA_CUDA_DENSE && s.budget < 1) return bad("budget", s.budget, "1 or more");
  if (s.score != HATA_CUDA_SUM && s.score != HATA_CUDA_SQUARES) {
    return bad("score", s.score, "HATA_CUDA_SUM or HATA_CUDA_SQUARES");
  }
  if (s.sink < 0) return bad("sink", s.sink, "0 or more");
  if (s.recent < 0) return bad("recent", s.recent, "0 or more");
  if (s.q == nullptr || s.out == nullptr) return bad("q, out", 0, "device memory");
  for (const auto& [field, type] : {std::pair("q_type", s.q_type), {"out_type", s.out_type}}) {
    if (type != HATA_CUDA_F32 && type != HATA_CUDA_F16 && type != HATA_CUDA_BF16) {
      return bad(field, type, "HATA_CUDA_F32, HATA_CUDA_F16 or HATA_CUDA_BF16");
    }
  }
  if (s.bias != nullptr && s.slopes == nullptr) return bad("slopes", 0, "device memory, for bias");
  return HATA_CUDA_OK;
}

int shift_of(const hata_cuda_cache& cache) {
  int shift = 0;
  while (cache.block_table != nullptr && 1 << shift < cache.page_size) ++shift;
  return shift;
}

int round_up(int64_t n, int to) { return static_cast<int>((n + to - 1) / to * to); }

int tile_bytes(int head_dim) { return kTileKeys * (head_dim * 2 + 16); }

StepParams params_of(const hata_cuda_step& s) {
  StepParams p{};
  p.n_rows = s.n_rows;
  p.n_kv_heads = s.shape.n_kv_heads;
  p.group = s.shape.n_q_heads / s.shape.n_kv_heads;
  p.head_dim = s.shape.head_dim;
  p.rbit = s.shape.rbit;
  p.cache = s.cache;
  p.page_shift = shift_of(s.cache);
  p.codes = s.codes;
  p.projection = s.projection;
  p.q = s.q;
  p.out = s.out;
  p.q_type = s.q_type;
  p.out_type = s.out_type;
  p.q_row_stride = s.q_row_stride;
  p.q_head_stride = s.q_head_stride;
  p.out_row_stride = s.out_row_stride;
  p.out_head_stride = s.out_head_stride;
  p.sequences = s.sequences;
  p.n_kv = s.n_kv;
  p.max_n_kv = s.max_n_kv;
  p.budgets = s.budgets;
  p.budget = std::min(s.budget, s.max_n_kv);
  p.sink = s.sink;
  p.recent = s.recent;
  p.valid = s.valid;
  p.forced = s.forced;
  p.bit_stride = s.bit_stride;
  p.encode_last = s.encode_last != 0;
  p.early = s.early != 0;
  p.squares = s.score == HATA_CUDA_SQUARES;
  p.scale = s.scale;
  p.softcap = s.softcap;
  p.sinks = s.sinks;
  p.slopes = s.slopes;
  p.bias = s.bias;
  p.bias_stride = s.bias_stride;
  p.selected = s.selected;
  p.n_selected = s.n_selected;
  p.selected_stride = s.budget;
  p.clocks = tuning().clocks;
  return p;
}

/// What lies in the workspace, by offset.
struct Workspace {
  size_t arrivals = 0, lists, counts, partial, partial_ml, bytes;

  Workspace(const StepParams& p, bool with_lists, int splits) {
    const size_t pairs = static_cast<size_t>(p.n_rows) * p.n_kv_heads;
    size_t at = 0;
    const auto take = [&](size_t size) {
      const size_t begin = at;
      at += (size + 255) / 256 * 256;
      return begin;
    };
    arrivals = take(kMostPairs * sizeof(unsigned));  // where they are for a step of any size
    lists = take(with_lists ? pairs * p.budget * sizeof(int32_t) : 0);
    counts = take(with_lists ? pairs * sizeof(int32_t) : 0);
    const size_t parts = pairs * static_cast<size_t>(splits) * p.group;
    partial = take(parts * p.head_dim * sizeof(float));
    partial_ml = take(parts * 2 * sizeof(float));
    bytes = at;
  }
};

// Blocks that encode last keys, where each does so once.
int most_encoders(const StepParams& p) {
  const int at_once = kSplitWarps / (p.rbit / kWarp);
  return (p.n_rows * p.n_kv_heads + at_once - 1) / at_once;
}

// Parts that each row and KV head's keys are attended to in; `encodes`: last keys are encoded
// beside.
int splits_for(const StepParams& p, const Device& device, int n_keys, bool encodes) {
  const int pairs = p.n_rows * p.n_kv_heads;
  if (tuning().splits > 0) return tuning().splits;
  int slots = device.multiprocessors;
  // Few keys are attended to in no more time than last keys are encoded in.
  if (encodes && n_keys <= 1024) slots -= most_encoders(p);
  const int most = std::max(1, n_keys / (2 * kSplitWarps * kTileKeys));
  return std::clamp(slots / pairs, 1, std::min(most, 256));
}

// Blocks that encode last keys: as many as find room beside those that attend, so that all run at
// once, but no fewer than have each encode twice.
int encoders_for(const StepParams& p, const Device& device, int splits) {
  const int most = most_encoders(p),
            room = device.multiprocessors - p.n_rows * p.n_kv_heads * splits;
  return std::max(std::min(most, room), (most + 1) / 2);
}

// The copy engine is faster once every warp has some tiles to copy (docs/cuda.md).
bool bulk_pays(const StepParams& p, const Device& device, int splits) {
  return device.major >= 9 && p.max_n_kv / splits >= 16 * kSplitWarps * kTileKeys;
}

}  // namespace

namespace {

StepLayout layout_of(const StepParams& p, int n_blocks) {
  const int bins = 4 * n_bins(p.squares, p.group, p.rbit);
  const int slab = p.attend ? kSlabBytes : p.head_dim * p.slab_columns * 4;
  const int candidates = p.n_warps * p.candidate_limit * 4;
  const bool is_half = p.n_warps == kHalfWarps;
  StepLayout at{};
  const auto take = [&](int size) {
    const int begin = at.bytes;
    at.bytes += round_up(size, 16);
    return begin;
  };
  at.ring = take(p.n_warps * p.gather_bytes);
  at.shared = take(is_half ? candidates : std::max(slab, candidates));
  at.slab = is_half ? at.ring + kSoonStages * p.n_warps * piece_bytes(p.rbit) : at.shared;
  at.sample = take(bins);
  at.hist = take(bins);
  // A block alone has its list where the sums over blocks were; others may send theirs any time.
  const int list = p.list_limit * 4;
  at.totals = take(n_blocks == 1 ? std::max(2 * bins, list) : bins);
  at.before = n_blocks == 1 ? at.totals + bins : take(bins);
  at.list = n_blocks == 1 ? at.totals : take(list);
  at.vectors = take((p.group + 2) * vector_stride(p.head_dim) * 4);
  at.results = take(p.attend ? p.group * (p.head_dim + 2 * n_blocks) * 4 : 0);
  return at;
}

}  // namespace

Plan plan_step(const StepParams& given, const Device& device, bool fused) {
  StepParams p = given;
  p.attend = fused;
  const int pairs = p.n_rows * p.n_kv_heads;
  const int pieces = (p.max_n_kv + kPiece - 1) / kPiece;

  // What lies in a block's shared memory, of `most_bytes`; no blocks: it is too much.
  const auto lay_out = [&](int n_warps, int n, int most_bytes) {
    Plan plan{.n_blocks = n, .params = p};
    StepParams& q = plan.params;
    const int own_pieces = (pieces + n - 1) / n;
    if (own_pieces > kMostPieces) return Plan{};
    q.n_warps = n_warps;
    q.list_limit = fused ? round_up((p.budget + n - 1) / n, kTileKeys) : 0;
    q.slab_columns = p.rbit / n;
    while (q.slab_columns > 8 && p.head_dim * q.slab_columns * 4 > kSlabBytes) q.slab_columns /= 2;
    const int tiles =
        fused ? std::max(2 * tile_bytes(p.head_dim), p.group * (p.head_dim + 4) * 4) : 0;
    const int ties = own_pieces * kPiece / 8 / n_warps + 1;  // bits in the ring's memory
    q.gather_bytes =
        round_up(std::max({n_stages(fused, p.rbit) * piece_bytes(p.rbit), tiles, ties}), 16);
    // As many candidates as there is room for, in W's place too, since all that are chosen may lie
    // in one block, and a bin may hold many keys. With few a step is slower, not wrong.
    q.candidate_limit = 0;
    q.layout = layout_of(q, n);
    const int room = most_bytes - q.layout.bytes + (q.layout.sample - q.layout.shared);
    const int of_a_warp = (own_pieces + n_warps - 1) / n_warps * kPiece;
    q.candidate_limit = std::min(room / (4 * n_warps) / 32 * 32, of_a_warp);
    const int least = n_warps == kHalfWarps ? 2 * p.budget / n_warps + kPiece : 32;
    if (q.candidate_limit < std::min(least, of_a_warp)) return Plan{};
    q.layout = layout_of(q, n);
    plan.shared_bytes = q.layout.bytes;
    return plan;
  };
  const double bytes =
      p.max_n_kv * (p.rbit / 8.0 + 0.5) + (fused ? p.budget * 4.0 * p.head_dim : 0.0);
  // What takes least if a wave costs 12 us and a multiprocessor reads 30 GB/s (fits what an H200
  // took, docs/cuda.md).
  Plan best;
  double best_us = 1e30;
  const auto consider = [&](int n_warps, int n, int at_once, int most_bytes) {
    const Tuning& fixed = tuning();
    if (fixed.n_blocks > 0 && fixed.n_blocks != n) return;
    if (fixed.n_warps > 0 && fixed.n_warps != n_warps) return;
    if (at_once == 0 || n > pieces) return;
    const double of_all = static_cast<double>(kStepWarps) / n_warps;  // share the bandwidth
    const double us = (pairs + at_once - 1) / at_once * (12.0 + of_all * bytes / n / 30e3);
    if (us >= best_us) return;
    const Plan plan = lay_out(n_warps, n, most_bytes);
    if (plan.n_blocks > 0) best = plan, best_us = us;
  };
  for (int n = 1; n <= std::min(kMostBlocks, p.rbit / 8); n *= 2) {
    consider(kStepWarps, n, device.clusters[n], device.block_bytes - kStaticBytes);
  }
  if (fused) {
    consider(kHalfWarps, 1, 2 * device.multiprocessors,
             device.shared_bytes / 2 - kReservedBytes - kStaticBytes);
  }
  return best;
}

namespace {

/// How a step runs.
struct Way {
  bool dense = false, fused = false;
  Plan plan;
  int splits = 1;
};

// Rows of the cache up to which the exact path was measured to be faster (docs/cuda.md).
constexpr int64_t kDenseRows = 32768;

hata_cuda_status way_of(const hata_cuda_step& s, StepParams& p, Device& device, Way& way) {
  if (const hata_cuda_status status = check(s); status != HATA_CUDA_OK) return status;
  if (const hata_cuda_status status = this_device(device); status != HATA_CUDA_OK) return status;
  p = params_of(s);
  const int64_t rows = int64_t{s.n_rows} * s.shape.n_kv_heads * s.max_n_kv;
  way.dense = s.mode == HATA_CUDA_DENSE ||
              (s.mode == HATA_CUDA_AUTO && (rows <= kDenseRows || s.budget >= s.max_n_kv));
  if (!way.dense) {
    if (has_fused(p.cache.type, p.head_dim, p.rbit, p.group) && tuning().fused != 0) {
      way.plan = plan_step(p, device, true);
      way.fused = way.plan.n_blocks > 0;
    }
    if (!way.fused) way.plan = plan_step(p, device, false);
    if (way.plan.n_blocks == 0) {
      return bad("max_n_kv", s.max_n_kv, "fewer cells: the choice does not fit this device");
    }
  }
  way.splits = splits_for(p, device, way.dense ? s.max_n_kv : p.budget, way.dense && p.encode_last);
  return HATA_CUDA_OK;
}

}  // namespace

hata_cuda_status attend_lists(const hata_cuda_step& step, const int32_t* lists,
                              const int32_t* counts, int64_t capacity, void* workspace,
                              size_t workspace_size, hata_cuda_stream stream) {
  StepParams p;
  Device device;
  Way way;
  hata_cuda_step s = step;
  s.mode = HATA_CUDA_DENSE;
  s.encode_last = 0;
  if (const hata_cuda_status status = way_of(s, p, device, way); status != HATA_CUDA_OK)
    return status;
  p.splits = splits_for(p, device, static_cast<int>(capacity), false);
  const Workspace at(p, false, p.splits);
  if (workspace_size < at.bytes) {
    return bad("workspace_size", static_cast<int64_t>(workspace_size),
               "hata_cuda_workspace_size()");
  }
  auto* memory = static_cast<std::byte*>(workspace);
  p.lists = lists;
  p.list_counts = counts;
  p.list_stride = capacity;
  p.arrivals = reinterpret_cast<unsigned*>(memory + at.arrivals);
  p.partial = reinterpret_cast<float*>(memory + at.partial);
  p.partial_ml = reinterpret_cast<float*>(memory + at.partial_ml);
  return done(launch_split(p, stream), "attend");
}

}  // namespace hata::cuda

using namespace hata::cuda;  // NOLINT: the C interface is a front of it

const char* hata_cuda_error(void) { return last_error.c_str(); }

hata_cuda_status hata_cuda_available(void) {
  Device device;
  return this_device(device);
}

hata_cuda_status hata_cuda_encode_keys(const hata_cuda_encode* e, hata_cuda_stream stream) {
  hata_cuda_status status = check(e->shape);
  if (status == HATA_CUDA_OK) status = check(e->cache, e->shape.head_dim);
  if (status == HATA_CUDA_OK) status = check(e->codes, e->cache, e->projection);
  Device device;
  if (status == HATA_CUDA_OK) status = this_device(device);
  if (status != HATA_CUDA_OK) return status;
  if (e->count < 0) return bad("count", e->count, "0 or more");
  if (e->count == 0) return HATA_CUDA_OK;
  const EncodeParams p{.n_kv_heads = e->shape.n_kv_heads,
                       .head_dim = e->shape.head_dim,
                       .rbit = e->shape.rbit,
                       .cache = e->cache,
                       .page_shift = shift_of(e->cache),
                       .codes = e->codes,
                       .projection = e->projection,
                       .sequence = e->sequence,
                       .first = e->first,
                       .count = e->count,
                       .cells = e->cells};
  return done(launch_encode(p, stream), "encode keys");
}

size_t hata_cuda_workspace_size(const hata_cuda_step* step) {
  StepParams p;
  Device device;
  Way way;
  if (way_of(*step, p, device, way) != HATA_CUDA_OK) return 0;
  // Enough for either way, so that a step may change its mode.
  const int splits = std::max(way.splits, splits_for(p, device, step->max_n_kv, false));
  return Workspace(p, true, splits).bytes;
}

int hata_cuda_runs_dense(const hata_cuda_step* step) {
  StepParams p;
  Device device;
  Way way;
  return way_of(*step, p, device, way) == HATA_CUDA_OK && way.dense ? 1 : 0;
}

hata_cuda_status hata_cuda_decode(const hata_cuda_step* step, void* workspace,
                                  size_t workspace_size, hata_cuda_stream stream) {
  StepParams p;
  Device device;
  Way way;
  if (const hata_cuda_status status = way_of(*step, p, device, way); status != HATA_CUDA_OK) {
    return status;
  }
  if (way.fused)
    return done(launch_fused(way.plan.params, way.plan.n_blocks, way.plan.shared_bytes, stream),
                "step");
  const Workspace at(p, !way.dense, way.splits);
  if (workspace == nullptr || workspace_size < at.bytes) {
    return bad("workspace_size", static_cast<int64_t>(workspace_size),
               "hata_cuda_workspace_size() bytes");
  }
  auto* memory = static_cast<std::byte*>(workspace);
  if (!way.dense) {
    StepParams c = way.plan.params;
    if (c.selected == nullptr) {
      c.selected = reinterpret_cast<int32_t*>(memory + at.lists);
      c.selected_stride = p.budget;
    }
    if (c.n_selected == nullptr) c.n_selected = reinterpret_cast<int32_t*>(memory + at.counts);
    if (const cudaError_t e = launch_choose(c, way.plan.n_blocks, way.plan.shared_bytes, stream);
        e != cudaSuccess) {
      return done(e, "choose");
    }
    p.lists = c.selected;
    p.list_counts = c.n_selected;
    p.list_stride = c.selected_stride;
    p.early = p.encode_last = false;
  }
  p.splits = way.splits;
  if (p.encode_last) p.encoders = encoders_for(p, device, way.splits);
  p.bulk = way.dense && bulk_pays(p, device, way.splits);
  p.arrivals = reinterpret_cast<unsigned*>(memory + at.arrivals);
  p.partial = reinterpret_cast<float*>(memory + at.partial);
  p.partial_ml = reinterpret_cast<float*>(memory + at.partial_ml);
  return done(launch_split(p, stream), "attend");
}
