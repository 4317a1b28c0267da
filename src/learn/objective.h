// What training minimises: a loss of one head's parameters on some rows.
#pragma once

#include <span>

#include "learn/row.h"

namespace hata::learn {

class Objective {
 public:
  virtual ~Objective() = default;

  /// The loss on the rows of one step at `progress` (0: first step, 1: last). Where `gradient` is
  /// given (of the parameters' shape), it is set to the loss's gradient.
  virtual double evaluate(std::span<const Row> rows, const Parameters& parameters, double progress,
                          Parameters* gradient) = 0;
};

}  // namespace hata::learn
