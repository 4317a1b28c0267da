// llama.cpp rotates queries and keys before a quantised cache gets the keys (blocks of a head's
// dimensions, by an orthogonal matrix): q.k stays, and what is rounded is spread evenly. Weights
// were trained on keys as they were before. They are rotated alike, so that the codes stay, too.
#pragma once

#include <vector>

#include "ggml/node.h"
#include "hata/weights.h"

namespace hata::host {

struct Rotation {
  int size = 0;  ///< elements of a block; 0: there is none
  std::vector<float>
      matrix;  ///< [size][size]: element i of a rotated block is row i times the block
};

/// The rotation that the queries of an attention node went through. False: it is not understood, or
/// cannot be known. The matrix is an input of the graph, which has it when it is computed.
bool find_rotation(const Real& real, const Ops& ops, const Attention& attention, Rotation& out);

/// Weights whose codes of rotated vectors are those of `weights` of the vectors before.
LayerWeights rotated(const LayerWeights& weights, const Rotation& rotation);

}  // namespace hata::host
