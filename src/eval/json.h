// Results are JSON with its keys in the order they were written.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace hata::eval {

using Json = nlohmann::ordered_json;

/// On one line. Bytes that are no UTF-8 (a token may end within a character) become U+FFFD.
std::string dump(const Json& json);

}  // namespace hata::eval
