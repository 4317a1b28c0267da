// The stages of cpu/rank.h for one instruction set. Included by kernels_<isa>.cpp only, after its
// vectors. Plain loops are turned into vector code by the compiler.

namespace hata::cpu::HATA_ISA {
namespace {

void to_floats(const void* row, DType type, int n, float* out) { widen(row, type, n, out); }

/// Four vectors of keys for H heads in registers.
template <int H>
inline void channel_dots_of(const ChannelArgs& args, int first) {
  constexpr int kVecs = 4;
  constexpr int64_t kChannelBlock = 64;
  for (int64_t i = 0; i < args.n; i += kVecs * kLanes) {
    const uint16_t* block = args.data + i / kChannelBlock * args.block_stride + i % kChannelBlock;
    F32 sum[H][kVecs];
    for (int h = 0; h < H; ++h) {
      for (F32& s : sum[h]) s = F32::all(0.0f);
    }
    for (int c = 0; c < args.n_channels; ++c) {
      const int64_t channel = args.channels != nullptr ? args.channels[c] : c;
      const uint16_t* from = block + channel * kChannelBlock;
      // Few channels of many are no stream that the CPU would fetch ahead on its own.
      __builtin_prefetch(from + 2 * args.block_stride);
      __builtin_prefetch(from + 2 * args.block_stride + 32);
      F32 element[kVecs];
      for (int v = 0; v < kVecs; ++v) element[v] = F32::load(from + v * kLanes);
      for (int h = 0; h < H; ++h) {
        const F32 q = F32::all(args.q[(first + h) * args.n_channels + c]);
        for (int v = 0; v < kVecs; ++v) sum[h][v] = fused(q, element[v], sum[h][v]);
      }
    }
    for (int h = 0; h < H; ++h) {
      float* to = args.out + (first + h) * args.out_stride + i;
      for (int v = 0; v < kVecs; ++v) sum[h][v].store(to + v * kLanes);
    }
  }
}

void channel_dots(const ChannelArgs& args) {
  int h = 0;
  for (; args.heads - h >= 4; h += 4) channel_dots_of<4>(args, h);
  if (args.heads - h >= 2) {
    channel_dots_of<2>(args, h);
    h += 2;
  }
  if (args.heads > h) channel_dots_of<1>(args, h);
}

uint64_t floats_above(const float* x, float threshold) {
  uint64_t bits = 0;
  for (int i = 0; i < 64; i += kLanes) {
    bits |= static_cast<uint64_t>(positive(F32::load(x + i) - F32::all(threshold))) << i;
  }
  return bits;
}

int64_t count_floats_above(const float* x, int64_t n, float threshold) {
  constexpr int kSums = 32;  // the compiler keeps them in a few vectors
  int32_t counts[kSums] = {};
  for (int64_t i = 0; i < n; i += kSums) {
    for (int l = 0; l < kSums; ++l) counts[l] += x[i + l] > threshold ? 1 : 0;
  }
  int64_t sum = 0;
  for (int l = 0; l < kSums; ++l) sum += counts[l];
  return sum;
}

/// e^x for x <= 0, relative error below 2^-22; 0 below -87 and for NaN. No fused operations: the
/// same bits everywhere.
inline F32 exp_below(F32 x) {
  const F32 limit = F32::all(-87.0f);
  const F32 clamped = max(x, limit);
  const F32 n = round(clamped * F32::all(1.44269504f));
  const F32 r = (clamped - n * F32::all(0.693359375f)) + n * F32::all(2.12194440e-4f);
  F32 p = F32::all(1.0f / 5040);
  p = p * r + F32::all(1.0f / 720);
  p = p * r + F32::all(1.0f / 120);
  p = p * r + F32::all(1.0f / 24);
  p = p * r + F32::all(1.0f / 6);
  p = p * r + F32::all(0.5f);
  p = p * (r * r) + r + F32::all(1.0f);
  return where_at_least(x, limit, scale2(p, n));
}

float exp_all(float* x, int64_t n, float max) {
  constexpr int kVecs = 16 / kLanes;
  const F32 shift = F32::all(max);
  F32 sums[kVecs];
  for (F32& s : sums) s = F32::all(0.0f);
  for (int64_t i = 0; i < n; i += 16) {
    for (int v = 0; v < kVecs; ++v) {
      float* at = x + i + v * kLanes;
      const F32 e = exp_below(F32::load(at) - shift);
      e.store(at);
      sums[v] = sums[v] + e;
    }
  }
  float lanes[16];
  for (int v = 0; v < kVecs; ++v) sums[v].store(lanes + v * kLanes);
  float sum = 0.0f;
  for (int l = 0; l < 16; ++l) sum += lanes[l];
  return sum;
}

void count_equal(const uint16_t* __restrict hashes, uint16_t hash, int64_t n,
                 uint16_t* __restrict counts) {
  for (int64_t i = 0; i < n; i += 64) {
    for (int l = 0; l < 64; ++l) {
      counts[i + l] = static_cast<uint16_t>(counts[i + l] + (hashes[i + l] == hash ? 1 : 0));
    }
  }
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
