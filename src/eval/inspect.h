// What a method's choice is worth: at some steps, the exact attention of the row is computed beside
// it, and from that how much attention mass the chosen keys hold and how many of the truly best
// keys are among them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "hata/inspect.h"

namespace hata::eval {

/// Where a key stands in its sequence. Sinks and recent keys hold most of the mass and are found by
/// any window: they are counted apart.
enum Region { kSinks, kRecent, kFar };
constexpr int kRegions = 3;
constexpr int kSinkKeys = 4;
constexpr int kRecentKeys = 32;

/// Sums over the inspected steps, for one layer and KV head; [region].
struct HeadCounts {
  int64_t rows = 0;
  std::array<double, kRegions> mass = {};    ///< exact attention, mean over the group's query heads
  std::array<double, kRegions> kept = {};    ///< the part of it that the chosen keys hold
  std::array<int64_t, kRegions> best = {};   ///< the keys of greatest mass, as many as were chosen
  std::array<int64_t, kRegions> found = {};  ///< those among them that were chosen

  HeadCounts& operator+=(const HeadCounts& other);
  double kept_mass() const;   ///< of the whole, per row
  double recall() const;      ///< of all best keys
  double far_recall() const;  ///< of the far ones; NaN where there were none
};

/// [layer] -> [KV head]
using LayerCounts = std::map<int, std::vector<HeadCounts>>;

/// The chosen cells of one row: [layer] -> [KV head] -> ascending.
using ChosenCells = std::map<int, std::vector<std::vector<int32_t>>>;

/// Looks at one step after another.
class Recorder {
 public:
  Recorder();
  ~Recorder();

  void see(const Inspection& step);
  /// From the next step on; `cells` notes the chosen cells of row 0, too.
  void note_cells(bool cells) { note_cells_ = cells; }

  const LayerCounts& counts() const { return counts_; }
  const ChosenCells& cells() const { return cells_; }

 private:
  struct Memory;
  void see_head(const Inspection& step, int row, int head);

  std::unique_ptr<Memory> memory_;
  bool note_cells_ = false;
  LayerCounts counts_;
  ChosenCells cells_;
};

}  // namespace hata::eval
