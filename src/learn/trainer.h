// Training of all heads of a model: heads side by side, each finished one kept on disk.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "hata/weights.h"
#include "learn/quality.h"
#include "learn/row_store.h"
#include "learn/train_head.h"

namespace hata::learn {

struct TrainedHead {
  int layer = 0;
  int head = 0;
  double mean_length = 0;  ///< of the keys
  double first_loss = 0, last_loss = 0;
  std::vector<float> w = {};         ///< [head_dim][rbit], rounded to f16
  std::vector<float> w_query = {};   ///< the same of the queries; empty: w serves both
  std::vector<float> key_mean = {};  ///< [head_dim]; empty: keys are encoded as they are
  // On held-out rows, by budget; `random` is the rotation that training started from, `compared`
  // is empty where there is nothing to compare with.
  Quality learned = {}, random = {}, compared = {}, exact = {};
  Quality needs = {};  ///< of the learned codes with `recent`, by TrainerOptions::needs
  std::vector<double> output_errors = {};  ///< of the learned codes, by TrainerOptions::windows
  Recent recent = {};                      ///< of those windows, the one that fits the layer best
};

struct TrainerOptions {
  TrainOptions train;
  int n_held_out = 4;  ///< the store's last rows
  int threads = 1;
  std::shared_ptr<const Weights> compared = nullptr;  ///< other weights to measure, too
  /// Not nullptr: nothing is trained; these codes are measured, of the layers that they have.
  std::shared_ptr<const Weights> given = nullptr;
  std::vector<Budget> budgets;
  std::vector<Budget> needs;  ///< in numbers of keys: how the kept attention grows with the budget
  /// That a layer may have: the one which brings its output nearest to dense attention's at
  /// `window_budget`, by 0.01 or more of its square; else the first. Empty: it is by rule.
  std::vector<Recent> windows = {};
  Budget window_budget = {};
};

/// Called when a head is done, from one thread at a time.
using HeadDone = std::function<void(const TrainedHead& head, int64_t done, int64_t total)>;

/// Heads that `folder` holds from an earlier run are taken from there, and measured again. The
/// result depends neither on the threads nor on interruptions. Throws Error on data that cannot be
/// trained on.
std::vector<TrainedHead> train_all(const TrainerOptions& options, const RowStore& rows,
                                   const std::filesystem::path& folder, const HeadDone& done);

}  // namespace hata::learn
