// The pickles (protocol 2) in which torch.save describes tensors, read as data: nothing of a pickle
// is run, and names that tensors, dicts, lists and plain values do without are refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hata::weights {

/// A value; others are named by their index in Pickle::values, so that sharing and cycles, which
/// pickles can have, cost no memory and no recursion.
struct PickleValue {
  enum class Kind {
    none,
    boolean,
    integer,
    number,
    text,
    tuple,
    list,
    dict,
    global,
    call,
    external
  };

  Kind kind = Kind::none;
  int64_t integer = 0;  ///< integer, boolean
  double number = 0;
  /// Of a text. Of a global and of a call: "module.name".
  std::string text = {};
  /// Of tuples and lists; of a dict: key, value, key, value ...; of a call: the arguments; of an
  /// external (what the pickle refers to outside itself): the tuple that names it.
  std::vector<uint32_t> items = {};
};

struct Pickle {
  std::vector<PickleValue> values;
  uint32_t root = 0;
};

/// `name` begins every error. Throws Error naming the byte, what is there and the way out.
Pickle parse_pickle(std::string_view bytes, const std::string& name);

}  // namespace hata::weights
