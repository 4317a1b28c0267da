// The one interface behind which HATA and its rivals choose the keys of a decode step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hata/attend.h"
#include "hata/encode.h"
#include "hata/index.h"
#include "hata/score.h"
#include "hata/team.h"
#include "hata/types.h"

namespace hata {

struct KeptMass;

/// How many keys a row may attend to, forced ones counted in.
struct Budget {
  int64_t tokens = 512;  ///< used where share is 0
  double share = 0.0;    ///< part of the row's valid keys, 0 < share <= 1
  int64_t floor = 0;     ///< never fewer than this
  /// Not 0: the attention to be kept; each KV head gets as many keys as training found it to need,
  /// and never more than the above.
  double mass = 0.0;

  int64_t of(int64_t n_valid) const;  ///< with mass: the most that a head may get
  /// Of one KV head, with mass. Needs grow with the context beyond what they were measured on.
  int64_t of(int64_t n_valid, const KeptMass& kept, int head) const;
  std::string text() const;  ///< "512", "1.56%", "auto:0.99:1024", "auto:0.99:12.5%"

  /// "512", "1.56%", "auto:0.99" (at most kAutoShare of the keys) or "auto:0.99:MOST" with a most
  /// like the first two. Throws Error on anything else: 0, negative, "abc", above 100 %.
  static Budget parse(std::string_view text);
  static constexpr double kAutoShare = 0.125;
  static constexpr int64_t kAutoFloor = 64;  ///< twice the default window
};

/// How many of the last tokens are always kept, inside the budget.
struct Recent {
  int64_t tokens = -1;  ///< used where share is 0; -1: HATA's rule, min(32, budget / 2)
  double share = 0.0;   ///< part of the budget, 0 < share <= 1

  int64_t of(int64_t budget) const;
  bool by_rule() const { return share == 0.0 && tokens < 0; }
  bool operator==(const Recent&) const = default;
  std::string text() const;  ///< "-1", "32", "0.75k"
  /// "-1", "32", "0.75k" or, the same for shares of 1 / n, "k/4". Throws Error on anything else.
  static Recent parse(std::string_view text);
  static constexpr int64_t kMost = int64_t{1} << 20;  ///< tokens
};

/// Keys that are chosen without a score, inside the budget: a sequence's first and last tokens.
struct Window {
  int64_t sink = 0;
  Recent recent = {.tokens = 0};
  bool at_most_half = false;  ///< recent ones never take more than half of the budget

  struct Tokens {
    int64_t first, last;
  };
  Tokens of(int64_t budget) const;  ///< together never more than the budget
  bool operator==(const Window&) const = default;
};

/// One query row: q of head h starts at q + h * q_head_stride (floats), out likewise.
struct Row {
  const float* q = nullptr;
  size_t q_head_stride = 0;
  float* out = nullptr;
  size_t out_head_stride = 0;
  const uint16_t* mask = nullptr;  ///< f16 [n_kv], -inf: not valid; nullptr: all are valid

  const float* query(int q_head) const { return q + static_cast<size_t>(q_head) * q_head_stride; }
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
  int64_t budget = 0;                          ///< keys to choose; 0: attend to all valid keys
  std::span<const int64_t> head_budgets = {};  ///< [n_kv_heads] none above budget; empty: all alike

  int64_t budget_of(int head) const {
    return head_budgets.empty() ? budget : head_budgets[static_cast<size_t>(head)];
  }
  int64_t least_budget() const {
    return head_budgets.empty() ? budget
                                : *std::min_element(head_budgets.begin(), head_budgets.end());
  }
};

/// The chosen cells of each row and KV head, ascending, as cells of the view; and, from methods
/// that correct for what they left out, a bias and a blend. Reuses its memory.
class Selection {
 public:
  void reset(int n_rows, const HeadShape& shape, int64_t capacity);

  int32_t* data(int row, int head);
  void set_count(int row, int head, int64_t n);
  std::span<const int32_t> cells(int row, int head) const;

  /// From now on each query head adds a bias of its own to the logit of each chosen key, -inf: this
  /// head does not attend to it. One thread calls it, before any bias is written.
  void use_bias();
  bool has_bias() const { return has_bias_; }
  /// Of the KV head's first query head, in the order of its cells; the next head's is capacity()
  /// floats on.
  float* bias(int row, int head);
  const float* bias(int row, int head) const {
    return const_cast<Selection*>(this)->bias(row, head);
  }
  int64_t capacity() const { return capacity_; }

  /// From now on each result is share * attention + (1 - share) * mean. One thread calls it.
  void use_blend();
  bool has_blend() const { return has_blend_; }
  float* share(int row, int head);  ///< [group]
  float* mean(int row, int head);   ///< [head_dim]

 private:
  int64_t list(int row, int head) const {
    return static_cast<int64_t>(row) * shape_.n_kv_heads + head;
  }

  HeadShape shape_;
  int64_t n_lists_ = 0;
  int64_t capacity_ = 0;
  bool has_bias_ = false;
  bool has_blend_ = false;
  std::vector<int32_t> cells_;
  std::vector<int64_t> counts_;
  std::vector<float> bias_, shares_, means_;
};

/// Bytes a method read, and the time of its stages, summed over steps.
struct StageCounters {
  int64_t encode_ns = 0;
  int64_t score_ns = 0;
  int64_t select_ns = 0;
  int64_t rerank_ns = 0;  ///< the part of select_ns in which HATA ranks candidates again
  int64_t attend_ns = 0;
  int64_t choose_bytes = 0;   ///< read to choose
  int64_t attend_bytes = 0;   ///< read to attend (keys and values)
  int64_t dense_bytes = 0;    ///< what dense attention would have read
  int64_t keys_attended = 0;  ///< per KV head
  int64_t keys_valid = 0;     ///< per KV head
  int64_t sparse_rows = 0;
  int64_t dense_rows = 0;
  int64_t unobserved_rows = 0;  ///< dense for want of AttentionTotals

  StageCounters& operator+=(const StageCounters& other);
};

struct LayerCache;
class AttentionTotals;

/// A way to choose keys. Immutable; what it keeps per layer is a KeyStore. One selector serves
/// many caches and threads.
class Selector {
 public:
  virtual ~Selector() = default;
  /// The method's spec, as make_selector was given it.
  virtual std::string_view name() const = 0;

  /// False for dense attention: rows are never handed to select().
  virtual bool sparse() const { return true; }

  /// Why it cannot choose among the keys of this layer; empty where it can.
  virtual std::string why_dense(int /*layer*/, const HeadShape&) const { return {}; }

  /// What trained weights say of a layer's needs; nullptr: nothing.
  virtual std::shared_ptr<const KeptMass> kept_mass(int /*layer*/) const { return nullptr; }

  /// Where it chooses by a CodeStore's codes and lengths alone, as devices can: how they are
  /// scored. Nothing: it does something else.
  virtual std::optional<ScoreRule> by_codes_alone() const { return std::nullopt; }

  /// With by_codes_alone(): the keys of a layer that are always kept.
  virtual Window window(int layer) const;

  /// What it keeps for a layer of `n_cells` cells (that it can serve); nullptr where it keeps
  /// nothing.
  virtual std::unique_ptr<KeyStore> make_store(int layer, const HeadShape& shape,
                                               int64_t n_cells) const = 0;

  /// Whether it needs the layer's AttentionTotals (H2O, SnapKV); rows stay dense without them.
  virtual bool needs_totals() const { return false; }

  /// Memory of its scratch data across the phases of one step, one per decoder.
  class Scratch {
   public:
    virtual ~Scratch() = default;
  };
  virtual std::unique_ptr<Scratch> make_scratch() const = 0;

  /// Fills `out` for the rows whose plan has a budget > 0 (budget < n_valid there), with at most
  /// that many cells. All threads of the team call it alike; on return every thread may read
  /// `out`. Thread 0 adds its bytes and times to `counters`.
  virtual void select(const Step& step, std::span<const RowPlan> plans, LayerCache& cache,
                      Scratch& scratch, Selection& out, StageCounters& counters,
                      const Worker& worker) const = 0;
};

/// One layer of one cache: what is known of its cells, and what the method keeps of its keys.
struct LayerCache {
  LayerCache(const Selector& selector, int layer, const HeadShape& shape, int64_t n_cells);
  ~LayerCache();
  /// From now on for this method: nothing is kept of the keys any more.
  void use(const Selector& selector, int layer, const HeadShape& shape);

  CellIndex index;
  std::unique_ptr<KeyStore> store;
  std::string why_dense;                      ///< not empty: the method cannot serve this layer
  std::shared_ptr<const KeptMass> kept_mass;  ///< for a Budget with mass
  std::unique_ptr<AttentionTotals> totals;    ///< where prefills are observed
};

struct Weights;

/// The score rule of HATA and the keys that are always kept (both inside the budget).
struct HataOptions {
  int rbit = 128;       ///< of random codes
  bool lengths = true;  ///< key lengths in the score; false: the paper's order
  int sink = 1;         ///< first tokens of the row's sequence
  Recent recent = {};   ///< last tokens; by rule: what trained weights say of a layer, if they do
  int rerank = 0;       ///< 2 to 16: budget * rerank keys by codes, the best of them by 4-bit keys
  uint64_t seed = 1;    ///< of all that is random
  ScoreRule score = ScoreRule::sum;  ///< how a group's heads make one score (hata/score.h)
  /// Trained projections; layers without any, and all where it is nullptr, have random ones.
  std::shared_ptr<const Weights> weights = nullptr;
  std::string model = {};  ///< its fingerprint, where known: another's weights keep layers dense
};

/// A parameter of a method: `key=value` in its spec.
struct MethodParam {
  std::string_view key;
  std::string_view value;  ///< default; empty: as HataOptions says
  std::string_view help;
};

struct MethodInfo {
  std::string_view name;
  std::string_view help;
  std::span<const MethodParam> params;
};

/// All methods, HATA first.
std::vector<MethodInfo> methods();
std::vector<std::string> selector_names();
/// A table of them and their parameters, as text.
std::string methods_help();

/// The method that `spec` names: `name[:key=value...]`, as in "quest:page=32". Throws Error on an
/// unknown method or key (with the list of those there are) and on a bad value.
std::shared_ptr<const Selector> make_selector(std::string_view spec, const HataOptions& options);

}  // namespace hata
