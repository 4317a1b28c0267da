#include "index/hash_store.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/random.h"
#include "hata/encode.h"
#include "index/cell_runs.h"
#include "index/rows.h"

namespace hata {
namespace {

constexpr size_t kMaxWords = 64;  // of all hashes of a key

int words_of(int bits) { return (bits + kCodeWordBits - 1) / kCodeWordBits; }

}  // namespace

HashStore::HashStore(uint64_t seed, int layer, const HeadShape& shape, int64_t n_cells, int bits,
                     int tables)
    : shape_(shape),
      n_cells_((n_cells + 63) / 64 * 64),
      bits_(bits),
      tables_(tables),
      words_(words_of(bits * tables)),
      directions_(static_cast<size_t>(shape.head_dim) * words_ * kCodeWordBits),
      centre_(static_cast<size_t>(shape.n_kv_heads * shape.head_dim)),
      lengths_(static_cast<size_t>(shape.n_kv_heads * n_cells_)),
      hashes_(static_cast<size_t>(shape.n_kv_heads * tables * n_cells_) * sizeof(uint16_t)) {
  Random seeds(seed);
  Random random(seeds.next() + static_cast<uint64_t>(layer));
  for (float& x : directions_) x = static_cast<float>(random.normal() * 0x1p-16);
}

size_t HashStore::bytes() const {
  return hashes_.bytes() + (directions_.size() + centre_.size() + lengths_.size()) * sizeof(float);
}

void HashStore::hash(const float* x, int n, uint16_t* out) const {
  std::array<uint64_t, kAtOnce * kMaxWords> codes;
  encode(directions_.data(), shape_.head_dim, words_ * kCodeWordBits, x, DType::f32,
         static_cast<size_t>(shape_.head_dim) * sizeof(float), n, codes.data());
  for (int v = 0; v < n; ++v) {
    const uint64_t* code = codes.data() + v * words_;
    for (int t = 0; t < tables_; ++t) {
      const int bit = t * bits_;
      uint64_t hash = code[bit / 64] >> (bit % 64);
      if (bit % 64 + bits_ > 64) hash |= code[bit / 64 + 1] << (64 - bit % 64);
      out[v * tables_ + t] = static_cast<uint16_t>(hash & ((1u << bits_) - 1));
    }
  }
}

bool HashStore::measure_centre(const CacheView& keys, std::span<const int32_t> cells, int head) {
  const int d = shape_.head_dim;
  std::array<double, kMaxHeadDim> sum{};
  const int64_t n = sample_keys(keys, cells, head, d, [&](const float* key) {
    for (int i = 0; i < d; ++i) sum[static_cast<size_t>(i)] += static_cast<double>(key[i]);
  });
  for (int i = 0; i < d && n > 0; ++i) {
    centre_[static_cast<size_t>(head * d + i)] =
        static_cast<float>(sum[static_cast<size_t>(i)] / static_cast<double>(n));
  }
  return n > 0;
}

void HashStore::derive(const CacheView& keys, int head, int64_t cell, int n, uint16_t* hashes,
                       float* lengths) const {
  const int d = shape_.head_dim;
  alignas(64) std::array<float, kAtOnce * kMaxHeadDim> centred;
  for (int v = 0; v < n; ++v) {
    float* key = centred.data() + v * d;
    widen_row(keys, cell + v, head, d, key);
    for (int i = 0; i < d; ++i) key[i] -= centre(head)[i];
  }
  key_norms(d, centred.data(), DType::f32, static_cast<size_t>(d) * sizeof(float), n, lengths);
  hash(centred.data(), n, hashes);
}

void HashStore::update(const CacheView& keys, const CacheView&, std::span<const int32_t> cells,
                       const Worker& worker) {
  first_keys_.measure_once(shape_.n_kv_heads, worker,
                           [&](int head) { return measure_centre(keys, cells, head); });
  share_runs(cells, shape_.n_kv_heads, worker, [&](int head, int64_t cell, int64_t run) {
    std::array<uint16_t, kAtOnce * kMaxWords * kCodeWordBits> fresh;
    for (int64_t first = 0; first < run; first += kAtOnce) {
      const int n = static_cast<int>(std::min<int64_t>(kAtOnce, run - first));
      const int64_t at = cell + first;
      derive(keys, head, at, n, fresh.data(),
             lengths_.data() + static_cast<int64_t>(head) * n_cells_ + at);
      for (int t = 0; t < tables_; ++t) {
        uint16_t* to = const_cast<uint16_t*>(hashes(head, t, at));
        for (int v = 0; v < n; ++v) to[v] = fresh[static_cast<size_t>(v * tables_ + t)];
      }
    }
  });
}

bool HashStore::matches(const CacheView& keys, int64_t cell) const {
  std::array<uint16_t, kAtOnce * kMaxWords * kCodeWordBits> fresh;
  for (int head = 0; head < shape_.n_kv_heads; ++head) {
    float length_now = 0.0f;
    derive(keys, head, cell, 1, fresh.data(), &length_now);
    if (length_now != length(head, cell)) return false;
    for (int t = 0; t < tables_; ++t) {
      if (*hashes(head, t, cell) != fresh[static_cast<size_t>(t)]) return false;
    }
  }
  return true;
}

}  // namespace hata
