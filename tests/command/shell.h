// Runs the built program as a user would.
#pragma once

#include <string>

namespace hata::cli {

struct Result {
  int status = -1;  ///< exit status; 128 + n where signal n ended it
  std::string out;
  std::string err;
};

/// Through sh, with standard output and error kept apart.
Result shell(const std::string& command);
/// The built `hata`, as a word of a shell.
std::string program();
/// The same, run with these arguments.
Result hata(const std::string& arguments);

}  // namespace hata::cli
