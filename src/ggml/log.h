// Lines on stderr. They start with "hata: " and are written in one piece.
#pragma once

#include <string>

namespace hata::host {

void say(const std::string& line);

/// say(), unless the option quiet is set.
void note(const std::string& line);
void set_quiet(bool quiet);

}  // namespace hata::host
