#include "ggml/device_codes.h"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include "index/code_store.h"

namespace hata::host {
namespace {

constexpr int64_t kCapacityStep = 128;  // include/hata/cuda.h

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

class OnCuda final : public Selector {
 public:
  OnCuda(std::shared_ptr<const Selector> method, const CudaLibrary& cuda, int device,
         int64_t stream_cells, Rotation rotation)
      : method_(std::move(method)),
        cuda_(cuda),
        device_(device),
        stream_cells_(stream_cells),
        rotation_(std::move(rotation)) {}

  std::string_view name() const override { return method_->name(); }
  bool sparse() const override { return method_->sparse(); }
  std::string why_dense(int layer, const HeadShape& shape) const override {
    return method_->why_dense(layer, shape);
  }
  std::shared_ptr<const KeptMass> kept_mass(int layer) const override {
    return method_->kept_mass(layer);
  }
  std::optional<ScoreRule> by_codes_alone() const override { return method_->by_codes_alone(); }
  Window window(int layer) const override { return method_->window(layer); }

  // A tiny store of the method's own has the layer's weights in it.
  std::unique_ptr<KeyStore> make_store(int layer, const HeadShape& shape,
                                       int64_t n_cells) const override {
    const auto own = method_->make_store(layer, shape, kCapacityStep);
    const auto* codes = dynamic_cast<const CodeStore*>(own.get());
    if (codes == nullptr) return nullptr;
    try {
      const KeyCoder coder(
          std::make_shared<const LayerWeights>(rotated(codes->coder().weights(), rotation_)),
          shape);
      return std::make_unique<DeviceCodes>(cuda_, device_, coder, codes->lengths(0, 0) != nullptr,
                                           n_cells, stream_cells_);
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }

  std::unique_ptr<Scratch> make_scratch() const override { return nullptr; }
  void select(const Step&, std::span<const RowPlan>, LayerCache&, Scratch&, Selection&,
              StageCounters&, const Worker&) const override {}

 private:
  std::shared_ptr<const Selector> method_;
  const CudaLibrary& cuda_;
  int device_;
  int64_t stream_cells_;
  Rotation rotation_;
};

}  // namespace

// --- memory -----------------------------------------------------------------------------------

DeviceMemory::DeviceMemory(const CudaLibrary& cuda, int device, size_t bytes)
    : cuda_(&cuda), device_(device), bytes_(bytes) {
  const OnCudaDevice on(cuda, device);
  if (bytes > 0 && cuda.hata_cuda_malloc(&data_, bytes) != HATA_CUDA_OK) throw std::bad_alloc();
}

void DeviceMemory::reset() {
  if (data_ == nullptr) return;
  const OnCudaDevice on(*cuda_, device_);
  cuda_->hata_cuda_free(data_);  // waits for what uses it; fails where the program is at its end
  data_ = nullptr;
  bytes_ = 0;
}

void DeviceMemory::swap(DeviceMemory& other) {
  std::swap(cuda_, other.cuda_);
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
}

// --- codes ------------------------------------------------------------------------------------

DeviceCodes::DeviceCodes(const CudaLibrary& cuda, int device, const KeyCoder& coder, bool lengths,
                         int64_t n_cells, int64_t stream_cells)
    : cuda_(cuda),
      device_(device),
      coder_(coder),
      stream_cells_(stream_cells),
      capacity_(round_up(stream_cells, kCapacityStep)) {
  const LayerWeights& weights = coder_.weights();
  const HeadShape& shape = coder_.shape();
  const auto kept =
      static_cast<size_t>(n_cells / stream_cells * shape.n_kv_heads * capacity_);  // cells
  codes_ = DeviceMemory(cuda, device, kept * static_cast<size_t>(rbit()) / 8);
  lengths_ = DeviceMemory(cuda, device, lengths ? kept / 2 : 0);
  const OnCudaDevice on(cuda, device);
  cuda.hata_cuda_zero(codes_.as<void>(), codes_.bytes(), nullptr);
  if (lengths) cuda.hata_cuda_zero(lengths_.as<void>(), lengths_.bytes(), nullptr);
  keys_ = upload(weights.projection.weights);
  queries_ = upload(weights.queries.weights);
  means_ = upload(weights.key_means);
  units_ = upload(coder_.inv_units());
  if (cuda.hata_cuda_stream_finish(nullptr) != HATA_CUDA_OK) throw std::bad_alloc();
}

DeviceMemory DeviceCodes::upload(std::span<const float> values) const {
  DeviceMemory memory(cuda_, device_, values.size_bytes());
  const bool copied =
      values.empty() || cuda_.hata_cuda_to_device(memory.as<void>(), values.data(),
                                                  values.size_bytes(), nullptr) == HATA_CUDA_OK;
  if (!copied) throw std::bad_alloc();
  return memory;
}

hata_cuda_codes DeviceCodes::codes() const {
  return {.codes = codes_.as<uint32_t>(), .lengths = lengths_.as<uint8_t>(), .capacity = capacity_};
}

hata_cuda_projection DeviceCodes::projection() const {
  return {.keys = keys_.as<float>(),
          .queries = queries_.as<float>(),
          .inv_units = units_.as<float>(),
          .key_means = means_.as<float>()};
}

size_t DeviceCodes::bytes() const {
  return codes_.bytes() + lengths_.bytes() + keys_.bytes() + queries_.bytes() + units_.bytes() +
         means_.bytes();
}

bool DeviceCodes::measure(const CacheView& keys, int32_t n, bool all) {
  std::vector<int32_t> cells(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) cells[static_cast<size_t>(i)] = i;
  bool enough = true;
  for (int head = 0; head < coder_.shape().n_kv_heads; ++head) {
    const int found = coder_.measure(keys, cells, head);
    if (head == 0) measured_ = found > 0;
    enough = enough && found == KeyCoder::kKeysMeasured;
  }
  return enough || all;
}

bool DeviceCodes::upload_units(hata_cuda_stream stream) const {
  const auto units = coder_.inv_units();
  return cuda_.hata_cuda_to_device(units_.as<void>(), units.data(), units.size_bytes(), stream) ==
             HATA_CUDA_OK &&
         cuda_.hata_cuda_stream_finish(stream) == HATA_CUDA_OK;
}

bool DeviceCodes::fetch(int64_t sequence, int64_t n, hata_cuda_stream stream) {
  const int n_heads = coder_.shape().n_kv_heads;
  const auto code = static_cast<size_t>(rbit()) / 8;
  fetched_first_ = sequence * stream_cells_;
  fetched_cells_ = round_up(n, 2);
  fetched_codes_.resize(static_cast<size_t>(n_heads * fetched_cells_) * code / sizeof(uint64_t));
  fetched_lengths_.resize(static_cast<size_t>(n_heads * fetched_cells_) / 2);
  bool copied = true;
  const auto copy = [&](void* to, const DeviceMemory& from, int head, size_t num, size_t den) {
    const auto first = static_cast<size_t>((sequence * n_heads + head) * capacity_) * num / den;
    const auto bytes = static_cast<size_t>(fetched_cells_) * num / den;
    copied = copied && cuda_.hata_cuda_to_host(
                           static_cast<std::byte*>(to) + static_cast<size_t>(head) * bytes,
                           from.as<std::byte>() + first, bytes, stream) == HATA_CUDA_OK;
  };
  for (int head = 0; head < n_heads; ++head) {
    copy(fetched_codes_.data(), codes_, head, code, 1);
    if (lengths_.bytes() > 0) copy(fetched_lengths_.data(), lengths_, head, 1, 2);
  }
  return copied && cuda_.hata_cuda_stream_finish(stream) == HATA_CUDA_OK;
}

bool DeviceCodes::matches(const CacheView& keys, int64_t cell) const {
  const int64_t at = cell - fetched_first_;
  if (at < 0 || at >= fetched_cells_) return false;
  const int words = coder_.weights().projection.words();
  for (int head = 0; head < coder_.shape().n_kv_heads; ++head) {
    const int64_t slot = head * fetched_cells_ + at;
    std::array<uint64_t, kMaxRbit / kCodeWordBits> fresh;
    coder_.codes(keys, head, cell, 1, fresh.data());
    if (!std::equal(fresh.begin(), fresh.begin() + words, &fetched_codes_[slot * words])) {
      return false;
    }
    if (lengths_.bytes() == 0) continue;
    uint8_t length = 0;
    coder_.lengths(keys, head, cell, 1, &length);
    const uint8_t pair = fetched_lengths_[static_cast<size_t>(slot / 2)];
    if ((at % 2 == 0 ? pair & 15 : pair >> 4) != length) return false;
  }
  return true;
}

std::shared_ptr<const Selector> on_cuda(std::shared_ptr<const Selector> method,
                                        const CudaLibrary& cuda, int device, int64_t stream_cells,
                                        Rotation rotation) {
  return std::make_shared<OnCuda>(std::move(method), cuda, device, stream_cells,
                                  std::move(rotation));
}

}  // namespace hata::host
