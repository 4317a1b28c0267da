// Stage 4 for one instruction set. Included by kernels_<isa>.cpp only, after its vectors.
//
// Keys go by blocks. For up to four query heads of the group at a time: logits of the block (K
// pass), softmax against the running maximum, weighted values (V pass). The K pass prefetches the
// block's values, the V pass the next block's keys, so that reading never waits for arithmetic.

#include "cpu/math_impl.h"

namespace hata::cpu::HATA_ISA {
namespace {

constexpr int kBlock = 64;  // keys

/// Into the second-level cache: the first one is full of the block at hand.
inline void prefetch_line(const char* line) { __builtin_prefetch(line, 0, 2); }

/// Keys whose logits one vector holds: lane h * R + r is head h and key r.
constexpr int rows_a_vector(int heads) { return kLanes / heads; }

/// The keys of one block that take part, with their values. What a mask excludes may hold anything
/// and is not read.
struct Block {
  int n;
  const char* keys[kBlock + kLanes];  // padded with the last one
  const char* values[kBlock + kLanes];
  float bias[kBlock + kLanes];  // the mask; -inf in the padding
  int64_t at[kBlock + kLanes];  // which of the call's keys it is; in the padding, the last one
};

/// Takes up to kBlock of the next keys, from `next` on, that the mask does not exclude.
inline void fill_block(const AttendArgs& args, int64_t& next, Block& block) {
  const auto head = static_cast<size_t>(args.kv_head);
  const char* keys = reinterpret_cast<const char*>(args.keys.data) + head * args.keys.head_stride;
  const char* values =
      reinterpret_cast<const char*>(args.values.data) + head * args.values.head_stride;
  int n = 0;
  for (; next < args.count && n < kBlock; ++next) {
    const int64_t cell = args.cells != nullptr ? args.cells[next] : args.first_cell + next;
    if (args.mask != nullptr && args.mask[cell] == kNegInf16) continue;
    block.keys[n] = keys + static_cast<size_t>(cell) * args.keys.cell_stride;
    block.values[n] = values + static_cast<size_t>(cell) * args.values.cell_stride;
    block.at[n] = next;
    block.bias[n++] = args.mask != nullptr ? half_to_float(args.mask[cell]) : 0.0f;
  }
  block.n = n;
  for (int j = n; n > 0 && j < kBlock + kLanes; ++j) {
    block.keys[j] = block.keys[n - 1];
    block.values[j] = block.values[n - 1];
    block.bias[j] = kLowest;
    block.at[j] = block.at[n - 1];
  }
}

/// The query heads first .. first + H - 1 of a call.
template <int H>
struct Heads {
  static constexpr int kRows = rows_a_vector(H);
  const AttendArgs& args;
  int first;
  float* max;
  float* sum;
  float* acc;

  Heads(const AttendArgs& a, int f, const Partial& out)
      : args(a),
        first(f),
        max(out.max + f),
        sum(out.sum + f),
        acc(out.acc + static_cast<size_t>(f) * static_cast<size_t>(a.head_dim)) {}

  const float* query(int h) const {
    return args.q + static_cast<size_t>(first + h) * args.q_stride;
  }

  /// Lane h * kRows + r is per_head[h].
  static F32 spread(const float* per_head) {
    float lanes[kLanes] = {};
    for (int l = 0; l < H * kRows; ++l) lanes[l] = per_head[l / kRows];
    return F32::load(lanes);
  }
};

/// q.k of the heads for the block's keys, a vector of H * kRows of them after another.
template <class T, int H>
inline void dot_products(const Heads<H>& heads, const Block& block, bool prefetch, float* logits) {
  constexpr int R = Heads<H>::kRows;
  const int head_dim = heads.args.head_dim;
  const float* query[H];
  for (int h = 0; h < H; ++h) query[h] = heads.query(h);
  for (int j = 0; j < block.n; j += R, logits += kLanes) {
    const T* key[R];
    for (int r = 0; r < R; ++r) key[r] = reinterpret_cast<const T*>(block.keys[j + r]);
    F32 sum[kLanes];
    for (F32& s : sum) s = F32::all(0.0f);
    for (int i = 0; i < head_dim; i += kLanes) {
      const size_t byte = static_cast<size_t>(i) * sizeof(T);
      if (prefetch && byte % 64 == 0) {
        for (int r = 0; r < R; ++r) prefetch_line(block.values[j + r] + byte);
      }
      F32 element[R];
      for (int r = 0; r < R; ++r) element[r] = F32::load(key[r] + i);
      for (int h = 0; h < H; ++h) {
        const F32 q = F32::load(query[h] + i);
        for (int r = 0; r < R; ++r) sum[h * R + r] = muladd(q, element[r], sum[h * R + r]);
      }
    }
    sum_each(sum).store(logits);
  }
}

/// The heads' own biases of the keys from j on, in lanes as their logits.
template <int H>
inline F32 own_bias(const Heads<H>& heads, const Block& block, int j) {
  constexpr int R = Heads<H>::kRows;
  float lanes[kLanes] = {};
  for (int h = 0; h < H; ++h) {
    const float* bias =
        heads.args.bias + static_cast<size_t>(heads.first + h) * heads.args.bias_stride;
    for (int r = 0; r < R; ++r) lanes[h * R + r] = bias[block.at[j + r]];
  }
  return F32::load(lanes);
}

/// Turns q.k into logits and returns their maximum per lane.
template <int H>
inline F32 finish_logits(const Heads<H>& heads, const Block& block, float* logits) {
  const AttendParams& params = heads.args.params;
  const F32 scale = F32::all(params.scale);
  const F32 cap = F32::all(params.softcap);
  const float* slopes = heads.args.slopes;
  const F32 slope = slopes != nullptr ? heads.spread(slopes + heads.first) : F32::all(1.0f);
  F32 top = F32::all(kLowest);
  for (int j = 0; j < block.n; j += Heads<H>::kRows, logits += kLanes) {
    F32 x = F32::load(logits) * scale;
    if (params.softcap > 0.0f) x = cap * tanh(x / cap);
    x = muladd(slope, repeat<Heads<H>::kRows>(block.bias + j), x);
    if (heads.args.bias != nullptr) x = x + own_bias(heads, block, j);
    x.store(logits);
    top = max(top, x);
  }
  return top;
}

/// Turns the block's q.k into weights exp(logit - maximum) and updates maximum and sum;
/// rescale[h] is what the earlier blocks' values have to be multiplied by.
template <int H>
inline void softmax(const Heads<H>& heads, const Block& block, float* logits, float* rescale) {
  constexpr int R = Heads<H>::kRows;
  float lanes[kLanes];
  finish_logits(heads, block, logits).store(lanes);

  float maximum[H];
  float drop[kLanes] = {};
  for (int h = 0; h < H; ++h) {
    float m = heads.max[h];
    for (int r = 0; r < R; ++r) m = lanes[h * R + r] > m ? lanes[h * R + r] : m;
    maximum[h] = m > kLowest ? m : 0.0f;
    drop[h] = heads.max[h] - maximum[h];
    heads.max[h] = m;
  }
  exp_negative(F32::load(drop)).store(lanes);
  for (int h = 0; h < H; ++h) rescale[h] = lanes[h];

  const F32 shift = heads.spread(maximum);
  F32 total = F32::all(0.0f);
  for (int j = 0; j < block.n; j += R, logits += kLanes) {
    const F32 weight = exp_negative(F32::load(logits) - shift);
    weight.store(logits);
    total = total + weight;
  }
  total.store(lanes);
  for (int h = 0; h < H; ++h) {
    float s = 0.0f;
    for (int r = 0; r < R; ++r) s += lanes[h * R + r];
    heads.sum[h] = heads.sum[h] * rescale[h] + s;
  }
}

/// Adds the weighted values, elements first .. first + Vecs * kLanes - 1, to the heads' sums.
/// prefetch: rows to come, of which it fetches the same part, or nullptr.
template <class T, int Vecs, int H>
inline void add_values(const Heads<H>& heads, const Block& block, const char* const* prefetch,
                       int first, const float* weights, const float* rescale) {
  constexpr int R = Heads<H>::kRows;
  const int head_dim = heads.args.head_dim;
  const size_t offset = static_cast<size_t>(first) * sizeof(T);
  F32 sum[H][Vecs];
  for (int h = 0; h < H; ++h) {
    const F32 factor = F32::all(rescale[h]);
    for (int v = 0; v < Vecs; ++v) {
      sum[h][v] = F32::load(heads.acc + h * head_dim + first + v * kLanes) * factor;
    }
  }
  for (int j = 0; j < block.n; j += R, weights += kLanes) {
    const int rows = block.n - j < R ? block.n - j : R;
    for (int r = 0; r < rows; ++r) {
      if (prefetch != nullptr) {
        for (size_t byte = 0; byte < Vecs * kLanes * sizeof(T); byte += 64) {
          prefetch_line(prefetch[j + r] + offset + byte);
        }
      }
      const T* value = reinterpret_cast<const T*>(block.values[j + r] + offset);
      F32 element[Vecs];
      for (int v = 0; v < Vecs; ++v) element[v] = F32::load(value + v * kLanes);
      for (int h = 0; h < H; ++h) {
        const F32 weight = F32::all(weights[h * R + r]);
        for (int v = 0; v < Vecs; ++v) sum[h][v] = muladd(weight, element[v], sum[h][v]);
      }
    }
  }
  for (int h = 0; h < H; ++h) {
    for (int v = 0; v < Vecs; ++v) {
      sum[h][v].store(heads.acc + h * head_dim + first + v * kLanes);
    }
  }
}

/// All elements: first by full tiles of registers, then one of what is left.
template <class T, int Vecs, int H>
inline void add_all_values(const Heads<H>& heads, const Block& block, const char* const* prefetch,
                           int first, const float* weights, const float* rescale) {
  for (; heads.args.head_dim - first >= Vecs * kLanes; first += Vecs * kLanes) {
    add_values<T, Vecs>(heads, block, prefetch, first, weights, rescale);
  }
  if constexpr (Vecs > 1) {
    add_all_values<T, Vecs - 1>(heads, block, prefetch, first, weights, rescale);
  }
}

/// One block for H query heads. The first heads prefetch for all: the block's values while they
/// read its keys, the next block's keys while they read its values.
template <int H>
void attend_block(const AttendArgs& args, int first, const Block& block, const Block& next,
                  const Partial& out) {
  const Heads<H> heads(args, first, out);
  const char* const* prefetch = first == 0 && next.n > 0 ? next.keys : nullptr;

  alignas(64) float logits[(kBlock / Heads<H>::kRows + 1) * kLanes];
  if (args.keys.type == DType::f32) {
    dot_products<float>(heads, block, first == 0, logits);
  } else {
    dot_products<uint16_t>(heads, block, first == 0, logits);
  }
  float rescale[H];
  softmax(heads, block, logits, rescale);
  if (args.values.type == DType::f32) {
    add_all_values<float, kValueVecs>(heads, block, prefetch, 0, logits, rescale);
  } else {
    add_all_values<uint16_t, kValueVecs>(heads, block, prefetch, 0, logits, rescale);
  }
}

void attend_heads(const AttendArgs& args, const Block& block, const Block& next,
                  const Partial& out) {
  int h = 0;
  for (; args.heads - h >= 4; h += 4) attend_block<4>(args, h, block, next, out);
  switch (args.heads - h) {
    case 3:
      return attend_block<3>(args, h, block, next, out);
    case 2:
      return attend_block<2>(args, h, block, next, out);
    case 1:
      return attend_block<1>(args, h, block, next, out);
    default:
      return;
  }
}

void attend(const AttendArgs& args, const Partial& out) {
  Block blocks[2];
  Block* current = &blocks[0];
  Block* next = &blocks[1];
  int64_t position = 0;
  fill_block(args, position, *current);
  const int row_bytes = args.head_dim * (args.keys.type == DType::f32 ? 4 : 2);
  for (int j = 0; j < current->n; ++j) {
    for (int byte = 0; byte < row_bytes; byte += 64) prefetch_line(current->keys[j] + byte);
  }
  while (current->n > 0) {
    fill_block(args, position, *next);
    attend_heads(args, *current, *next, out);
    Block* done = current;
    current = next;
    next = done;
  }
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
