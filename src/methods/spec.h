// The text that names a method and its parameters: `name[:key=value...]`.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hata/selector.h"
#include "methods/window.h"

namespace hata {

class Spec {
 public:
  /// Throws Error on a key that is not among the method's.
  Spec(std::string_view text, const MethodInfo& method);

  static std::string_view name_of(std::string_view text) { return text.substr(0, text.find(':')); }

  const std::string& text() const { return text_; }

  // The values: what the text gives, else the default. Each throws Error on a bad one.
  int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  bool on(std::string_view key) const;
  std::string_view one_of(std::string_view key, std::pair<const char*, const char*> words) const;
  /// Of the keys sink and recent; where they have no value, the fallback's.
  Window window(const Window& fallback = {}) const;

  /// "" where neither text nor default has one.
  std::string_view value(std::string_view key) const;

 private:
  [[noreturn]] void refuse(std::string_view key, std::string_view want) const;

  std::string text_;
  std::span<const MethodParam> params_;
};

}  // namespace hata
