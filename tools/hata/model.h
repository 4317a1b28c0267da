// Model files, as the subcommands open them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "eval/session.h"

namespace hata::cli {

/// -m, --model (empty where it is not given and not `required`).
void add_model(CLI::App& app, std::string& path, bool required);

/// Checks the file's header ourselves (our errors name the field), then loads it.
/// An empty path means the bundled model. Throws Error.
eval::Model open_model(const std::string& path, eval::Device device = eval::Device::any);

/// --device: what reads documents.
void add_device(CLI::App& app, eval::Device& device);

/// The small model that comes with the project: beside the executable, in the source tree it was
/// built from, or installed. Throws Error where it is nowhere.
std::string bundled_model();

/// The folder of this executable.
std::string executable_folder();

}  // namespace hata::cli
