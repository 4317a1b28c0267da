// The command `hata`: one file a subcommand.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "commands.h"
#include "hata/types.h"
#include "output.h"

namespace {

constexpr int kFailed = 1;  ///< exit status: the work could not be done
constexpr int kUsage = 2;   ///< exit status: the command line is wrong

int complain(int status, const char* what) {
  fmt::print(stderr, "hata: {}\n", what);
  return status;
}

bool has_command(const CLI::App& app, const std::string& name) {
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  return std::any_of(commands.begin(), commands.end(),
                     [&](const CLI::App* command) { return command->get_name() == name; });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Hash-aware top-k attention: decoding over a long context that reads 1/25 of the KV cache.",
      "hata");
  app.require_subcommand(1);
  app.set_version_flag("--version", HATA_VERSION);
  app.footer("Example:\n  hata demo\n  hata exec -- llama-server -m model.gguf -c 65536");
  int status = 0;
  hata::cli::add_demo(app);
  hata::cli::add_run(app);
  hata::cli::add_exec(app, status);
  hata::cli::add_info(app);
  hata::cli::add_bench(app);
  hata::cli::add_eval(app);
  hata::cli::add_train(app);
  hata::cli::add_import(app);
  hata::cli::add_make_model(app);
  if (argc > 1 && argv[1][0] != '-' && !has_command(app, argv[1])) {
    return complain(kUsage, fmt::format("unknown command '{}'; see hata --help", argv[1]).c_str());
  }
  try {
    app.parse(argc, argv);
    hata::cli::flush_output();
    return status;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return complain(kUsage, error.what());
  } catch (const std::exception& error) {
    std::fflush(stdout);
    return complain(kFailed, error.what());
  }
}
