// FlashInfer's decode kernels as dense rivals, timed without Python, on caches [batch][cell][KV
// head][128] read as pages of 16 cells in order (NHD), and as pages with heads outside (HND).
//   single    one sequence, contiguous, CUDA cores
//   batch     paged, CUDA cores
//   tc        paged, tensor cores: the FA2 prefill kernel with a query tile of 16, which is what
//             use_tensor_cores=True runs
//   ...-pdl   with programmatic launch
// rival.h says how they are timed.
//   rival-flashinfer [--time-limit SECONDS] [--no-header] BATCH:Q_HEADS:KV_HEADS:N[:f16|bf16]...
#include <flashinfer/attention/decode.cuh>
#include <flashinfer/attention/default_decode_params.cuh>
#include <flashinfer/attention/default_prefill_params.cuh>
#include <flashinfer/attention/prefill.cuh>
#include <flashinfer/attention/scheduler.cuh>
#include <flashinfer/attention/variants.cuh>

#include "rival.h"

namespace {

using rival::Cell;
using rival::check;
using rival::kHeadDim;
using rival::kScale;
using rival::Memory;

constexpr int kPage = 16;
constexpr auto kNoRope = flashinfer::PosEncodingMode::kNone;
using Variant = flashinfer::DefaultAttention<false, false, false, false>;

template <class T>
class FlashInfer : rival::Bench<T> {
  using Base = rival::Bench<T>;
  using Base::c_;
  using Base::keys;
  using Base::query;
  using Base::result;
  using Base::stream_;
  using Base::values;

 public:
  using Single = flashinfer::SingleDecodeParams<T, T, T>;
  using Decode = flashinfer::BatchDecodeParams<T, T, T, int32_t>;
  using Prefill = flashinfer::BatchPrefillPagedParams<T, T, T, int32_t>;
  using Pages = flashinfer::paged_kv_t<T, int32_t>;

  FlashInfer(const Cell& cell, cudaStream_t stream, rival::Clock::time_point end)
      : Base(cell, stream, end),
        floats_(kFloats),
        ints_(kInts),
        host_ints_(kInts, true),
        table_(size_t(cell.batch) * (cell.n / kPage) * 4 + size_t(cell.batch) * 12 + 64) {
    prepare_table();
  }

  void run() {
    this->guard("flashinfer-single", [&] {
      if (c_.batch == 1) single();
    });
    this->guard("flashinfer-batch", [&] {
      switch (c_.n_q_heads / c_.n_kv_heads) {
        case 1:
          return batch<1>();
        case 4:
          return batch<4>();
        case 8:
          return batch<8>();
        default:
          throw std::runtime_error("groups of 1, 4 and 8 are built");
      }
    });
    this->guard("flashinfer-tc", [&] { tensor_cores(); });
  }

 private:
  static constexpr size_t kFloats = size_t{512} << 20;
  static constexpr size_t kInts = size_t{32} << 20;

  void prepare_table() {
    const int pages = c_.n / kPage;
    std::vector<int32_t> all(size_t(c_.batch) * pages);
    for (size_t i = 0; i < all.size(); ++i) all[i] = int32_t(i);
    indices_ = table_.as<int32_t>();
    starts_ = indices_ + all.size();
    last_ = starts_ + c_.batch + 1;
    rows_ = last_ + c_.batch;
    for (int b = 0; b <= c_.batch; ++b) host_starts_.push_back(b * pages), host_rows_.push_back(b);
    all.insert(all.end(), host_starts_.begin(), host_starts_.end());
    all.insert(all.end(), size_t(c_.batch), kPage);
    all.insert(all.end(), host_rows_.begin(), host_rows_.end());
    CHECK(cudaMemcpy(indices_, all.data(), all.size() * 4, cudaMemcpyHostToDevice));
  }

  Pages pages(int set, flashinfer::QKVLayout layout) const {
    return Pages(c_.n_kv_heads, kPage, kHeadDim, c_.batch, layout, keys(set), values(set), indices_,
                 starts_, last_);
  }
  template <class U>
  U* in_ints(int64_t offset) const {
    return flashinfer::GetPtrFromBaseOffset<U>(ints_.as<char>(), offset);
  }
  template <class U>
  U* in_floats(int64_t offset) const {
    return flashinfer::GetPtrFromBaseOffset<U>(floats_.as<char>(), offset);
  }

  void single() {
    this->report("flashinfer-single", "contiguous", [&](int set) {
      Single p(query(set), keys(set), values(set), result(set), nullptr, c_.n, c_.n_q_heads,
               c_.n_kv_heads, flashinfer::QKVLayout::kNHD, kHeadDim, -1, 0.0f, kScale, 1.0f, 1e4f);
      CHECK((flashinfer::SingleDecodeWithKVCacheDispatched<kHeadDim, kNoRope, Variant, Single>(
          p, floats_.as<T>(), stream_)));
    });
  }

  template <uint32_t kGroup>
  void batch() {
    flashinfer::DecodePlanInfo plan;
    CHECK((flashinfer::DecodePlan<kHeadDim, kNoRope, Variant, Decode>(
        floats_.as<char>(), kFloats, ints_.as<char>(), host_ints_.as<char>(), kInts, plan,
        host_starts_.data(), c_.batch, c_.n_q_heads, kPage, false, stream_,
        flashinfer::BatchDecodeWithPagedKVCacheWorkEstimationDispatched<kGroup, kHeadDim, kNoRope,
                                                                        Variant, Decode>)));
    CHECK(cudaStreamSynchronize(stream_));
    const auto call = [&](int set, flashinfer::QKVLayout layout, bool early) {
      Decode p(query(set), nullptr, pages(set, layout), result(set), nullptr, nullptr, c_.n_q_heads,
               c_.n_q_heads * kHeadDim, kHeadDim, -1, 0.0f, kScale, 1.0f, 1e4f);
      p.request_indices = in_ints<int32_t>(plan.request_indices_offset);
      p.kv_tile_indices = in_ints<int32_t>(plan.kv_tile_indices_offset);
      p.o_indptr = in_ints<int32_t>(plan.o_indptr_offset);
      p.kv_chunk_size_ptr = in_ints<int32_t>(plan.kv_chunk_size_ptr_offset);
      p.padded_batch_size = plan.padded_batch_size;
      T* parts = plan.split_kv ? in_floats<T>(plan.v_offset) : nullptr;
      float* sums = plan.split_kv ? in_floats<float>(plan.s_offset) : nullptr;
      CHECK((flashinfer::BatchDecodeWithPagedKVCacheDispatched<kHeadDim, kNoRope, Variant, Decode>(
          p, parts, sums, early, stream_)));
    };
    layouts("flashinfer-batch", call);
  }

  void tensor_cores() {
    flashinfer::PrefillPlanInfo plan;
    CHECK((flashinfer::PrefillPlan<int32_t>(
        floats_.as<char>(), kFloats, ints_.as<char>(), host_ints_.as<char>(), kInts, plan,
        host_rows_.data(), host_starts_.data(), c_.batch, c_.batch, c_.n_q_heads, c_.n_kv_heads,
        kHeadDim, kHeadDim, kPage, false, sizeof(T), -1, -1, false, 0, 0, stream_)));
    CHECK(cudaStreamSynchronize(stream_));
    if (plan.cta_tile_q != 16) throw std::runtime_error("planned another query tile than 16");
    const auto call = [&](int set, flashinfer::QKVLayout layout, bool early) {
      Prefill p(query(set), pages(set, layout), nullptr, rows_, nullptr, nullptr, result(set),
                nullptr, nullptr, c_.n_q_heads, c_.n_q_heads * kHeadDim, kHeadDim, -1, 0.0f, kScale,
                1.0f, 1e4f);
      p.request_indices = in_ints<int32_t>(plan.request_indices_offset);
      p.qo_tile_indices = in_ints<int32_t>(plan.qo_tile_indices_offset);
      p.kv_tile_indices = in_ints<int32_t>(plan.kv_tile_indices_offset);
      p.o_indptr = in_ints<int32_t>(plan.o_indptr_offset);
      p.kv_chunk_size_ptr = in_ints<int32_t>(plan.kv_chunk_size_ptr_offset);
      p.padded_batch_size = plan.padded_batch_size;
      p.max_total_num_rows = plan.total_num_rows;
      T* parts = nullptr;
      float* sums = nullptr;
      if (plan.split_kv) {
        p.merge_indptr = in_ints<int32_t>(plan.merge_indptr_offset);
        parts = in_floats<T>(plan.v_offset);
        sums = in_floats<float>(plan.s_offset);
      }
      CHECK((flashinfer::BatchPrefillWithPagedKVCacheDispatched<
             true, 16, kHeadDim, kHeadDim, kNoRope, false, flashinfer::MaskMode::kNone, Variant,
             Prefill>(p, parts, sums, early, stream_)));
    };
    layouts("flashinfer-tc", call);
  }

  template <class Call>
  void layouts(const std::string& name, const Call& call) {
    constexpr auto kNhd = flashinfer::QKVLayout::kNHD;
    constexpr auto kHnd = flashinfer::QKVLayout::kHND;
    this->report(name, "paged16", [&](int set) { call(set, kNhd, false); });
    this->report(name + "-pdl", "paged16", [&](int set) { call(set, kNhd, true); });
    this->report(name, "paged16-hnd", [&](int set) { call(set, kHnd, false); });
  }

  Memory floats_, ints_, host_ints_, table_;
  int32_t *indices_ = nullptr, *starts_ = nullptr, *last_ = nullptr, *rows_ = nullptr;
  std::vector<int32_t> host_starts_, host_rows_;
};

}  // namespace

int main(int argc, char** argv) {
  return rival::rival_main(argc, argv, "flashinfer=" FLASHINFER_VERSION,
                           [](const Cell& cell, cudaStream_t stream, rival::Clock::time_point end) {
                             if (cell.bf16) {
                               FlashInfer<__nv_bfloat16>(cell, stream, end).run();
                             } else {
                               FlashInfer<__half>(cell, stream, end).run();
                             }
                           });
}
