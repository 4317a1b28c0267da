// The selectors, one file each. docs/methods.md describes them all.
#pragma once

#include <memory>

#include "hata/selector.h"
#include "methods/spec.h"

namespace hata {

/// Hash codes (paper, sections 3.1 and 3.2), with the rule that the options name.
std::shared_ptr<const Selector> make_hata(const Spec& spec, const HataOptions& options);

/// Top-k by q.k summed over the query heads of a group: the ceiling of all that rank by logits.
std::shared_ptr<const Selector> make_exact_logit(const Spec& spec);
/// Top-k by the probabilities summed over the query heads of a group: the ceiling.
std::shared_ptr<const Selector> make_exact_prob(const Spec& spec);

/// StreamingLLM (arXiv 2309.17453): the first tokens and the most recent ones.
std::shared_ptr<const Selector> make_streaming(const Spec& spec);

/// Quest (arXiv 2406.10774): pages, ranked by a bound of their keys' logits.
std::shared_ptr<const Selector> make_quest(const Spec& spec);

/// Loki (arXiv 2406.02542): the first principal components of the keys.
std::shared_ptr<const Selector> make_loki(const Spec& spec);

/// SparQ (arXiv 2312.04985): the channels in which the queries are largest.
std::shared_ptr<const Selector> make_sparq(const Spec& spec);

/// MagicPIG (arXiv 2410.16179): sampling by locality-sensitive hashes. Throws Error where the
/// hashes are too many.
std::shared_ptr<const Selector> make_magicpig(const Spec& spec, uint64_t seed);

/// H2O (arXiv 2306.14048) and SnapKV (arXiv 2404.14469): the keys that queries looked at most.
std::shared_ptr<const Selector> make_h2o(const Spec& spec);
std::shared_ptr<const Selector> make_snapkv(const Spec& spec);

}  // namespace hata
