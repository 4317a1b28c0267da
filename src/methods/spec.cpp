#include "methods/spec.h"

#include <algorithm>

#include "core/numbers.h"

namespace hata {
namespace {

// Calls fn(key, value, has_equals) for the parts behind the name.
template <class Fn>
void for_parts(std::string_view text, Fn&& fn) {
  for (size_t colon = text.find(':'); colon != std::string_view::npos;) {
    const size_t next = text.find(':', colon + 1);
    const std::string_view part = text.substr(colon + 1, next - colon - 1);
    const size_t equals = part.find('=');
    const bool has_equals = equals != std::string_view::npos;
    fn(part.substr(0, equals), has_equals ? part.substr(equals + 1) : "", has_equals);
    colon = next;
  }
}

}  // namespace

Spec::Spec(std::string_view text, const MethodInfo& method) : text_(text), params_(method.params) {
  for_parts(text_, [&](std::string_view key, std::string_view, bool has_equals) {
    const bool known = std::any_of(params_.begin(), params_.end(),
                                   [&](const MethodParam& param) { return param.key == key; });
    if (known && has_equals) return;
    std::string keys;
    for (const MethodParam& param : params_) {
      keys += (keys.empty() ? "" : ", ") + std::string(param.key);
    }
    throw Error("method '" + text_ + "': " +
                (known ? "'" + std::string(key) + "' needs a value, as in " + std::string(key) + "="
                       : "'" + std::string(key) + "' is no parameter of it; " +
                             (keys.empty() ? "it has none" : "there are " + keys)));
  });
}

std::string_view Spec::value(std::string_view key) const {
  std::string_view result;
  for (const MethodParam& param : params_) {
    if (param.key == key) result = param.value;
  }
  for_parts(text_, [&](std::string_view k, std::string_view v, bool) {
    if (k == key) result = v;
  });
  return result;
}

void Spec::refuse(std::string_view key, std::string_view want) const {
  throw Error("method '" + text_ + "': " + std::string(key) + "=" + std::string(value(key)) +
              ": want " + std::string(want));
}

int64_t Spec::integer(std::string_view key, int64_t min, int64_t max) const {
  int64_t number = 0;
  if (!read_number(value(key), number) || number < min || number > max) {
    refuse(key, "a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return number;
}

bool Spec::on(std::string_view key) const { return one_of(key, {"on", "off"}) == "on"; }

std::string_view Spec::one_of(std::string_view key,
                              std::pair<const char*, const char*> words) const {
  const std::string_view text = value(key);
  if (text != words.first && text != words.second) {
    refuse(key, std::string(words.first) + " or " + words.second);
  }
  return text;
}

Window Spec::window(const Window& fallback) const {
  Window window = fallback;
  if (!value("sink").empty()) window.sink = integer("sink", 0, Recent::kMost);
  if (value("recent").empty()) return window;
  try {
    window.recent = Recent::parse(value("recent"));
  } catch (const Error& why) {
    throw Error("method '" + text_ + "': " + why.what());
  }
  return window;
}

}  // namespace hata
