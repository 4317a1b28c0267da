#include "core/reference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/f16.h"
#include "core/q4.h"
#include "hata/score.h"

namespace hata::reference {
namespace {

const std::byte* row_at(const void* x, size_t stride, int64_t v) {
  return static_cast<const std::byte*>(x) + static_cast<size_t>(v) * stride;
}

int64_t cell_of(const AttendArgs& args, int64_t j) {
  return args.cells != nullptr ? args.cells[j] : args.first_cell + j;
}

double logit(const AttendArgs& args, int h, int64_t j) {
  const int64_t cell = cell_of(args, j);
  const std::byte* key = args.keys.row(cell, args.kv_head);
  const float* q = args.q + static_cast<size_t>(h) * args.q_stride;
  double dot = 0.0;
  for (int i = 0; i < args.head_dim; ++i) {
    dot += static_cast<double>(q[i]) * static_cast<double>(element(key, args.keys.type, i));
  }
  double result = static_cast<double>(args.params.scale) * dot;
  const double cap = static_cast<double>(args.params.softcap);
  if (cap > 0.0) result = cap * std::tanh(result / cap);
  if (args.mask != nullptr) {
    const double slope = args.slopes != nullptr ? static_cast<double>(args.slopes[h]) : 1.0;
    result += slope * static_cast<double>(f16_to_f32(args.mask[cell]));
  }
  if (args.bias != nullptr) {
    result += static_cast<double>(args.bias[static_cast<size_t>(h) * args.bias_stride + j]);
  }
  return result;
}

void attend_head(const AttendArgs& args, int h, const float* sinks,
                 const std::vector<int64_t>& keys, double* out) {
  std::fill_n(out, args.head_dim, 0.0);
  if (keys.empty()) return;
  std::vector<double> weights;
  for (const int64_t j : keys) weights.push_back(logit(args, h, j));
  double max = *std::max_element(weights.begin(), weights.end());
  if (sinks != nullptr) max = std::max(max, static_cast<double>(sinks[h]));
  if (std::isinf(max)) return;

  double sum = sinks != nullptr ? std::exp(static_cast<double>(sinks[h]) - max) : 0.0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  for (size_t n = 0; n < keys.size(); ++n) {
    const std::byte* value = args.values.row(cell_of(args, keys[n]), args.kv_head);
    for (int i = 0; i < args.head_dim; ++i) {
      out[i] += weights[n] / sum * static_cast<double>(element(value, args.values.type, i));
    }
  }
}

}  // namespace

float element(const void* row, DType type, int i) {
  if (type == DType::f32) {
    float value;
    std::memcpy(&value, static_cast<const std::byte*>(row) + i * 4, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const std::byte*>(row) + i * 2, 2);
  return f16_to_f32(half);
}

void encode(const float* w, int head_dim, int rbit, const void* x, DType type, size_t stride,
            int64_t n, uint64_t* codes) {
  const int words = rbit / kCodeWordBits;
  for (int64_t v = 0; v < n; ++v) {
    uint64_t* code = codes + v * words;
    std::fill_n(code, words, 0);
    for (int j = 0; j < rbit; ++j) {
      float sum = 0.0f;
      for (int i = 0; i < head_dim; ++i) {
        sum = std::fma(element(row_at(x, stride, v), type, i), w[i * rbit + j], sum);
      }
      if (sum > 0.0f) code[j / kCodeWordBits] |= uint64_t{1} << (j % kCodeWordBits);
    }
  }
}

void key_norms(int head_dim, const void* x, DType type, size_t stride, int64_t n, float* norms) {
  for (int64_t v = 0; v < n; ++v) {
    float lanes[16] = {};
    for (int i = 0; i < head_dim; ++i) {
      const float value = element(row_at(x, stride, v), type, i);
      lanes[i % 16] = std::fma(value, value, lanes[i % 16]);
    }
    for (int half = 8; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    norms[v] = std::sqrt(lanes[0]);
  }
}

void dots(const float* q, int head_dim, const void* x, DType type, size_t stride, int64_t n,
          float* out) {
  for (int64_t v = 0; v < n; ++v) {
    float lanes[16] = {};
    for (int i = 0; i < head_dim; ++i) {
      lanes[i % 16] = std::fma(q[i], element(row_at(x, stride, v), type, i), lanes[i % 16]);
    }
    for (int half = 8; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    out[v] = lanes[0];
  }
}

void key_lengths(int head_dim, const void* x, DType type, size_t stride, int64_t n, float inv_unit,
                 uint8_t* lengths) {
  for (int64_t v = 0; v < n; ++v) {
    float norm;
    key_norms(head_dim, row_at(x, stride, v), type, stride, 1, &norm);
    const float length = std::floor(norm * inv_unit + 0.5f);
    lengths[v] = length >= 15.0f ? 15 : length >= 1.0f ? static_cast<uint8_t>(length) : 1;
  }
}

namespace {

int code_distance(const uint64_t* a, const uint64_t* b, int rbit) {
  int distance = 0;
  for (int w = 0; w < rbit / kCodeWordBits; ++w) distance += std::popcount(a[w] ^ b[w]);
  return distance;
}

int length_of(const uint8_t* lengths, int64_t i) {
  return lengths == nullptr ? 8 : (lengths[i / 2] >> (i % 2 * 4)) & 15;
}

}  // namespace

void score(const uint64_t* query, int group, int rbit, const uint64_t* keys, const uint8_t* lengths,
           int64_t n, int16_t* scores) {
  const int words = rbit / kCodeWordBits;
  for (int64_t i = 0; i < n; ++i) {
    int distance = 0;
    for (int g = 0; g < group; ++g) {
      distance += code_distance(query + g * words, keys + i * words, rbit);
    }
    scores[i] =
        static_cast<int16_t>(length_of(lengths, i) * (group * rbit - 2 * distance) >> kScoreShift);
  }
}

void score_squares(const uint64_t* query, int group, int rbit, const uint64_t* keys,
                   const uint8_t* lengths, int64_t n, int16_t* scores) {
  const int words = rbit / kCodeWordBits;
  for (int64_t i = 0; i < n; ++i) {
    int squares = 0;
    for (int g = 0; g < group; ++g) {
      const int distance = code_distance(query + g * words, keys + i * words, rbit);
      const int agreement = std::max(0, rbit / 2 - distance);
      squares += agreement * agreement;
    }
    // 64 steps an octave from 2^kLevelFloor on, linear within each.
    int exponent = 0;
    const float sum = std::frexp(static_cast<float>(length_of(lengths, i) * squares), &exponent);
    const int step = static_cast<int>(std::floor((2.0f * sum - 1.0f) * 64.0f));
    scores[i] = static_cast<int16_t>(std::max(0, (exponent - 1 - kLevelFloor) * 64 + step));
  }
}

namespace {

// Where a 4-bit key has element i.
struct Q4Place {
  int block_first, block_end;  // elements of its block
  int block;                   // 0 to 3, in its quad
  int64_t scale, byte;
  bool high;

  Q4Place(int head_dim, int i) {
    const int quad = i / kQ4Quad;
    const int size = 8 * q4_rows(head_dim, quad * kQ4Quad);
    block = i % kQ4Quad / size;
    block_first = quad * kQ4Quad + block * size;
    block_end = std::min(head_dim, block_first + size);
    const int at = i - block_first;
    scale = int64_t{quad} * kQ4QuadBytes + 2 * block;
    byte = int64_t{quad} * kQ4QuadBytes + kQ4ScaleBytes + at / 8 * 16 + 4 * block + at % 4;
    high = at % 8 >= 4;
  }
};

float scale_of(const uint8_t* key, const Q4Place& place) {
  return f16_to_f32(static_cast<uint16_t>(key[place.scale] | key[place.scale + 1] << 8));
}
int number_of(const uint8_t* key, const Q4Place& place) {
  return 2 * (place.high ? key[place.byte] >> 4 : key[place.byte] & 15) - 15;
}

}  // namespace

void q4_encode(int head_dim, const void* x, DType type, size_t stride, int64_t n, uint8_t* keys) {
  const int key_bytes = q4_bytes(head_dim);
  std::fill_n(keys, n * key_bytes, uint8_t{0});
  for (int64_t v = 0; v < n; ++v, keys += key_bytes) {
    const auto at = [&](int i) {
      return i < head_dim ? element(row_at(x, stride, v), type, i) : 0.0f;
    };
    const int n_quads = (head_dim + kQ4Quad - 1) / kQ4Quad;
    const int last_rows = q4_rows(head_dim, (n_quads - 1) * kQ4Quad);
    for (int i = 0; i < (n_quads - 1) * kQ4Quad + 32 * last_rows; ++i) {
      const Q4Place place(head_dim, i);
      float most = 0.0f;
      for (int j = place.block_first; j < place.block_end; ++j)
        most = std::max(most, std::abs(at(j)));
      const uint16_t half = f32_to_f16(most / 16);
      keys[place.scale] = static_cast<uint8_t>(half);
      keys[place.scale + 1] = static_cast<uint8_t>(half >> 8);
      const float scale = f16_to_f32(half);
      const float u = scale > 0.0f ? at(i) * (0.5f / scale) + 8.0f : 8.0f;
      const int bits = static_cast<int>(std::clamp(u, 0.0f, 15.0f));
      keys[place.byte] |= static_cast<uint8_t>(place.high ? bits << 4 : bits);
    }
  }
}

float q4_element(const uint8_t* key, int head_dim, int i) {
  const Q4Place place(head_dim, i);
  return static_cast<float>(number_of(key, place)) * scale_of(key, place);
}

float q4_logit(const float* q, int head_dim, float scale, const uint8_t* key) {
  float lanes[4] = {};
  for (int i = 0; i < head_dim;) {
    const Q4Place block(head_dim, i);
    float most = 0.0f;
    for (int j = i; j < block.block_end; ++j) most = std::max(most, std::abs(q[j]));
    int sum = 0;
    for (; i < block.block_end; ++i) {
      const float number = most > 0.0f ? std::nearbyint(q[i] * (127.0f / most)) : 0.0f;
      sum += static_cast<int>(number) * number_of(key, Q4Place(head_dim, i));
    }
    const float scales = scale_of(key, block) * (most / 127.0f * scale);
    lanes[block.block] = std::fma(static_cast<float>(sum), scales, lanes[block.block]);
  }
  return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

std::vector<int32_t> select(const int16_t* scores, const uint64_t* valid, int64_t n, int64_t k) {
  std::vector<int32_t> cells;
  for (int32_t i = 0; i < n; ++i) {
    if (valid[i / 64] >> (i % 64) & 1) cells.push_back(i);
  }
  std::stable_sort(cells.begin(), cells.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  cells.resize(std::min<size_t>(cells.size(), static_cast<size_t>(k)));
  std::sort(cells.begin(), cells.end());
  return cells;
}

void attend(const AttendArgs& args, const float* sinks, double* out) {
  std::vector<int64_t> keys;
  for (int64_t j = 0; j < args.count; ++j) {
    if (args.mask == nullptr || args.mask[cell_of(args, j)] != kF16NegInf) keys.push_back(j);
  }
  for (int h = 0; h < args.heads; ++h) {
    attend_head(args, h, sinks, keys, out + static_cast<size_t>(h) * args.head_dim);
  }
}

}  // namespace hata::reference
