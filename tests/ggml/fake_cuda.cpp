// A stand-in for libhata-cuda, for tests without a device: the same C interface, the host's memory,
// the CPU's stages. Every call is done when it returns. It is strict where a device would only
// compute nonsense or a call would fail: it ends the program. All memory is device 0's but what was
// allocated on another one, or what a test gives to it.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/q8.h"
#include "core/reference.h"
#include "hata/attend.h"
#include "hata/cuda.h"
#include "hata/cuda_runtime.h"
#include "hata/encode.h"
#include "hata/score.h"

#define FAKE_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace hata;

std::atomic<int> steps_that_fail{0};
std::atomic<int> allocations_that_fail{0};
std::atomic<int> keys_in_passing{0};

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fake CUDA: %s\n", what);
  std::abort();
}
#define REQUIRE(what) require(what, #what)

thread_local int current_device = 0;

/// Which device's memory is where.
class Places {
 public:
  void put(const void* begin, size_t bytes, int device) {
    const std::lock_guard lock(mutex_);
    ranges_[static_cast<const std::byte*>(begin)] = {bytes, device};
  }
  void remove(const void* begin) {
    const std::lock_guard lock(mutex_);
    ranges_.erase(static_cast<const std::byte*>(begin));
  }
  int device_of(const void* address) {
    const auto* at = static_cast<const std::byte*>(address);
    const std::lock_guard lock(mutex_);
    const auto next = ranges_.upper_bound(at);
    if (next == ranges_.begin()) return 0;
    const auto& [begin, range] = *std::prev(next);
    return at < begin + range.first ? range.second : 0;
  }

 private:
  std::mutex mutex_;
  std::map<const std::byte*, std::pair<size_t, int>> ranges_;
};

// Never destroyed: memory is freed during exit.
Places& places() {
  static auto* all = new Places;
  return *all;
}

bool here(const void* address) {
  return address == nullptr || places().device_of(address) == current_device;
}

// A stream or an event is the number of its device + 1; a null pointer is any device's.
template <class Handle>
Handle handle_here() {
  return reinterpret_cast<Handle>(static_cast<std::intptr_t>(current_device) + 1);
}
template <class Handle>
bool is_here(Handle handle) {
  return handle == nullptr || handle == handle_here<Handle>();
}

bool aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

/// One KV head of one sequence.
struct Head {
  Head(const hata_cuda_shape& shape, const hata_cuda_cache& cache, const hata_cuda_codes& codes,
       int64_t sequence, int head)
      : keys(view(cache.keys, cache, sequence)), values(view(cache.values, cache, sequence)) {
    const int64_t slot = (sequence * shape.n_kv_heads + head) * codes.capacity;
    code = reinterpret_cast<uint64_t*>(codes.codes) + slot * (shape.rbit / 64);
    length = codes.lengths != nullptr ? codes.lengths + slot / 2 : nullptr;
  }
  static CacheView view(const void* data, const hata_cuda_cache& cache, int64_t sequence) {
    return {static_cast<const std::byte*>(data) + sequence * cache.seq_stride, DType::f16,
            static_cast<size_t>(cache.cell_stride), static_cast<size_t>(cache.head_stride)};
  }

  CacheView keys, values;  ///< of another type than f16: where the rows are
  uint64_t* code;
  uint8_t* length;
};

void check(const hata_cuda_shape& s, const hata_cuda_cache& cache, const hata_cuda_codes& codes) {
  REQUIRE(s.n_q_heads % s.n_kv_heads == 0 && s.n_q_heads / s.n_kv_heads <= 16);
  REQUIRE(s.head_dim == 64 || s.head_dim == 80 || s.head_dim == 96 || s.head_dim == 128 ||
          s.head_dim == 256);
  REQUIRE(s.rbit == 64 || s.rbit == 128 || s.rbit == 256);
  REQUIRE(cache.type == HATA_CUDA_F16 || cache.type == HATA_CUDA_Q8_0);
  REQUIRE(cache.type == HATA_CUDA_F16 || s.head_dim % kQ8Block == 0);
  REQUIRE(cache.block_table == nullptr);
  const int64_t unit = cache.type == HATA_CUDA_F16 ? 16 : 2;
  REQUIRE(cache.seq_stride % unit == 0 && cache.cell_stride % unit == 0 &&
          cache.head_stride % unit == 0);
  REQUIRE(codes.capacity % 128 == 0 && aligned(codes.codes) && aligned(codes.lengths));
  REQUIRE(here(cache.keys) && here(cache.values) && here(codes.codes) && here(codes.lengths));
}

void widen(const std::byte* row, hata_cuda_type type, int d, float* out) {
  if (type == HATA_CUDA_Q8_0) {
    widen_q8(row, d, out);
  } else {
    for (int i = 0; i < d; ++i) out[i] = reference::element(row, DType::f16, i);
  }
}

/// The rows of these cells as f32, and any others as anything.
CacheView widen_cells(const CacheView& view, int head, int d, const std::vector<int32_t>& cells,
                      std::vector<float>& out) {
  const auto n = static_cast<size_t>(d);
  const int32_t last = cells.empty() ? 0 : *std::max_element(cells.begin(), cells.end());
  out.resize((static_cast<size_t>(last) + 1) * n);
  for (const int32_t cell : cells) {
    widen_q8(view.row(cell, head), d, &out[static_cast<size_t>(cell) * n]);
  }
  return {reinterpret_cast<const std::byte*>(out.data()), DType::f32, n * sizeof(float), 0};
}

void encode_key(const hata_cuda_encode& e, int head, int64_t cell) {
  const Head at(e.shape, e.cache, e.codes, e.sequence, head);
  const int d = e.shape.head_dim, rbit = e.shape.rbit;
  const float* w = e.projection.keys + static_cast<int64_t>(head) * d * rbit;
  std::vector<float> key(static_cast<size_t>(d)), whole(key);
  widen(at.keys.row(cell, head), e.cache.type, d, whole.data());
  for (int i = 0; i < d; ++i) {
    key[i] = whole[i];
    if (e.projection.key_means != nullptr) key[i] -= e.projection.key_means[head * d + i];
  }
  encode(w, d, rbit, key.data(), DType::f32, key.size() * 4, 1, at.code + cell * (rbit / 64));
  if (at.length == nullptr) return;
  uint8_t length = 0;
  key_lengths(d, whole.data(), DType::f32, whole.size() * 4, 1, e.projection.inv_units[head],
              &length);
  uint8_t& pair = at.length[cell / 2];
  pair = static_cast<uint8_t>(cell % 2 == 0 ? (pair & 0xf0) | length : (pair & 15) | length << 4);
}

void encode_last_key(const hata_cuda_step& s, int row) {
  for (int other = 0; other < row; ++other) REQUIRE(s.sequences[row] != s.sequences[other]);
  hata_cuda_encode e{};
  e.shape = s.shape;
  e.cache = s.cache;
  e.codes = s.codes;
  e.projection = s.projection;
  e.sequence = s.sequences[row];
  const int64_t last = (s.n_kv != nullptr ? s.n_kv[row] : s.max_n_kv) - 1;
  for (int head = 0; head < s.shape.n_kv_heads; ++head) encode_key(e, head, last);
  ++keys_in_passing;
}

bool bit(const uint32_t* words, int64_t i) { return (words[i / 32] >> (i % 32) & 1) != 0; }

std::vector<int32_t> choose(const hata_cuda_step& s, int row, int head, const Head& at) {
  const int group = s.shape.n_q_heads / s.shape.n_kv_heads;
  const int d = s.shape.head_dim, rbit = s.shape.rbit;
  const float* w = (s.projection.queries != nullptr ? s.projection.queries : s.projection.keys) +
                   static_cast<int64_t>(head) * d * rbit;
  const float* q = static_cast<const float*>(s.q) + row * s.q_row_stride +
                   static_cast<int64_t>(head) * group * s.q_head_stride;
  std::vector<uint64_t> query(static_cast<size_t>(group * rbit / 64));
  encode(w, d, rbit, q, DType::f32, static_cast<size_t>(s.q_head_stride) * 4, group, query.data());
  const int64_t n_kv = s.n_kv != nullptr ? s.n_kv[row] : s.max_n_kv;
  REQUIRE(n_kv > 0 && n_kv <= s.max_n_kv);
  const int64_t n = (n_kv + 63) / 64 * 64;
  std::vector<int16_t> scores(static_cast<size_t>(n));
  REQUIRE(s.score == HATA_CUDA_SUM || s.score == HATA_CUDA_SQUARES);
  const auto score_keys = s.score == HATA_CUDA_SQUARES ? score_squares : score;
  score_keys(query.data(), group, rbit, at.code, at.length, n, scores.data());

  std::vector<uint64_t> free(static_cast<size_t>(n / 64), 0);
  std::vector<int32_t> cells;
  for (int32_t c = 0; c < n_kv; ++c) {
    const bool valid = s.valid == nullptr || bit(s.valid + row * s.bit_stride, c);
    const bool forced = s.valid == nullptr ? c < s.sink || c >= n_kv - s.recent
                                           : bit(s.forced + row * s.bit_stride, c);
    if (forced) REQUIRE(valid);
    if (forced) {
      cells.push_back(c);
    } else if (valid) {
      free[c / 64] |= uint64_t{1} << (c % 64);
    }
  }
  REQUIRE(s.budgets[row] > 0 && s.budgets[row] <= s.budget);
  REQUIRE(std::ssize(cells) <= s.budgets[row]);
  const auto best =
      reference::select(scores.data(), free.data(), n, s.budgets[row] - std::ssize(cells));
  cells.insert(cells.end(), best.begin(), best.end());
  std::sort(cells.begin(), cells.end());
  return cells;
}

void attend_row(const hata_cuda_step& s, int row, int head) {
  const int group = s.shape.n_q_heads / s.shape.n_kv_heads;
  const int d = s.shape.head_dim;
  const Head at(s.shape, s.cache, s.codes, s.sequences[row], head);
  const std::vector<int32_t> cells = choose(s, row, head, at);
  const auto n = std::ssize(cells);
  std::vector<float> max(group), sum(group), acc(static_cast<size_t>(group * d));
  std::vector<float> scratch(static_cast<size_t>(group * attend_scratch(n)) + 32);
  const std::vector<float> ones(static_cast<size_t>(group), 1.0f);
  const Partial out{max.data(), sum.data(), acc.data()};
  const int64_t first = static_cast<int64_t>(head) * group;
  AttendArgs args{};
  args.heads = group;
  args.head_dim = d;
  args.q = static_cast<const float*>(s.q) + row * s.q_row_stride + first * s.q_head_stride;
  args.q_stride = static_cast<size_t>(s.q_head_stride);
  args.keys = at.keys;
  args.values = at.values;
  std::vector<float> wide_keys, wide_values;
  if (s.cache.type == HATA_CUDA_Q8_0) {
    args.keys = widen_cells(at.keys, head, d, cells, wide_keys);
    args.values = widen_cells(at.values, head, d, cells, wide_values);
  }
  args.kv_head = head;
  args.cells = cells.data();
  args.count = n;
  args.mask = s.bias != nullptr ? s.bias + row * s.bias_stride : nullptr;
  args.slopes = s.slopes != nullptr ? s.slopes + first : ones.data();
  args.params = {.scale = s.scale, .softcap = s.softcap};
  void* begin = scratch.data();
  size_t room = scratch.size() * 4;
  args.scratch = static_cast<float*>(std::align(64, 0, begin, room));
  attend_begin(out, group, d);
  if (n > 0) attend(args, out);
  attend_finish(out, group, d, s.sinks != nullptr ? s.sinks + first : nullptr,
                static_cast<float*>(s.out) + row * s.out_row_stride + first * s.out_head_stride,
                static_cast<size_t>(s.out_head_stride));
}

bool here(const hata_cuda_projection& p) {
  return here(p.keys) && here(p.queries) && here(p.inv_units) && here(p.key_means);
}

bool fails(std::atomic<int>& left) {
  int n = left.load();
  while (n > 0 && !left.compare_exchange_weak(n, n - 1)) {
  }
  return n > 0;
}

}  // namespace

// --- what a test may ask for -----------------------------------------------------------------

FAKE_EXPORT int hata_cuda_stands_in() { return 1; }
FAKE_EXPORT void hata_cuda_fake_fail(int steps, int allocations) {
  steps_that_fail = steps;
  allocations_that_fail = allocations;
}

/// How many keys steps have encoded themselves, since the last call.
FAKE_EXPORT int hata_cuda_fake_keys_in_passing() { return keys_in_passing.exchange(0); }

/// From now on this memory is the device's.
FAKE_EXPORT void hata_cuda_fake_place(const void* begin, size_t bytes, int device) {
  places().put(begin, bytes, device);
}

/// The device that is current on this thread, to be set as another user of CUDA would.
FAKE_EXPORT int* hata_cuda_fake_current() { return &current_device; }

// --- hata/cuda.h -----------------------------------------------------------------------------

FAKE_EXPORT const char* hata_cuda_error() { return "the test wants it so"; }
FAKE_EXPORT hata_cuda_status hata_cuda_available() { return HATA_CUDA_OK; }

FAKE_EXPORT hata_cuda_status hata_cuda_encode_keys(const hata_cuda_encode* e,
                                                   hata_cuda_stream stream) {
  check(e->shape, e->cache, e->codes);
  REQUIRE(is_here(stream) && here(e->cells) && here(e->projection));
  for (int64_t i = 0; i < e->count; ++i) {
    const int64_t cell = e->cells != nullptr ? e->cells[i] : e->first + i;
    REQUIRE(cell < e->codes.capacity);
    for (int head = 0; head < e->shape.n_kv_heads && cell >= 0; ++head) encode_key(*e, head, cell);
  }
  return HATA_CUDA_OK;
}

FAKE_EXPORT size_t hata_cuda_workspace_size(const hata_cuda_step* step) {
  return 4096 + static_cast<size_t>(step->n_rows) * 64;
}

FAKE_EXPORT hata_cuda_status hata_cuda_decode(const hata_cuda_step* step, void* workspace,
                                              size_t bytes, hata_cuda_stream stream) {
  const hata_cuda_step& s = *step;
  check(s.shape, s.cache, s.codes);
  REQUIRE(is_here(stream) && here(workspace) && here(s.projection));
  REQUIRE(here(s.q) && here(s.out) && here(s.budgets) && here(s.sequences) && here(s.n_kv));
  REQUIRE(here(s.valid) && here(s.forced) && here(s.bias) && here(s.slopes) && here(s.sinks));
  REQUIRE(workspace != nullptr && bytes >= hata_cuda_workspace_size(step));
  REQUIRE(s.q_type == HATA_CUDA_F32 && s.out_type == HATA_CUDA_F32);
  REQUIRE((s.valid != nullptr) == (s.forced != nullptr) && s.sequences != nullptr);
  if (s.valid != nullptr) {
    REQUIRE(s.bit_stride * 32 >= s.max_n_kv && s.bit_stride % 4 == 0 && aligned(s.valid));
    REQUIRE(s.encode_last == 0 && s.n_kv == nullptr);
  }
  REQUIRE(s.max_n_kv > 0 && s.max_n_kv <= s.codes.capacity);
  REQUIRE((s.bias == nullptr) == (s.slopes == nullptr));
  if (fails(steps_that_fail)) return HATA_CUDA_FAILED;
  for (int row = 0; row < s.n_rows; ++row) {
    if (s.encode_last != 0) encode_last_key(s, row);
    for (int head = 0; head < s.shape.n_kv_heads; ++head) attend_row(s, row, head);
  }
  return HATA_CUDA_OK;
}

// --- hata/cuda_runtime.h ---------------------------------------------------------------------

const char* hata_cuda_runtime_error() { return "out of memory, says the test"; }
int hata_cuda_device_of(const void* address) { return places().device_of(address); }
hata_cuda_status hata_cuda_enter_device(int device, void** before) {
  *before = reinterpret_cast<void*>(static_cast<std::intptr_t>(current_device));
  current_device = device;
  return HATA_CUDA_OK;
}
void hata_cuda_leave_device(void* before) {
  current_device = static_cast<int>(reinterpret_cast<std::intptr_t>(before));
}

hata_cuda_status hata_cuda_malloc_host(void** memory, size_t bytes) {
  if (fails(allocations_that_fail)) return HATA_CUDA_FAILED;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, 0xa5, bytes);
  return HATA_CUDA_OK;
}
hata_cuda_status hata_cuda_free_host(void* memory) {
  std::free(memory);
  return HATA_CUDA_OK;
}
hata_cuda_status hata_cuda_malloc(void** memory, size_t bytes) {
  const hata_cuda_status status = hata_cuda_malloc_host(memory, bytes);
  if (status == HATA_CUDA_OK) places().put(*memory, bytes, current_device);
  return status;
}
hata_cuda_status hata_cuda_free(void* memory) {
  REQUIRE(here(memory));
  places().remove(memory);
  return hata_cuda_free_host(memory);
}

hata_cuda_status hata_cuda_stream_new(hata_cuda_stream* stream) {
  *stream = handle_here<hata_cuda_stream>();
  return HATA_CUDA_OK;
}
hata_cuda_status hata_cuda_stream_free(hata_cuda_stream) { return HATA_CUDA_OK; }
hata_cuda_status hata_cuda_stream_finish(hata_cuda_stream) { return HATA_CUDA_OK; }

hata_cuda_status hata_cuda_to_device(void* to, const void* from, size_t bytes,
                                     hata_cuda_stream stream) {
  REQUIRE(is_here(stream) && here(to));
  std::memcpy(to, from, bytes);
  return HATA_CUDA_OK;
}
hata_cuda_status hata_cuda_to_host(void* to, const void* from, size_t bytes,
                                   hata_cuda_stream stream) {
  REQUIRE(is_here(stream) && here(from));
  std::memcpy(to, from, bytes);
  return HATA_CUDA_OK;
}
hata_cuda_status hata_cuda_zero(void* memory, size_t bytes, hata_cuda_stream stream) {
  REQUIRE(is_here(stream) && here(memory));
  std::memset(memory, 0, bytes);
  return HATA_CUDA_OK;
}

hata_cuda_status hata_cuda_event_new(hata_cuda_event* event) {
  *event = handle_here<hata_cuda_event>();
  return HATA_CUDA_OK;
}
hata_cuda_status hata_cuda_event_free(hata_cuda_event) { return HATA_CUDA_OK; }
hata_cuda_status hata_cuda_event_record(hata_cuda_event event, hata_cuda_stream stream) {
  REQUIRE(is_here(event) && is_here(stream));
  return HATA_CUDA_OK;
}
hata_cuda_status hata_cuda_event_wait(hata_cuda_event, hata_cuda_stream) { return HATA_CUDA_OK; }
hata_cuda_status hata_cuda_event_finish(hata_cuda_event) { return HATA_CUDA_OK; }
int hata_cuda_event_done(hata_cuda_event) { return 1; }
hata_cuda_status hata_cuda_stream_sleep(int, hata_cuda_stream) { return HATA_CUDA_OK; }
