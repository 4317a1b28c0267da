#include "eval/setting.h"

#include <algorithm>

#include "core/words.h"

namespace hata::eval {

std::string Setting::id() const {
  if (reads_every_key()) return method;
  return method + " " + budget.text() + " +" + dense_layers.text();
}

std::string Setting::host_options() const {
  if (method == "ggml") return "method=ggml";
  return "method=" + as_word(method) + " budget=" + budget.text() +
         " dense-layers=" + dense_layers.text() + " min-ctx=" + std::to_string(min_ctx) +
         " weights=" + as_word(weights);
}

Json dense_layers_json(const DenseLayers& layers) {
  if (layers.is_number()) return layers.first;
  return layers.text();
}

namespace {

// HATA's own options leave the window to what all share: an empty default.
bool can_be_windowed(const MethodInfo& method) {
  return std::any_of(method.params.begin(), method.params.end(), [](const MethodParam& param) {
    return param.key == "recent" && !param.value.empty();
  });
}

}  // namespace

std::vector<std::string> expand_methods(const std::vector<std::string>& names) {
  std::vector<std::string> expanded;
  for (const std::string& name : names) {
    if (name == "all") {
      for (const MethodInfo& method : methods()) expanded.emplace_back(method.name);
    } else if (name == "windowed") {
      for (const MethodInfo& method : methods()) {
        if (can_be_windowed(method)) {
          expanded.push_back(std::string(method.name) + ":sink=1:recent=-1");
        }
      }
    } else {
      if (name != "ggml") (void)make_selector(name, HataOptions{});
      expanded.push_back(name);
    }
  }
  return expanded;
}

std::vector<Setting> make_settings(const std::vector<std::string>& methods,
                                   const std::vector<Budget>& budgets,
                                   const std::vector<DenseLayers>& dense_layers,
                                   const Setting& base) {
  std::vector<Setting> settings = {base};
  settings.front().method = "dense";
  const auto add = [&](const Setting& setting) {
    const bool known = std::any_of(settings.begin(), settings.end(), [&](const Setting& other) {
      return other.id() == setting.id();
    });
    if (!known) settings.push_back(setting);
  };
  for (const std::string& method : methods) {
    Setting setting = base;
    setting.method = method;
    if (setting.reads_every_key()) {
      add(setting);
      continue;
    }
    for (const DenseLayers& layers : dense_layers) {
      for (const Budget& budget : budgets) {
        setting.dense_layers = layers;
        setting.budget = budget;
        add(setting);
      }
    }
  }
  return settings;
}

}  // namespace hata::eval
