#include "ggml/device_inputs.h"

#include <algorithm>
#include <cstring>

#include "methods/row_plan.h"

namespace hata::host {
namespace {

constexpr uint16_t kMinusInfinity = 0xfc00;

bool is_vector(const ggml_tensor* tensor) {
  return (tensor->type == GGML_TYPE_I64 || tensor->type == GGML_TYPE_I32) && tensor->ne[1] == 1 &&
         tensor->ne[2] == 1 && tensor->ne[3] == 1;
}

bool is_mask(const ggml_tensor* tensor) {
  return tensor->type == GGML_TYPE_F16 && tensor->ne[2] == 1 && tensor->nb[0] == sizeof(uint16_t) &&
         tensor->nb[1] == tensor->nb[0] * static_cast<size_t>(tensor->ne[0]) &&
         tensor->nb[3] == tensor->nb[1] * static_cast<size_t>(tensor->ne[1]);
}

int64_t rows_of(const ggml_tensor* mask) { return mask->ne[1] * mask->ne[3]; }

void read_numbers(const ggml_tensor* tensor, const void* data, std::vector<int64_t>& out) {
  const auto n = static_cast<size_t>(tensor->ne[0]);
  out.resize(n);
  if (tensor->type == GGML_TYPE_I64) {
    std::memcpy(out.data(), data, n * sizeof(int64_t));
    return;
  }
  const auto* from = static_cast<const int32_t*>(data);
  std::copy(from, from + n, out.begin());
}

}  // namespace

MaskBits::MaskBits(const uint16_t* mask, int64_t kv, int64_t rows)
    : n_kv(kv),
      n_rows(rows),
      valid(static_cast<size_t>(rows * n_words())),
      n_valid(static_cast<size_t>(rows)) {
  uint16_t values = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const uint16_t* of_row = mask + r * kv;
    n_valid[static_cast<size_t>(r)] = valid_cells(of_row, kv, valid.data() + r * n_words());
    for (int64_t i = 0; i < kv; ++i) {
      const uint16_t value = of_row[i];
      values = static_cast<uint16_t>(values | (value != kMinusInfinity ? value : 0));
    }
  }
  has_values = (values & 0x7fff) != 0;
}

void DeviceInputs::written(const Real& real, const ggml_tensor* tensor, const void* data,
                           size_t offset, size_t size) {
  if (!real.missing_on_device.empty() || tensor == nullptr || tensor->data == nullptr ||
      size == 0) {
    return;
  }
  const ggml_backend_buffer_t buffer = root_of(tensor)->buffer;
  const bool vector = is_vector(tensor) && tensor->ne[0] <= kMostNumbers;
  const bool mask = is_mask(tensor) && rows_of(tensor) <= kMostRows;
  const Range range = Range::of(static_cast<const char*>(tensor->data) + offset, size);
  const bool whole = offset == 0 && size == real.ggml_nbytes(tensor);
  if (!(vector || mask) || !whole || buffer == nullptr ||
      real.ggml_backend_buffer_get_usage(buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS ||
      real.ggml_backend_buffer_is_host(buffer)) {
    forget(range);
    return;
  }
  Seen seen{.range = range, .mask = nullptr, .numbers = {}};
  if (vector) {
    read_numbers(tensor, data, seen.numbers);
  } else {
    seen.mask = std::make_shared<MaskBits>(static_cast<const uint16_t*>(data), tensor->ne[0],
                                           rows_of(tensor));
  }
  const std::lock_guard lock(mutex_);
  forget_in(range);
  if (seen_.size() == kMost) seen_.erase(seen_.begin());
  seen_.push_back(std::move(seen));
  empty_.store(false, std::memory_order_relaxed);
}

void DeviceInputs::forget(const Range& range) {
  if (empty()) return;
  const std::lock_guard lock(mutex_);
  forget_in(range);
}

void DeviceInputs::forget_in(const Range& range) {
  std::erase_if(seen_, [&](const Seen& seen) { return seen.range.overlaps(range); });
}

const DeviceInputs::Seen* DeviceInputs::find(const void* data, size_t size) const {
  const Range range = Range::of(data, size);
  for (const Seen& seen : seen_) {
    if (seen.range.begin == range.begin && seen.range.end == range.end) return &seen;
  }
  return nullptr;
}

std::shared_ptr<const MaskBits> DeviceInputs::mask(const Real& real,
                                                   const ggml_tensor* tensor) const {
  if (!is_mask(tensor)) return nullptr;
  if (real.ggml_backend_buffer_is_host(root_of(tensor)->buffer)) {
    return std::make_shared<MaskBits>(static_cast<const uint16_t*>(tensor->data), tensor->ne[0],
                                      rows_of(tensor));
  }
  const std::lock_guard lock(mutex_);
  const Seen* seen = find(tensor->data, real.ggml_nbytes(tensor));
  const bool fits = seen != nullptr && seen->mask != nullptr && seen->mask->n_kv == tensor->ne[0] &&
                    seen->mask->n_rows == rows_of(tensor);
  return fits ? seen->mask : nullptr;
}

bool DeviceInputs::numbers(const Real& real, const ggml_tensor* tensor,
                           std::vector<int64_t>& out) const {
  if (!is_vector(tensor)) return false;
  if (real.ggml_backend_buffer_is_host(root_of(tensor)->buffer)) {
    if (tensor->nb[0] != (tensor->type == GGML_TYPE_I64 ? sizeof(int64_t) : sizeof(int32_t))) {
      return false;
    }
    read_numbers(tensor, tensor->data, out);
    return true;
  }
  const std::lock_guard lock(mutex_);
  const Seen* seen = find(tensor->data, real.ggml_nbytes(tensor));
  if (seen == nullptr || std::ssize(seen->numbers) != tensor->ne[0]) return false;
  out = seen->numbers;
  return true;
}

}  // namespace hata::host
