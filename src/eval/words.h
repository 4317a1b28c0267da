// The words that tasks are made of (models/tiny/words.json, most frequent first).
#pragma once

#include <span>
#include <string_view>

namespace hata::eval {

/// Lower-case words of 4 to 9 letters. The most frequent ones are left out: they are everywhere.
std::span<const std::string_view> word_list();

}  // namespace hata::eval
