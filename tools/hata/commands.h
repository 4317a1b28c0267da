// Every subcommand adds itself to the command line; CLI11 runs it once its options are read.
#pragma once

#include <CLI/CLI.hpp>

namespace hata::cli {

void add_demo(CLI::App& app);
void add_run(CLI::App& app);
/// `status`: what the process exits with where exec refuses.
void add_exec(CLI::App& app, int& status);
void add_info(CLI::App& app);
void add_bench(CLI::App& app);
void add_eval(CLI::App& app);
void add_train(CLI::App& app);
void add_import(CLI::App& app);
void add_make_model(CLI::App& app);

}  // namespace hata::cli
