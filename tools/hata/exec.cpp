// hata exec: runs any program that uses shared ggml with hash-aware attention.
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "commands.h"
#include "hata/types.h"
#include "model.h"
#include "options.h"
#include "output.h"
#include "program.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

// As env(1) and nohup(1) do.
constexpr int kRefused = 125, kCannotRun = 126, kNotFound = 127;

struct Options {
  MethodOptions method;
  int max_rows = 8;
  bool verify = false;
  bool stats = false;
  bool quiet = false;
  std::vector<std::string> command;
};

struct Refusal {
  int status;
  std::string why;
};

std::string host_library() {
  const fs::path here = executable_folder();
  for (const fs::path& folder : {here, here / "../lib", here / "../src/ggml"}) {
    const fs::path library = folder / "libhata-ggml.so";
    if (fs::exists(library)) return fs::canonical(library);
  }
  throw Refusal{kRefused, "libhata-ggml.so is neither beside this program nor in ../lib"};
}

// LD_PRELOAD has no way to quote these.
void check_library_path(const std::string& library) {
  if (library.find_first_of(" :") == std::string::npos) return;
  throw Refusal{kRefused, fmt::format("{}: LD_PRELOAD cannot name a path with a space or a colon; "
                                      "install hata in another folder",
                                      library)};
}

std::string preload_with(const std::string& library) {
  const char* before = std::getenv("LD_PRELOAD");
  return before == nullptr || *before == '\0' ? library : library + ":" + before;
}

// What a command printed, and how it ended.
struct Outcome {
  int status = 0;
  std::string text;
};

Outcome run_child(const std::vector<std::string>& command,
                  const std::vector<std::pair<std::string, std::string>>& environment) {
  int ends[2];
  if (pipe(ends) != 0) throw Error(std::string("pipe: ") + std::strerror(errno));
  const pid_t child = fork();
  if (child < 0) throw Error(std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> arguments;
    for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    execv(arguments[0], arguments.data());
    _exit(kCannotRun);
  }
  close(ends[1]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    outcome.text.append(buffer, static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : kCannotRun;
  return outcome;
}

// Whether the loader would give this program a shared ggml at its start (it may also load one
// later: scripts and plug-ins do).
bool links_ggml(const Program& program) {
  const Outcome libraries =
      run_child({program.interpreter, "--list", program.path}, {{"LD_PRELOAD", ""}});
  return libraries.text.find("libggml-base") != std::string::npos;
}

// The host's self-test against the ggml that this very program loads.
void self_test(const Program& program, const std::string& library) {
  const Outcome test = run_child(
      {program.path}, {{"LD_PRELOAD", preload_with(library)}, {"HATA_OPTIONS", "probe=on"}});
  if (test.status == 0) return;
  std::string why = test.text;
  while (!why.empty() && why.back() == '\n') why.pop_back();
  throw Refusal{kRefused, fmt::format("{}: the self-test with its ggml failed: {}", program.path,
                                      why.empty() ? "no reason was given" : why)};
}

void check_program(const Program& program, const std::string& library) {
  const auto refuse = [&](int status, const char* why) {
    throw Refusal{status, fmt::format("{}: {}", program.path, why)};
  };
  if (program.privileged) {
    refuse(kRefused,
           "runs with privileges of its file (setuid or the like), so the loader "
           "ignores LD_PRELOAD; run a copy without them");
  }
  switch (program.kind) {
    case Program::Kind::script:
      return;
    case Program::Kind::unknown:
      return refuse(kCannotRun, "neither a program (ELF) nor a script (#!)");
    case Program::Kind::foreign:
      return refuse(kCannotRun, "is built for another kind of machine");
    case Program::Kind::fixed:
      return refuse(kRefused,
                    "is statically linked, so nothing can be loaded into it; build it "
                    "with shared libraries (BUILD_SHARED_LIBS=ON)");
    case Program::Kind::dynamic:
      break;
  }
  if (program.has_own_ggml) {
    refuse(kRefused, "has ggml linked into it; build it with shared ggml (BUILD_SHARED_LIBS=ON)");
  }
  if (links_ggml(program)) self_test(program, library);
}

std::string environment_options(const Options& options) {
  std::string text = host_options(options.method);
  if (options.method.method != "ggml") text += fmt::format(" max-rows={}", options.max_rows);
  if (options.verify) text += " verify=on";
  if (options.stats) text += " stats=on";
  if (options.quiet) text += " quiet=on";
  return text;
}

void exec(const Options& options) {
  const std::string& name = options.command.front();
  const std::string path = find_program(name);
  if (path.empty()) throw Refusal{kNotFound, name + ": not found"};
  if (fs::is_directory(path)) throw Refusal{kCannotRun, path + ": is a directory"};
  if (access(path.c_str(), X_OK) != 0) {
    throw Refusal{kCannotRun, fmt::format("{}: not executable: {}", path, std::strerror(errno))};
  }
  const std::string library = host_library();
  check_library_path(library);
  check_program(inspect_program(path), library);

  setenv("LD_PRELOAD", preload_with(library).c_str(), 1);
  setenv("HATA_OPTIONS", environment_options(options).c_str(), 1);
  std::vector<char*> arguments;
  for (const auto& word : options.command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(path.c_str(), arguments.data());
  throw Refusal{kCannotRun, fmt::format("{}: cannot start: {}", path, std::strerror(errno))};
}

}  // namespace

void add_exec(CLI::App& app, int& status) {
  auto options = std::make_shared<Options>();
  CLI::App* exec_app =
      app.add_subcommand("exec", "run any program on shared ggml with hash-aware attention");
  exec_app->footer(
      "The program starts with libhata-ggml.so loaded first (LD_PRELOAD) and these options in\n"
      "HATA_OPTIONS. Exit status: the program's; 125 refused, 126 cannot run, 127 not found.\n"
      "Example:\n  hata exec --budget 512 --stats -- llama-server -m model.gguf -c 65536");
  add_method_options(*exec_app, options->method);
  exec_app
      ->add_option("--max-rows", options->max_rows,
                   "batches with more rows of one sequence are a prompt, and stay dense")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  exec_app->add_flag("--verify", options->verify, "check every code at every sparse step (slow)");
  exec_app->add_flag("--stats", options->stats, "print statistics at exit and on SIGUSR1");
  exec_app->add_flag("--quiet", options->quiet, "no notes on what stays dense, and why");
  exec_app->add_option("command", options->command, "PROGRAM and its arguments, behind --")
      ->required();
  exec_app->positionals_at_end();
  exec_app->callback([options, &status] {
    try {
      exec(*options);
    } catch (const Refusal& refusal) {
      fmt::print(stderr, "hata: {}\n", refusal.why);
      status = refusal.status;
    }
  });
}

}  // namespace hata::cli
