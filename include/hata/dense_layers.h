// Which layers attend to every key.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hata {

struct Weights;

struct DenseLayers {
  int first = 2;               ///< the first ones; two is the paper's choice (section 4.1)
  std::vector<int> also = {};  ///< and these
  bool automatic = false;      ///< those that trained weights name; where none do, as above

  /// weights: those of the layer's model; nullptr where there are none.
  bool has(int layer, const Weights* weights) const;
  /// Throws Error where a layer is not one of n_layers of `model`.
  void check(int n_layers, const std::string& model) const;

  bool is_number() const { return !automatic && also.empty(); }
  std::string text() const;  ///< "2", "0+5+7", "auto"
  /// "2": the first two; "0+5+7": the first none, and layers 5 and 7; "auto". Throws Error.
  static DenseLayers parse(std::string_view text);

  bool operator==(const DenseLayers&) const = default;
};

}  // namespace hata
