// The selectors, one file each.
#pragma once

#include <memory>
#include <string>

#include "hata/selector.h"

namespace hata {

/// Hash codes (paper, sections 3.1 and 3.2), with forced keys and lengths as the options say.
std::shared_ptr<const Selector> make_hata(std::string name, const HataOptions& options);

/// Top-k by q.k summed over the query heads of a group: the ceiling of all that rank by logits.
std::shared_ptr<const Selector> make_exact();

/// StreamingLLM (arXiv 2309.17453): the first 4 tokens and the most recent ones.
std::shared_ptr<const Selector> make_streaming();

}  // namespace hata
