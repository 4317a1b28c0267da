#include "shell.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "core/files.h"

namespace hata::cli {

Result shell(const std::string& command) {
  char errors[] = "/tmp/hata_test_XXXXXX";
  close(mkstemp(errors));
  Result result;
  FILE* pipe = popen(("( " + command + " ) 2>" + errors).c_str(), "r");
  if (pipe == nullptr) return result;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) result.out.append(buffer, n);
  const int status = pclose(pipe);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.err = read_file(errors);
  std::remove(errors);
  return result;
}

std::string program() { return "'" HATA "'"; }

Result hata(const std::string& arguments) { return shell(program() + " " + arguments); }

}  // namespace hata::cli
