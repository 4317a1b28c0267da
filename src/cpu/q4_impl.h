// The stages of cpu/q4.h for one instruction set. Included by kernels_<isa>.cpp only, after its
// vectors and encode_impl.h. Plain loops are turned into vector code by the compiler.

namespace hata::cpu::HATA_ISA {
namespace {

/// One block of 8 elements a row. A value outside of what 4 bits hold is cut.
template <int Rows>
inline void q4_block(const float* x, uint16_t* scale, uint8_t* bytes) {
  constexpr int kSize = 8 * Rows;
  F32 most = F32::all(0.0f);
  for (int i = 0; i < kSize; i += kLanes) most = max(abs(F32::load(x + i)), most);
  *scale = float_to_half(max_lane(most) * 0.0625f);
  const float step = half_to_float(*scale);
  const F32 inverse = F32::all(step > 0.0f ? 0.5f / step : 0.0f);
  const F32 top = F32::all(15.0f);
  float at[kSize];
  for (int i = 0; i < kSize; i += kLanes) {
    F32 u = F32::load(x + i) * inverse + F32::all(8.0f);
    u = max(u, F32::all(0.0f));  // a NaN becomes 0
    choose_at_least(u, top, top, u).store(at + i);
  }
  int number[kSize];
  for (int i = 0; i < kSize; ++i) number[i] = static_cast<int>(at[i]);
  for (int r = 0; r < Rows; ++r) {
    for (int i = 0; i < 4; ++i) {
      bytes[16 * r + i] = static_cast<uint8_t>(number[8 * r + i] | number[8 * r + 4 + i] << 4);
    }
  }
}

template <int Rows>
inline void q4_quad(const float* x, uint8_t* to) {
  uint16_t scales[4];
  for (int b = 0; b < 4; ++b) {
    q4_block<Rows>(x + b * 8 * Rows, scales + b, to + kQ4ScaleBytes + 4 * b);
  }
  __builtin_memcpy(to, scales, sizeof(scales));
}

void q4_encode(int head_dim, int key_bytes, const void* x, DType type, size_t stride, int64_t n,
               uint8_t* keys) {
  alignas(64) float wide[kMaxDim] = {};  // 0 behind head_dim
  for (int64_t v = 0; v < n; ++v) {
    widen(static_cast<const char*>(x) + static_cast<size_t>(v) * stride, type, head_dim, wide);
    const float* from = wide;
    int left = key_bytes;
    for (; left >= kQ4QuadBytes; left -= kQ4QuadBytes) {
      q4_quad<kQ4Rows>(from, keys);
      from += kQ4Quad;
      keys += kQ4QuadBytes;
    }
    if (left > 0) q4_quad<kQ4Rows / 2>(from, keys);
    keys += left;
  }
}

/// Four heads' logits for one key.
inline void q4_key(const Q4Query* query, const uint8_t* key, int key_bytes, float* out) {
  constexpr int kVecs = 16 / kLanes;  // lane 4 h + b over all of them
  F32 sum[kVecs];
  for (F32& s : sum) s = F32::all(0.0f);
  for (; key_bytes > 0; key_bytes -= kQ4QuadBytes, key += kQ4QuadBytes, ++query) {
    F32 n[kVecs];
    q4_sums(key + kQ4ScaleBytes, key_bytes < kQ4QuadBytes, *query, n);
    const F32 scales = q4_scales(key);
    for (int v = 0; v < kVecs; ++v) {
      sum[v] = fused(n[v], scales * F32::load(query->scales + v * kLanes), sum[v]);
    }
  }
  q4_fold(sum, out);
}

/// Candidates lie far apart: each is fetched this many keys ahead.
constexpr int64_t kQ4Ahead = 8;

void q4_logits(const Q4Args& args) {
  const int key_bytes = args.key_bytes;
  const auto key_of = [&](int64_t j) {
    return args.keys + static_cast<int64_t>(args.cells[j]) * key_bytes;
  };
  for (int64_t j = 0; j < args.n; ++j) {
    if (j + kQ4Ahead < args.n) {
      const uint8_t* ahead = key_of(j + kQ4Ahead);
      for (int byte = 0; byte < key_bytes; byte += 64) __builtin_prefetch(ahead + byte);
      __builtin_prefetch(ahead + key_bytes - 1);
    }
    const Q4Query* query = args.queries;
    for (int g = 0; g < args.group; g += kQ4Heads, query += args.n_quads) {
      float logits[kQ4Heads];
      q4_key(query, key_of(j), key_bytes, logits);
      const int heads = args.group - g < kQ4Heads ? args.group - g : kQ4Heads;
      for (int h = 0; h < heads; ++h) args.out[(g + h) * args.out_stride + j] = logits[h];
    }
  }
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
