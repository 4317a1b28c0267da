// What can be told of a program before it starts.
#pragma once

#include <string>
#include <vector>

namespace hata::cli {

struct Program {
  enum class Kind { script, dynamic, fixed, foreign, unknown };
  std::string path;
  Kind kind = Kind::unknown;  ///< fixed: statically linked; foreign: for another machine
  std::string interpreter;    ///< of a dynamic program: its loader
  bool privileged = false;    ///< setuid, setgid or with file capabilities: LD_PRELOAD is ignored
  bool has_own_ggml = false;  ///< ggml's functions are linked into it
};

/// The file that a shell would run for `name`. Empty where there is none.
std::string find_program(const std::string& name);

/// Throws Error where the file cannot be read, or is damaged.
Program inspect_program(const std::string& path);

}  // namespace hata::cli
