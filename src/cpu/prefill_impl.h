// PrefillCall for one instruction set. Included by kernels_<isa>.cpp only, after its vectors.
//
// Tile by tile of keys: logits = Q K^T for all query vectors, softmax against the running maximum,
// O = O * rescale + P V. Both products are the same kernel: kBlockRows query vectors, whose
// elements are broadcast, times panels, kBlockVecs vectors wide, of keys (transposed) or values.
// A vector's sums are taken in the same order whatever vectors are beside it.

#include "cpu/math_impl.h"

namespace hata::cpu::HATA_ISA {
namespace {

constexpr int kTile = kPrefillTile;
constexpr int kPanel = kBlockVecs * kLanes;  // columns of a full panel
static_assert(kTile % kPanel == 0 && kTile % kLanes == 0);
static_assert(kPrefillVectors % kBlockRows == 0 && kBlockRows <= kLanes);

/// One call, with its scratch memory.
struct PrefillCall {
  const PrefillArgs& args;
  const Partial& out;
  int64_t n_tiles;
  int n_vectors;
  float* keys;    // panels [kTile / kPanel][head_dim][kPanel]
  float* values;  // panels [head_dim / kPanel][kTile][kPanel], the last one narrower
  float* logits;  // [vectors][kTile], then the weights
  float* sums;    // [vectors][kLanes], of the weights

  // The tile at hand.
  int64_t tile = 0;
  int64_t first_cell = 0;
  int n_cells = 0;
  int n_odd = 0;
  int odd[kTile];  // cells whose values are not finite: their panel rows are zeros

  PrefillCall(const PrefillArgs& a, const Partial& o)
      : args(a),
        out(o),
        n_tiles(prefill_tiles(a.n_kv)),
        n_vectors(a.n_rows * a.heads),
        keys(a.scratch),
        values(keys + kTile * a.head_dim),
        logits(values + kTile * a.head_dim),
        sums(logits + prefill_vectors(a.n_rows, a.heads) * kTile) {}

  int n_blocks() const { return (n_vectors + kBlockRows - 1) / kBlockRows; }

  void start_tile(int64_t t) {
    tile = t;
    first_cell = t * kTile;
    n_cells = args.n_kv - first_cell < kTile ? static_cast<int>(args.n_kv - first_cell) : kTile;
    n_odd = 0;
  }

  TileMask seen_by(int vector) const { return args.tiles[vector / args.heads * n_tiles + tile]; }

  /// Whether a vector of the block sees a cell of the tile.
  bool takes_part(int block) const {
    const int end = (block + 1) * kBlockRows;
    for (int v = block * kBlockRows; v < end && v < n_vectors; ++v) {
      if (seen_by(v) != TileMask::none) return true;
    }
    return false;
  }

  /// The mask of a vector that sees some cells; `padded` has room for it where the tile is the
  /// last one, or where there is no mask.
  const uint16_t* mask_of(int vector, uint16_t* padded) const {
    const uint16_t* mask = args.masks[vector / args.heads];
    if (mask != nullptr) mask += first_cell;
    if (mask != nullptr && n_cells == kTile) return mask;
    for (int j = 0; j < kTile; ++j) {
      padded[j] = j >= n_cells ? kNegInf16 : mask == nullptr ? uint16_t{0} : mask[j];
    }
    return padded;
  }

  const char* row(const CacheView& view, int64_t cell) const {
    return reinterpret_cast<const char*>(view.data) + static_cast<size_t>(cell) * view.cell_stride +
           static_cast<size_t>(args.kv_head) * view.head_stride;
  }
};

/// Rows of A times a panel: c[r][:] = c[r][:] * rescale[r] + sum over k of a[r][k] * panel[k][:],
/// without the first part where rescale is nullptr.
template <int Vecs>
inline void multiply(const float* a, int a_stride, const float* panel, int depth,
                     const float* rescale, float* c, int c_stride) {
  F32 sum[kBlockRows][Vecs];
  for (int r = 0; r < kBlockRows; ++r) {
    for (int v = 0; v < Vecs; ++v) {
      sum[r][v] = rescale == nullptr
                      ? F32::all(0.0f)
                      : F32::load(c + r * c_stride + v * kLanes) * F32::all(rescale[r]);
    }
  }
  for (int k = 0; k < depth; ++k, panel += Vecs * kLanes) {
    F32 column[Vecs];
    for (int v = 0; v < Vecs; ++v) column[v] = F32::load(panel + v * kLanes);
    for (int r = 0; r < kBlockRows; ++r) {
      const F32 x = F32::all(a[r * a_stride + k]);
      for (int v = 0; v < Vecs; ++v) sum[r][v] = muladd(x, column[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kBlockRows; ++r) {
    for (int v = 0; v < Vecs; ++v) sum[r][v].store(c + r * c_stride + v * kLanes);
  }
}

/// The tile's keys, transposed, into panels; zeros behind the last cell.
template <class T>
void pack_keys(const PrefillCall& p) {
  const int head_dim = p.args.head_dim;
  for (int first = 0; first < kTile; first += kLanes) {
    float* panel = p.keys + first / kPanel * kPanel * head_dim + first % kPanel;
    const T* key[kLanes];
    const int n = p.n_cells - first;
    for (int l = 0; l < kLanes && l < n; ++l) {
      key[l] = reinterpret_cast<const T*>(p.row(p.args.keys, p.first_cell + first + l));
    }
    for (int i = 0; i < head_dim; i += kLanes) {
      F32 block[kLanes];
      for (int l = 0; l < kLanes; ++l) block[l] = l < n ? F32::load(key[l] + i) : F32::all(0.0f);
      transpose(block);
      for (int l = 0; l < kLanes; ++l) block[l].store(panel + (i + l) * kPanel);
    }
  }
}

/// Where element i of the tile's value j stands in the panels.
inline float* value_at(const PrefillCall& p, int j, int i) {
  const int first = i / kPanel * kPanel;
  const int width = p.args.head_dim - first < kPanel ? p.args.head_dim - first : kPanel;
  return p.values + first * kTile + j * width + (i - first);
}

inline bool any_nan(F32 x) {
  float lanes[kLanes];
  x.store(lanes);
  bool any = false;
  for (const float lane : lanes) any |= lane != lane;
  return any;
}

/// 0 in each lane where the row's elements are finite, else NaN.
template <class T>
inline F32 finite_check(const PrefillCall& p, const T* value) {
  F32 check = F32::all(0.0f);
  for (int i = 0; i < p.args.head_dim; i += kLanes) {
    check = muladd(F32::load(value + i), F32::all(0.0f), check);
  }
  return check;
}

/// Sets aside the values that are not finite: a weight of 0 would not keep them out of the sums of
/// vectors that do not see them.
template <class T>
void set_odd_apart(PrefillCall& p) {
  for (int j = 0; j < p.n_cells; ++j) {
    const T* value = reinterpret_cast<const T*>(p.row(p.args.values, p.first_cell + j));
    if (!any_nan(finite_check(p, value))) continue;
    for (int i = 0; i < p.args.head_dim; i += kLanes) F32::all(0.0f).store(value_at(p, j, i));
    p.odd[p.n_odd++] = j;
  }
}

/// The tile's values into panels; zeros behind the last cell.
template <class T>
void pack_values(PrefillCall& p) {
  const int head_dim = p.args.head_dim;
  F32 check = F32::all(0.0f);
  for (int first = 0; first < head_dim; first += kPanel) {
    const int width = head_dim - first < kPanel ? head_dim - first : kPanel;
    float* panel = p.values + first * kTile;
    for (int j = 0; j < kTile; ++j, panel += width) {
      const T* value = reinterpret_cast<const T*>(p.row(p.args.values, p.first_cell + j)) + first;
      for (int i = 0; i < width; i += kLanes) {
        const F32 x = j < p.n_cells ? F32::load(value + i) : F32::all(0.0f);
        check = muladd(x, F32::all(0.0f), check);
        x.store(panel + i);
      }
    }
  }
  if (any_nan(check)) set_odd_apart<T>(p);
}

/// Turns a vector's q.k into logits (-inf where it does not see the cell); returns their maximum.
inline float finish_logits(const PrefillCall& p, int vector, float* logits) {
  const AttendParams& params = p.args.params;
  const F32 scale = F32::all(params.scale);
  const F32 cap = F32::all(params.softcap);
  const TileMask seen = p.seen_by(vector);
  uint16_t padded[kTile];
  const uint16_t* mask = seen == TileMask::some ? p.mask_of(vector, padded) : nullptr;
  const F32 slope = F32::all(p.args.slopes[vector % p.args.heads]);
  F32 top = F32::all(kLowest);
  for (int j = 0; j < kTile; j += kLanes) {
    F32 x = F32::load(logits + j) * scale;
    if (params.softcap > 0.0f) x = cap * tanh(x / cap);
    if (mask != nullptr) {
      const F32 bias = F32::load(mask + j);
      x = choose_at_least(bias, F32::all(-65504.0f), muladd(slope, bias, x), F32::all(kLowest));
    }
    x.store(logits + j);
    top = max(top, x);
  }
  return max_lane(top);
}

/// Turns the block's q.k into weights exp(logit - maximum), updates the maxima and sums, and gives
/// what the sums of earlier tiles have to be multiplied by.
inline void softmax_block(const PrefillCall& p, int block, float* rescale) {
  const int first = block * kBlockRows;
  const int n = p.n_vectors - first < kBlockRows ? p.n_vectors - first : kBlockRows;
  float drop[kLanes] = {};
  float shift[kBlockRows];
  for (int r = 0; r < n; ++r) {
    float& maximum = p.out.max[first + r];
    const float before = maximum;
    const float top = p.seen_by(first + r) == TileMask::none
                          ? kLowest
                          : finish_logits(p, first + r, p.logits + (first + r) * kTile);
    maximum = top > before ? top : before;
    shift[r] = maximum > kLowest ? maximum : 0.0f;
    drop[r] = before - shift[r];
  }
  exp_negative(F32::load(drop)).store(rescale);
  for (int r = 0; r < n; ++r) {
    const int v = first + r;
    float* logits = p.logits + v * kTile;
    const bool sees = p.seen_by(v) != TileMask::none;
    F32 total = F32::load(p.sums + v * kLanes) * F32::all(rescale[r]);
    for (int j = 0; j < kTile; j += kLanes) {
      const F32 weight =
          sees ? exp_negative(F32::load(logits + j) - F32::all(shift[r])) : F32::all(0.0f);
      weight.store(logits + j);
      total = total + weight;
    }
    total.store(p.sums + v * kLanes);
  }
}

/// acc = acc * rescale + weights * values for one block, panel by panel.
template <int Vecs>
inline void add_values(const PrefillCall& p, int block, const float* rescale, int first) {
  const int head_dim = p.args.head_dim;
  const float* weights = p.logits + block * kBlockRows * kTile;
  float* acc = p.out.acc + block * kBlockRows * head_dim;
  for (; head_dim - first >= Vecs * kLanes; first += Vecs * kLanes) {
    multiply<Vecs>(weights, kTile, p.values + first * kTile, kTile, rescale, acc + first, head_dim);
  }
  if constexpr (Vecs > 1) {
    if (first < head_dim) add_values<Vecs - 1>(p, block, rescale, first);
  }
}

/// The values that are not finite, for the vectors that see them.
template <class T>
void add_odd_values(const PrefillCall& p, int block) {
  for (int v = block * kBlockRows; v < (block + 1) * kBlockRows && v < p.n_vectors; ++v) {
    const TileMask seen = p.seen_by(v);
    if (seen == TileMask::none) continue;
    uint16_t padded[kTile];
    const uint16_t* mask = seen == TileMask::some ? p.mask_of(v, padded) : nullptr;
    float* acc = p.out.acc + v * p.args.head_dim;
    for (int o = 0; o < p.n_odd; ++o) {
      const int j = p.odd[o];
      if (mask != nullptr && mask[j] == kNegInf16) continue;
      const F32 weight = F32::all(p.logits[v * kTile + j]);
      const T* value = reinterpret_cast<const T*>(p.row(p.args.values, p.first_cell + j));
      for (int i = 0; i < p.args.head_dim; i += kLanes) {
        muladd(weight, F32::load(value + i), F32::load(acc + i)).store(acc + i);
      }
    }
  }
}

/// A part of the next tile's rows, into the second-level cache.
inline void prefetch_next(const PrefillCall& p, int block, int n_blocks) {
  const int64_t next = p.first_cell + kTile;
  for (int j = kTile * block / n_blocks; j < kTile * (block + 1) / n_blocks; ++j) {
    if (next + j >= p.args.n_kv) return;
    for (const CacheView* view : {&p.args.keys, &p.args.values}) {
      const char* row = p.row(*view, next + j);
      const int bytes = p.args.head_dim * (view->type == DType::f32 ? 4 : 2);
      for (int byte = 0; byte < bytes; byte += 64) __builtin_prefetch(row + byte, 0, 2);
    }
  }
}

void attend_tile(PrefillCall& p) {
  const PrefillArgs& args = p.args;
  const int n_blocks = p.n_blocks();
  const bool f32_values = args.values.type == DType::f32;
  args.keys.type == DType::f32 ? pack_keys<float>(p) : pack_keys<uint16_t>(p);
  for (int block = 0; block < n_blocks; ++block) {
    prefetch_next(p, block, n_blocks);
    if (!p.takes_part(block)) continue;
    const int first = block * kBlockRows;
    for (int column = 0; column < kTile; column += kPanel) {
      multiply<kBlockVecs>(args.q + first * args.head_dim, args.head_dim,
                           p.keys + column * args.head_dim, args.head_dim, nullptr,
                           p.logits + first * kTile + column, kTile);
    }
  }
  f32_values ? pack_values<float>(p) : pack_values<uint16_t>(p);
  for (int block = 0; block < n_blocks; ++block) {
    if (!p.takes_part(block)) continue;
    float rescale[kLanes];
    softmax_block(p, block, rescale);
    add_values<kBlockVecs>(p, block, rescale, 0);
    if (p.n_odd > 0)
      f32_values ? add_odd_values<float>(p, block) : add_odd_values<uint16_t>(p, block);
  }
}

inline bool any_takes_part(const PrefillCall& p) {
  for (int row = 0; row < p.args.n_rows; ++row) {
    if (p.seen_by(row * p.args.heads) != TileMask::none) return true;
  }
  return false;
}

void prefill(const PrefillArgs& args, const Partial& out) {
  PrefillCall p(args, out);
  for (int i = 0; i < p.n_vectors * kLanes; ++i) p.sums[i] = 0.0f;
  for (int64_t tile = 0; tile < p.n_tiles; ++tile) {
    p.start_tile(tile);
    if (!any_takes_part(p)) continue;
    attend_tile(p);
  }
  for (int v = 0; v < p.n_vectors; ++v) {
    float sum = 0.0f;
    for (int l = 0; l < kLanes; ++l) sum += p.sums[v * kLanes + l];
    out.sum[v] = sum;
  }
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
