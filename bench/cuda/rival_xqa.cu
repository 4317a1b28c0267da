// XQA, the decode kernel of TensorRT-LLM that FlashInfer carries, as a dense rival: pages of 64
// cells, tensor cores, f16. It is built for one size of group at a time (HEAD_GRP_SIZE), and passes
// over the cells of others. rival.h says how it is timed.
//   rival-xqa-gGROUP [--time-limit SECONDS] [--no-header] BATCH:Q_HEADS:KV_HEADS:N[:f16]...
#include "rival.h"
#include "xqa/mha.cu"

namespace {

using rival::Cell;
using rival::check;
using rival::kHeadDim;
using rival::Memory;

constexpr int kPage = TOKENS_PER_PAGE;
constexpr size_t kScratch = size_t{512} << 20;
constexpr size_t kSemaphores = size_t{8} << 20;

class Xqa : rival::Bench<__half> {
 public:
  Xqa(const Cell& cell, cudaStream_t stream, rival::Clock::time_point end)
      : Bench(cell, stream, end),
        scratch_(kScratch),
        semaphores_(kSemaphores),
        table_(size_t(cell.batch) * (cell.n / kPage) * 4),
        lengths_(size_t(cell.batch) * 4) {
    std::vector<int32_t> pages(size_t(cell.batch) * (cell.n / kPage));
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = int32_t(i);
    const std::vector<uint32_t> lengths(size_t(cell.batch), uint32_t(cell.n));
    CHECK(cudaMemcpy(table_.as<char>(), pages.data(), pages.size() * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(lengths_.as<char>(), lengths.data(), lengths.size() * 4,
                     cudaMemcpyHostToDevice));
    CHECK(cudaMemset(semaphores_.as<char>(), 0, kSemaphores));
    CHECK(cudaGetDevice(&device_));
    CHECK(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device_));
  }

  void run() {
    const uint64_t row = uint64_t(c_.n_kv_heads) * kHeadDim;
    guard("xqa", [&] {
      report("xqa", "paged64", [&](int set) { call(set, false, row, kHeadDim); });
      report("xqa-pdl", "paged64", [&](int set) { call(set, true, row, kHeadDim); });
      report("xqa", "paged64-hnd",
             [&](int set) { call(set, false, kHeadDim, uint64_t(kPage) * kHeadDim); });
    });
  }

 private:
  void call(int set, bool early, uint64_t cell_stride, uint64_t head_stride) {
    launchMHAFlashInfer(
        uint32_t(processors_), uint32_t(c_.n_kv_heads), 0, 1.0f, nullptr,
        reinterpret_cast<OutputHead*>(result(set)), reinterpret_cast<const InputHead*>(query(set)),
        nullptr, reinterpret_cast<GMemCacheHead*>(keys(set)),
        reinterpret_cast<GMemCacheHead*>(values(set)), table_.as<const KVCachePageIndex>(),
        uint32_t(c_.n), lengths_.as<const uint32_t>(), uint32_t(c_.batch), 1.0f, nullptr,
        semaphores_.as<uint32_t>(), scratch_.as<void>(), early,
        uint64_t(kPage) * uint64_t(c_.n_kv_heads) * kHeadDim, cell_stride, head_stride, stream_);
    CHECK(cudaGetLastError());
  }

  Memory scratch_, semaphores_, table_, lengths_;
  int device_ = 0, processors_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  return rival::rival_main(argc, argv, "xqa, flashinfer=" FLASHINFER_VERSION,
                           [](const Cell& cell, cudaStream_t stream, rival::Clock::time_point end) {
                             if (!cell.bf16 && cell.n_q_heads == HEAD_GRP_SIZE * cell.n_kv_heads) {
                               Xqa(cell, stream, end).run();
                             }
                           });
}
