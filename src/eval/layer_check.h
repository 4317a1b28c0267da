// Which layers may be sparse: what a model predicts on documents that training has not seen, with
// trained codes against dense attention.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/session.h"
#include "hata/selector.h"

namespace hata::eval {

struct LayerCheckOptions {
  std::string weights;           ///< the file
  Budget budget;                 ///< of sparse layers
  std::vector<int> layers = {};  ///< those that can be sparse
  int n_compared = 128;   ///< last tokens of a document (at most an eighth), which are decoded
  double most_kl = 0.01;  ///< nats a token that sparse attention may cost
  int threads = 1;
};

struct LayerCheck {
  std::vector<int> dense_layers = {};  ///< ascending
  std::vector<double> kl_alone = {};   ///< [options.layers]: with this layer alone sparse
  double kl_all = 0;                   ///< with all of them sparse
  double kl = 0;                       ///< with dense_layers dense and the others sparse
  int64_t n_compared = 0;              ///< tokens, over all documents
};

/// KL(dense || sparse) of the next token, mean over the compared tokens of all documents. Layers
/// become dense, the one that costs most by itself first, until the others together cost no more
/// than most_kl. `progress` hears what is measured.
LayerCheck check_layers(const Reader& reader, const std::vector<std::vector<Token>>& documents,
                        const LayerCheckOptions& options,
                        const std::function<void(const std::string& what)>& progress);

}  // namespace hata::eval
