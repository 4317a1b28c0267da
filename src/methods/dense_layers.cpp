#include "hata/dense_layers.h"

#include <algorithm>
#include <charconv>

#include "hata/types.h"
#include "hata/weights.h"

namespace hata {
namespace {

constexpr int kMaxLayers = 100000;

}  // namespace

bool DenseLayers::has(int layer, const Weights* weights) const {
  if (automatic && weights != nullptr && weights->dense_layers.has_value()) {
    const auto& named = *weights->dense_layers;
    return std::find(named.begin(), named.end(), layer) != named.end();
  }
  return layer < first || std::find(also.begin(), also.end(), layer) != also.end();
}

void DenseLayers::check(int n_layers, const std::string& model) const {
  const auto fail = [&](const std::string& range) {
    throw Error("--dense-layers " + text() + ": " + model + " has " + std::to_string(n_layers) +
                " layers; give " + range);
  };
  if (automatic) return;
  if (first > n_layers) fail("0 to " + std::to_string(n_layers));
  for (const int layer : also) {
    if (layer >= n_layers) fail("layers 0 to " + std::to_string(n_layers - 1) + " after the +");
  }
}

std::string DenseLayers::text() const {
  if (automatic) return "auto";
  std::string text = std::to_string(first);
  for (const int layer : also) text += "+" + std::to_string(layer);
  return text;
}

DenseLayers DenseLayers::parse(std::string_view text) {
  DenseLayers layers;
  if (text == "auto") {
    layers.automatic = true;
    return layers;
  }
  const char* at = text.data();
  const char* const end = at + text.size();
  for (bool is_first = true;; is_first = false) {
    int number = -1;
    const auto read = std::from_chars(at, end, number);
    if (read.ec != std::errc() || number < 0 || number > kMaxLayers ||
        (read.ptr != end && *read.ptr != '+')) {
      throw Error("dense layers '" + std::string(text) +
                  "': give how many of the first layers are dense (2), with + further ones "
                  "(0+5+7: layers 5 and 7 alone), or auto (what the trained weights say)");
    }
    if (is_first) {
      layers.first = number;
    } else {
      layers.also.push_back(number);
    }
    if (read.ptr == end) return layers;
    at = read.ptr + 1;
  }
}

}  // namespace hata
