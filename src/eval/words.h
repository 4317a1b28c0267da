// The words that tasks are made of (models/tiny/words.json, most frequent first).
#pragma once

#include <span>
#include <string_view>

namespace hata::eval {

/// Without the most frequent ones, which are everywhere.
std::span<const std::string_view> word_list();

}  // namespace hata::eval
