// Stage 1 for one instruction set. Included by kernels_<isa>.cpp only, after its vectors.

namespace hata::cpu::HATA_ISA {
namespace {

constexpr int kMaxDim = 256;

/// A row's elements as f32.
inline void widen(const void* row, DType type, int head_dim, float* out) {
  if (type == DType::f32) {
    const float* p = static_cast<const float*>(row);
    for (int i = 0; i < head_dim; i += kLanes) F32::load(p + i).store(out + i);
  } else {
    const uint16_t* p = static_cast<const uint16_t*>(row);
    for (int i = 0; i < head_dim; i += kLanes) F32::load(p + i).store(out + i);
  }
}

/// `Keys` rows x [head_dim] times kEncodeBits vectors of columns of W: every sum stays in a
/// register and takes its terms in the order of i. Writes each key's bits to bits[key].
template <int Keys>
inline void encode_tile(const float* w, int head_dim, int rbit, const float (*x)[kMaxDim],
                        uint64_t* bits) {
  F32 sum[Keys][kEncodeBits];
  for (int v = 0; v < Keys; ++v) {
    for (int b = 0; b < kEncodeBits; ++b) sum[v][b] = F32::all(0.0f);
  }
  for (int i = 0; i < head_dim; ++i) {
    const float* row = w + static_cast<size_t>(i) * static_cast<size_t>(rbit);
    F32 weight[kEncodeBits];
    for (int b = 0; b < kEncodeBits; ++b) weight[b] = F32::load(row + b * kLanes);
    for (int v = 0; v < Keys; ++v) {
      const F32 element = F32::all(x[v][i]);
      for (int b = 0; b < kEncodeBits; ++b) sum[v][b] = fused(element, weight[b], sum[v][b]);
    }
  }
  for (int v = 0; v < Keys; ++v) {
    bits[v] = 0;
    for (int b = 0; b < kEncodeBits; ++b) {
      bits[v] |= static_cast<uint64_t>(positive(sum[v][b])) << (b * kLanes);
    }
  }
}

template <int Keys>
inline void encode_keys(const float* w, int head_dim, int rbit, const char* x, DType type,
                        size_t stride, uint64_t* codes) {
  alignas(64) float wide[Keys][kMaxDim];
  for (int v = 0; v < Keys; ++v) {
    widen(x + static_cast<size_t>(v) * stride, type, head_dim, wide[v]);
  }
  const int words = rbit / kCodeWordBits;
  for (int word = 0; word < words; ++word) {
    uint64_t code[Keys] = {};
    for (int bit = 0; bit < kCodeWordBits; bit += kEncodeBits * kLanes) {
      uint64_t bits[Keys];
      encode_tile<Keys>(w + word * kCodeWordBits + bit, head_dim, rbit, wide, bits);
      for (int v = 0; v < Keys; ++v) code[v] |= bits[v] << bit;
    }
    for (int v = 0; v < Keys; ++v) codes[v * words + word] = code[v];
  }
}

/// Full tiles of keys, then one of what is left.
template <int Keys>
inline void encode_all(const float* w, int head_dim, int rbit, const char* x, DType type,
                       size_t stride, int64_t n, uint64_t* codes) {
  for (; n >= Keys; n -= Keys) {
    encode_keys<Keys>(w, head_dim, rbit, x, type, stride, codes);
    x += Keys * stride;
    codes += Keys * (rbit / kCodeWordBits);
  }
  if constexpr (Keys > 1) encode_all<Keys - 1>(w, head_dim, rbit, x, type, stride, n, codes);
}

void encode(const float* w, int head_dim, int rbit, const void* x, DType type, size_t stride,
            int64_t n, uint64_t* codes) {
  encode_all<kEncodeKeys>(w, head_dim, rbit, static_cast<const char*>(x), type, stride, n, codes);
}

/// x.y in 16 lanes, whatever the vectors are: the same bits on every instruction set.
template <class T>
inline float dot(const float* x, const T* y, int head_dim) {
  constexpr int kVecs = 16 / kLanes;
  F32 sum[kVecs];
  for (F32& s : sum) s = F32::all(0.0f);
  for (int i = 0; i < head_dim; i += 16) {
    for (int v = 0; v < kVecs; ++v) {
      const int at = i + v * kLanes;
      sum[v] = fused(F32::load(x + at), F32::load(y + at), sum[v]);
    }
  }
  float lanes[16];
  for (int v = 0; v < kVecs; ++v) sum[v].store(lanes + v * kLanes);
  for (int half = 8; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

template <class T>
inline void dot_rows(const float* q, int head_dim, const char* x, size_t stride, int64_t n,
                     float* out) {
  for (int64_t v = 0; v < n; ++v) {
    out[v] = dot(q, reinterpret_cast<const T*>(x + static_cast<size_t>(v) * stride), head_dim);
  }
}

void dots(const float* q, int head_dim, const void* x, DType type, size_t stride, int64_t n,
          float* out) {
  const char* rows = static_cast<const char*>(x);
  if (type == DType::f32) {
    dot_rows<float>(q, head_dim, rows, stride, n, out);
  } else {
    dot_rows<uint16_t>(q, head_dim, rows, stride, n, out);
  }
}

void key_norms(int head_dim, const void* x, DType type, size_t stride, int64_t n, float* norms) {
  alignas(64) float wide[kMaxDim];
  for (int64_t v = 0; v < n; ++v) {
    widen(static_cast<const char*>(x) + static_cast<size_t>(v) * stride, type, head_dim, wide);
    norms[v] = __builtin_sqrtf(dot(wide, wide, head_dim));
  }
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
