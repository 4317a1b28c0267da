// The one interface behind which HATA and its rivals choose the keys of a decode step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hata/attend.h"
#include "hata/encode.h"
#include "hata/index.h"
#include "hata/team.h"
#include "hata/types.h"

namespace hata {

/// How many keys a row may attend to, forced ones counted in.
struct Budget {
  int64_t tokens = 512;  ///< used where share is 0
  double share = 0.0;    ///< part of the row's valid keys, 0 < share <= 1
  int64_t floor = 0;     ///< never fewer than this

  int64_t of(int64_t n_valid) const;
  std::string text() const;  ///< "512", "1.56%"

  /// "512" or "1.56%". Throws Error on anything else: 0, negative, "abc", above 100 %.
  static Budget parse(std::string_view text);
};

/// One query row: q of head h starts at q + h * q_head_stride (floats), out likewise.
struct Row {
  const float* q = nullptr;
  size_t q_head_stride = 0;
  float* out = nullptr;
  size_t out_head_stride = 0;
  const uint16_t* mask = nullptr;  ///< f16 [n_kv], -inf: not valid; nullptr: all are valid
};

/// One attention step of one layer over one stream of its cache.
struct Step {
  HeadShape shape;
  AttendParams params;
  CacheView keys;  ///< cell 0 is the view's first cell
  CacheView values;
  int64_t n_kv = 0;        ///< cells in view
  int64_t first_cell = 0;  ///< the view's first cell in the layer's CellIndex
  std::span<const Row> rows;
};

/// What a row's mask says.
struct RowPlan {
  std::span<const uint64_t> valid;  ///< bit per cell of the view, n_kv rounded up to 64
  int64_t n_valid = 0;
  int64_t budget = 0;  ///< keys to choose; 0: attend to all valid keys
};

/// The chosen cells of each row and KV head, ascending, as cells of the view. Reuses its memory.
class Selection {
 public:
  void reset(int n_rows, int n_kv_heads, int64_t capacity);
  int32_t* data(int row, int head);
  void set_count(int row, int head, int64_t n);
  std::span<const int32_t> cells(int row, int head) const;

 private:
  int n_heads_ = 0;
  int64_t capacity_ = 0;
  std::vector<int32_t> cells_;
  std::vector<int64_t> counts_;
};

/// Bytes a method read, and the time of its stages, summed over steps.
struct StageCounters {
  int64_t encode_ns = 0;
  int64_t score_ns = 0;
  int64_t select_ns = 0;
  int64_t attend_ns = 0;
  int64_t choose_bytes = 0;   ///< read to choose
  int64_t attend_bytes = 0;   ///< read to attend (keys and values)
  int64_t dense_bytes = 0;    ///< what dense attention would have read
  int64_t keys_attended = 0;  ///< per KV head
  int64_t keys_valid = 0;     ///< per KV head
  int64_t sparse_rows = 0;
  int64_t dense_rows = 0;

  StageCounters& operator+=(const StageCounters& other);
};

/// A way to choose keys. Immutable; what it keeps per layer is a KeyStore. One selector serves
/// many caches and threads.
class Selector {
 public:
  virtual ~Selector() = default;
  virtual std::string_view name() const = 0;

  /// False for dense attention: rows are never handed to select().
  virtual bool sparse() const { return true; }

  /// What it keeps for a layer of `n_cells` cells; nullptr where it keeps nothing.
  virtual std::unique_ptr<KeyStore> make_store(int layer, const HeadShape& shape,
                                               int64_t n_cells) const = 0;

  /// Memory of its scratch data across the phases of one step, one per decoder.
  class Scratch {
   public:
    virtual ~Scratch() = default;
  };
  virtual std::unique_ptr<Scratch> make_scratch() const = 0;

  /// Fills `out` for the rows whose plan has a budget > 0 (budget < n_valid there). All threads of
  /// the team call it alike; on return every thread may read `out`. Thread 0 adds its bytes and
  /// times to `counters`.
  virtual void select(const Step& step, std::span<const RowPlan> plans, const CellIndex& index,
                      const KeyStore* store, Scratch& scratch, Selection& out,
                      StageCounters& counters, const Worker& worker) const = 0;
};

/// The score rule of HATA and the keys that are always kept (both inside the budget).
struct HataOptions {
  int rbit = 128;
  bool lengths = true;  ///< key lengths in the score; false: the paper's order
  int sink = 1;         ///< first tokens of the row's sequence
  int recent = -1;      ///< last tokens; -1: min(32, budget / 2)
  uint64_t seed = 1;    ///< of the random projection
};

/// Throws Error (with the list of names) on an unknown method.
/// Names: hata, hata-paper, exact, streaming, dense.
std::shared_ptr<const Selector> make_selector(std::string_view method, const HataOptions& options);
std::vector<std::string> selector_names();

}  // namespace hata
