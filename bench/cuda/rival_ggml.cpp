// ggml's flash attention (GGML_OP_FLASH_ATTN_EXT), which is what llama.cpp runs, as a dense rival:
// one token of each sequence, f32 queries, a mask. Caches are [batch][cell][KV head][128], as
// llama.cpp's (`contiguous`), and the same memory read with the heads outside (`head-major`).
// The steps are nodes of one ggml graph, of which ggml makes a CUDA graph when it meets it again.
//   rival-ggml [--time-limit SECONDS] [--no-header] [--cpu] BATCH:Q_HEADS:KV_HEADS:N[:f16|bf16]...
// --cpu: by ggml's CPU backend, to show without a device that the right thing is computed.
#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "rival_cells.h"

namespace {

using rival::Cell;
using rival::Clock;
using rival::kHeadDim;
using rival::kReplays;

constexpr int kStep = 256;  // llama.cpp shows attention a multiple of so many cells
constexpr double kGraphMicroseconds = 4000;
// What differs more than this is not attention over these cells: then it is about 1.4. Sums in f16
// over as many keys as a block has differ by up to a tenth of it.
constexpr double kWrong = 0.2;

bool made_cuda_graph = false;  // only ggml's log tells

void on_log(ggml_log_level level, const char* text, void* /*user*/) {
  if (std::strstr(text, "CUDA graph warmup complete") != nullptr) made_cuda_graph = true;
  if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

double largest_error = 0;  // of what counts

rival::Cells* cells = nullptr;  // of the running program, for on_abort

// ggml ends the program where CUDA reports an error; the cells behind that one are still wanted.
void on_abort(const char* message) {
  std::printf("# failed: ggml stopped: %s\n", message);
  cells->start_over();
}

ggml_context_ptr new_context(size_t n_tensors, size_t n_nodes) {
  return ggml_context_ptr(
      ggml_init({n_tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(n_nodes, false),
                 nullptr, true}));
}

ggml_backend_buffer_ptr allocate(ggml_context* context, ggml_backend_buffer_type_t type) {
  ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors_from_buft(context, type));
  if (!buffer) throw std::runtime_error("no memory");
  return buffer;
}

/// Values of about a normal distribution, rounded to the cache's type, that repeat after `kPeriod`.
class Values {
 public:
  // Whole 16 bytes, so that copies are fast, and a prime number of rows until one comes again, so
  // that whatever is taken for something else has other values.
  static constexpr size_t kPeriod = (size_t{1} << 22) - 8;

  Values(uint32_t seed, ggml_type type) : floats_(kPeriod + kHeadDim), data_(kPeriod) {
    for (size_t i = 0; i < kPeriod; ++i) {
      uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull + seed * 0xd1b54a32d192ed03ull;
      x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
      x = (x ^ x >> 27) * 0x94d049bb133111ebull;
      x ^= x >> 31;
      const auto sum = float((x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24 & 255));
      floats_[i] = (sum - 510.0f) / 147.8f;
    }
    const int64_t n = kPeriod;
    if (type == GGML_TYPE_BF16) {
      auto* data = reinterpret_cast<ggml_bf16_t*>(data_.data());
      ggml_fp32_to_bf16_row(floats_.data(), data, n);
      ggml_bf16_to_fp32_row(data, floats_.data(), n);
    } else {
      ggml_fp32_to_fp16_row(floats_.data(), data_.data(), n);
      ggml_fp16_to_fp32_row(data_.data(), floats_.data(), n);
    }
    std::copy_n(floats_.begin(), kHeadDim, floats_.begin() + n);
  }

  /// The 128 values that begin at element `at` of a tensor that was filled.
  const float* row(size_t at) const { return &floats_[at % kPeriod]; }

  void fill(ggml_tensor* to) const {
    const size_t n = size_t(ggml_nelements(to));
    size_t done = std::min(n, kPeriod);
    ggml_backend_tensor_set(to, data_.data(), 0, done * sizeof(ggml_fp16_t));
    while (done < n) {  // from the device's own memory: caches may be tens of gigabytes
      const size_t more = std::min(done, n - done);
      const ggml_context_ptr context = new_context(2, 0);
      ggml_tensor* from = ggml_view_1d(context.get(), to, int64_t(more), 0);
      ggml_tensor* into =
          ggml_view_1d(context.get(), to, int64_t(more), done * sizeof(ggml_fp16_t));
      ggml_backend_view_init(from);
      ggml_backend_view_init(into);
      ggml_backend_tensor_copy(from, into);
      done += more;
    }
  }

 private:
  std::vector<float> floats_;
  std::vector<ggml_fp16_t> data_;
};

/// What keys, values and queries are filled with; made once, not in each cell.
struct AllValues {
  explicit AllValues(ggml_type as_type)
      : type(as_type), k(1, as_type), v(2, as_type), q(3, as_type) {}
  ggml_type type;
  Values k, v, q;
};

const AllValues& values_of(bool bf16) {
  if (bf16) {
    static const AllValues values(GGML_TYPE_BF16);
    return values;
  }
  static const AllValues values(GGML_TYPE_F16);
  return values;
}

/// Keys, values and queries of all sets, and the mask.
class Data {
 public:
  Data(const Cell& cell, ggml_backend_buffer_type_t where)
      : values(values_of(cell.bf16)), context_(new_context(4, 0)) {
    const auto elements = int64_t(cell.keys()) * cell.sets();
    k = ggml_new_tensor_1d(context_.get(), values.type, elements);
    v = ggml_new_tensor_1d(context_.get(), values.type, elements);
    q = ggml_new_tensor_1d(context_.get(), GGML_TYPE_F32, int64_t(cell.queries()) * cell.sets());
    mask = ggml_new_tensor_4d(context_.get(), GGML_TYPE_F16, cell.n, 1, 1, cell.batch);
    buffer_ = allocate(context_.get(), where);
    values.k.fill(k);
    values.v.fill(v);
    std::vector<float> queries(cell.queries() * size_t(cell.sets()));
    for (size_t i = 0; i < queries.size(); ++i) queries[i] = *values.q.row(i);
    ggml_backend_tensor_set(q, queries.data(), 0, ggml_nbytes(q));
    ggml_backend_tensor_memset(mask, 0, 0, ggml_nbytes(mask));
  }

  const AllValues& values;
  ggml_tensor *k = nullptr, *v = nullptr, *q = nullptr, *mask = nullptr;

 private:
  ggml_context_ptr context_;
  ggml_backend_buffer_ptr buffer_;
};

/// All steps on one layout of a cell, as one graph.
class Steps {
 public:
  Steps(const Cell& cell, const Data& data, bool head_major, ggml_backend_dev_t device, int n_calls)
      : c_(cell),
        data_(data),
        row_(head_major ? kHeadDim : size_t(cell.n_kv_heads) * kHeadDim),
        head_(head_major ? size_t(cell.n) * kHeadDim : kHeadDim),
        device_(device),
        backend_(ggml_backend_dev_init(device, nullptr)) {
    if (!backend_) throw std::runtime_error("the device does not start");
    // CUDA kernels of ggml keep these strides, times a head, as 32-bit numbers.
    if (head_ * 2 * size_t(c_.n_kv_heads - 1) > size_t{std::numeric_limits<int32_t>::max()}) {
      throw std::runtime_error("heads lie too far apart for ggml");
    }
    const auto n_tensors = size_t(3 * c_.sets() + n_calls);
    context_ = new_context(n_tensors, n_tensors);
    graph_ = ggml_new_graph_custom(context_.get(), n_tensors, false);
    std::vector<Inputs> inputs;
    for (int set = 0; set < c_.sets(); ++set) inputs.push_back(inputs_of(size_t(set)));
    for (int i = 0; i < n_calls; ++i) add_step(inputs[size_t(i) % inputs.size()]);
    const auto where = ggml_backend_dev_buffer_type(device);
    if (!ggml_backend_dev_supports_op(device, steps_[0])) {
      throw std::runtime_error("ggml has no kernel for it");
    }
    if (ggml_backend_buft_get_alloc_size(where, steps_[0]) > 2 * ggml_nbytes(steps_[0]) + 65536) {
      throw std::runtime_error("ggml would copy the cache into another type at each step");
    }
    buffer_ = allocate(context_.get(), where);
  }

  /// A step's time in each replay. The next graph is always under way already, as in an engine that
  /// is not kept waiting by its host, and the clock is read when one ends.
  std::vector<float> time() {
    for (int i = 0; i < 3; ++i) compute();  // the second makes the CUDA graph
    ggml_backend_synchronize(backend_.get());
    const ggml_backend_event_ptr events[2] = {
        ggml_backend_event_ptr(ggml_backend_event_new(device_)),
        ggml_backend_event_ptr(ggml_backend_event_new(device_))};
    const auto start = [&](int i) {
      compute();
      if (events[i % 2]) ggml_backend_event_record(events[i % 2].get(), backend_.get());
    };
    const auto wait = [&](int i) {
      if (events[i % 2]) {
        ggml_backend_event_synchronize(events[i % 2].get());
      } else {  // the CPU
        ggml_backend_synchronize(backend_.get());
      }
      return Clock::now();
    };
    std::vector<float> us;
    start(0);
    start(1);
    auto before = wait(0);
    for (int i = 1; i <= kReplays; ++i) {
      start(i + 1);
      const auto now = wait(i);
      const std::chrono::duration<float, std::micro> took = now - before;
      us.push_back(took.count() / float(steps_.size()));
      before = now;
    }
    ggml_backend_synchronize(backend_.get());
    return us;
  }

  /// How far some heads of the first and last set are from plain attention.
  double largest_error() {
    ggml_backend_buffer_clear(buffer_.get(), 0xff);
    compute();
    ggml_backend_synchronize(backend_.get());
    const int last_b = c_.batch - 1, last_head = c_.n_q_heads - 1, last_set = c_.sets() - 1;
    double largest = 0;
    for (const auto& [set, b, head] : {std::array{0, 0, 0}, std::array{last_set, last_b, last_head},
                                       std::array{0, last_b, last_head / 2}}) {
      const double e = error(size_t(set), size_t(b), size_t(head));
      if (!(e <= largest)) largest = std::isnan(e) ? INFINITY : e;
    }
    return largest;
  }

 private:
  struct Inputs {
    ggml_tensor *q, *k, *v;
  };

  Inputs inputs_of(size_t set) {
    const size_t element = ggml_type_size(data_.values.type);
    const auto view = [&](ggml_tensor* all) {
      return ggml_view_4d(context_.get(), all, kHeadDim, c_.n, c_.n_kv_heads, c_.batch,
                          row_ * element, head_ * element, c_.keys() / size_t(c_.batch) * element,
                          set * c_.keys() * element);
    };
    const size_t row = kHeadDim * sizeof(float);
    ggml_tensor* q =
        ggml_view_4d(context_.get(), data_.q, kHeadDim, 1, c_.n_q_heads, c_.batch, row, row,
                     size_t(c_.n_q_heads) * row, set * c_.queries() * sizeof(float));
    return {q, view(data_.k), view(data_.v)};
  }

  void add_step(const Inputs& in) {
    ggml_tensor* step = ggml_flash_attn_ext(context_.get(), in.q, in.k, in.v, data_.mask,
                                            rival::kScale, 0.0f, 0.0f);
    ggml_build_forward_expand(graph_, step);
    steps_.push_back(step);
  }

  void compute() {
    if (ggml_backend_graph_compute_async(backend_.get(), graph_) != GGML_STATUS_SUCCESS) {
      throw std::runtime_error("ggml could not compute it");
    }
  }

  double error(size_t set, size_t b, size_t head) const {
    const size_t n = size_t(c_.n), n_q_heads = size_t(c_.n_q_heads);
    const size_t kv_head = head / (n_q_heads / size_t(c_.n_kv_heads));
    const size_t first = set * c_.keys() + b * (c_.keys() / size_t(c_.batch)) + kv_head * head_;
    const size_t query = (b * n_q_heads + head) * kHeadDim;
    const float* q = data_.values.q.row(set * c_.queries() + query);
    std::vector<float> weights(n);
    for (size_t i = 0; i < n; ++i) {
      const float* k = data_.values.k.row(first + i * row_);
      float logit = 0;
      for (int j = 0; j < kHeadDim; ++j) logit += q[j] * k[j];
      weights[i] = logit * rival::kScale;
    }
    const float most = *std::max_element(weights.begin(), weights.end());
    double sum = 0, want[kHeadDim] = {};
    for (size_t i = 0; i < n; ++i) {
      const float* v = data_.values.v.row(first + i * row_);
      const double weight = std::exp(weights[i] - most);
      sum += weight;
      for (int j = 0; j < kHeadDim; ++j) want[j] += weight * double(v[j]);
    }
    float got[kHeadDim];
    ggml_backend_tensor_get(steps_[set], got, query * sizeof(float), sizeof(got));
    double off = 0, of = 0;
    for (int j = 0; j < kHeadDim; ++j) {
      const double x = double(got[j]) - want[j] / sum;
      off += x * x;
      of += want[j] / sum * want[j] / sum;
    }
    return std::sqrt(off / of);
  }

  const Cell& c_;
  const Data& data_;
  size_t row_, head_;  ///< elements from a cell to the next, and from a head
  ggml_backend_dev_t device_;
  ggml_backend_ptr backend_;  // one for each: what it knows of graphs must not outlive them
  ggml_context_ptr context_;
  ggml_backend_buffer_ptr buffer_;
  ggml_cgraph* graph_ = nullptr;
  std::vector<ggml_tensor*> steps_;
};

void measure(const Cell& cell, ggml_backend_dev_t device, bool cpu) {
  if (cell.n % kStep != 0) throw std::runtime_error("N is no multiple of 256");
  const Data data(cell, ggml_backend_dev_buffer_type(device));
  for (const bool head_major : {false, true}) {
    if (Clock::now() > cells->end()) return;
    const char* layout = head_major ? "head-major" : "contiguous";
    const auto remark = [&](const char* what, const std::string& why) {
      std::printf("# %s: ggml %s %d:%d:%d:%d:%s: %s\n", what, layout, cell.batch, cell.n_q_heads,
                  cell.n_kv_heads, cell.n, cell.bf16 ? "bf16" : "f16", why.c_str());
      std::fflush(stdout);
    };
    try {
      made_cuda_graph = false;
      Steps steps(cell, data, head_major, device, cell.calls(cpu ? 0 : kGraphMicroseconds));
      const std::vector<float> us = steps.time();
      const double error = steps.largest_error();
      if (!(error < kWrong)) {
        remark("WRONG", "differs from plain attention by " + std::to_string(error));
        continue;
      }
      largest_error = std::max(largest_error, error);
      if (!cpu && !made_cuda_graph) remark("slow", "ggml made no CUDA graph of it");
      rival::print_row("ggml", cell, layout, us);
    } catch (const std::exception& e) {
      remark("failed", e.what());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  rival::Cells all(argc, argv, "--cpu");
  cells = &all;
  ggml_log_set(on_log, nullptr);
  ggml_set_abort_callback(on_abort);
  ggml_backend_load_all();
  const bool cpu = all.own_option();
  ggml_backend_dev_t device =
      ggml_backend_dev_by_type(cpu ? GGML_BACKEND_DEVICE_TYPE_CPU : GGML_BACKEND_DEVICE_TYPE_GPU);
  if (device == nullptr) {
    std::puts("# failed: no device, or a ggml without CUDA (scripts/setup --cuda)");
    return 1;
  }
  const std::string version = std::string("ggml=") + ggml_version();
  std::printf("# device=%s %s\n", ggml_backend_dev_description(device), version.c_str());
  std::fflush(stdout);
  const auto fits = [&](const Cell& c) {
    size_t room = 0, whole = 0;
    ggml_backend_dev_memory(device, &room, &whole);
    return double(c.sets()) * 4.0 * double(c.keys()) + 5e8 <= double(room);
  };
  const int status = all.run(
      fits, [&](const Cell& c) { measure(c, device, cpu); }, [] { return false; });
  if (largest_error > 0) {
    std::printf("# %s: differs from plain attention by at most %.2g\n", version.c_str(),
                largest_error);
  }
  if (status == 0) all.print_seconds(version.c_str());
  return status;
}
