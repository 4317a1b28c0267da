// Text as one word of an options text (include/hata/ggml.h).
#pragma once

#include <string>
#include <string_view>

namespace hata {

inline std::string as_word(std::string_view text) {
  std::string word;
  for (const char c : text) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\') word += '\\';
    word += c;
  }
  return word;
}

}  // namespace hata
