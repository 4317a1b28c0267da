// --verify: at every sparse step each valid key's code must be that of the key stored in its cell.
// It watches from outside: hashes of the keys themselves tell what changed, not the marks that the
// host makes.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "hata/decode.h"

namespace hata::host {

/// A hash per cell of the key row (all KV heads) that its code was made from; 0: none yet.
class KeyHashes {
 public:
  explicit KeyHashes(int64_t n_cells) : hashes_(static_cast<size_t>(n_cells), 0) {}

  uint64_t& at(int64_t cell) { return hashes_[static_cast<size_t>(cell)]; }

 private:
  std::vector<uint64_t> hashes_;
};

struct VerifyCounts {
  int64_t steps = 0;      ///< sparse steps checked
  int64_t cells = 0;      ///< valid cells whose keys were compared with their hashes
  int64_t reencoded = 0;  ///< cells encoded again and compared
  int64_t unseen = 0;     ///< keys that changed without a mark
  int64_t stale = 0;      ///< codes that are not those of their keys: must be 0

  VerifyCounts& operator+=(const VerifyCounts& other);
};

/// The check of the steps of one graph. All threads of the step call it alike.
class Verifier {
 public:
  /// Before the step: notes what the step is about to bring up to date.
  void before(const Step& step, const CellIndex& index, const Worker& worker);

  /// After it: checks every cell that is valid in a sparse row.
  void after(const Step& step, std::span<const RowPlan> plans, const KeyStore& store,
             const CacheView& keys, size_t row_bytes, KeyHashes& hashes, const Worker& worker);

  /// What was found since the last call.
  VerifyCounts take_counts();

 private:
  bool sampled(int64_t cell) const;
  void encode_again(int64_t cell, const KeyStore& store, const CacheView& keys, KeyHashes& hashes);
  void check_cell(int64_t cell, const KeyStore& store, const CacheView& keys, size_t row_bytes,
                  KeyHashes& hashes);

  std::vector<int32_t> fresh_;  ///< cells that the step encodes, ascending
  std::vector<uint64_t> valid_;
  uint64_t sample_ = 0;  ///< random: which cells are encoded again
  int64_t steps_ = 0;
  std::atomic<int64_t> cells_{0}, reencoded_{0}, unseen_{0}, stale_{0};
};

}  // namespace hata::host
