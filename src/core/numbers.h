// Numbers out of texts.
#pragma once

#include <charconv>
#include <string_view>

namespace hata {

/// False where the whole text is not one number of this type.
template <class T>
bool read_number(std::string_view text, T& number) {
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  return error == std::errc{} && at == end;
}

}  // namespace hata
