// Training of one KV head's projection.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "hata/types.h"
#include "learn/kl.h"
#include "learn/paper.h"

namespace hata::learn {

struct TrainOptions {
  std::string objective = "kl-group";  ///< kl-group, kl-far, kl, paper
  int rbit = 128;
  int steps = 0;        ///< 0: the objective's default (600; paper 300)
  int rows_a_step = 0;  ///< 0: the objective's default (1; paper 20)
  double rate = 0;      ///< learning rate; 0: the objective's default (0.003; paper 0.1)
  uint64_t seed = 1;
  bool separate_queries = false;  ///< the queries learn a projection of their own (kl)
  bool centre = false;            ///< keys are encoded relative to their mean (kl)
  KlOptions kl = {};
  PaperOptions paper = {};
};

/// The options with the objective's defaults filled in. Throws Error on an unknown objective and on
/// values that cannot work.
TrainOptions resolved(TrainOptions options);

/// Gives row `i` of the training rows.
using LoadRow = std::function<Row(int64_t i)>;

struct Training {
  std::vector<float> losses;  ///< [step]
  Parameters parameters;
};

/// One seed gives one result. mean_length: of the keys of this head.
Training train_head(const TrainOptions& options, int64_t n_rows, const LoadRow& load, int layer,
                    int head, double mean_length);

/// Seconds that one step takes, on random numbers in rows of this shape.
double time_step(const TrainOptions& options, const HeadShape& shape, int64_t n_keys,
                 int n_queries);

}  // namespace hata::learn
