// Dense attention of many query vectors over all cells of one KV head: the stage of a prefill.
// Unlike attend, it is bound by arithmetic: tiles of keys and values are widened to f32 once, for
// all vectors of the call, and multiplied as matrices.
#pragma once

#include <cstdint>

#include "hata/attend.h"
#include "hata/types.h"

namespace hata::cpu {

constexpr int kPrefillTile = 64;     ///< cells that are attended to at once
constexpr int kPrefillVectors = 12;  ///< memory for query vectors comes in multiples of this many

/// Which cells of a tile a row sees. all: every one, and the mask adds nothing.
enum class TileMask : uint8_t { none, some, all };

/// Rows times the query heads of the group: vector v is head v % heads of row v / heads.
struct PrefillArgs {
  int n_rows;
  int heads;
  int head_dim;
  const float* q;  ///< [vectors][head_dim]
  CacheView keys;
  CacheView values;
  int kv_head;
  int64_t n_kv;
  const uint16_t* const* masks;  ///< [n_rows], f16 [n_kv] each, or nullptr
  const TileMask* tiles;         ///< [n_rows][prefill_tiles(n_kv)]
  const float* slopes;           ///< [heads]
  AttendParams params;
  float* scratch;  ///< prefill_scratch floats, 64-byte aligned
};

constexpr int64_t prefill_tiles(int64_t n_kv) { return (n_kv + kPrefillTile - 1) / kPrefillTile; }

/// So many vectors do the arrays of a call hold: q, and max, sum and acc of its result.
constexpr int64_t prefill_vectors(int n_rows, int heads) {
  return (static_cast<int64_t>(n_rows) * heads + kPrefillVectors - 1) / kPrefillVectors *
         kPrefillVectors;
}

/// A tile of keys and one of values, and per vector a tile of logits and a vector of sums.
constexpr int64_t prefill_scratch(int64_t vectors, int head_dim) {
  constexpr int kMostLanes = 16;
  return 2 * kPrefillTile * head_dim + vectors * (kPrefillTile + kMostLanes);
}

}  // namespace hata::cpu
