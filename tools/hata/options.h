// The options that several subcommands share: one place for their names, meaning and checks.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "hata/dense_layers.h"
#include "hata/selector.h"

namespace hata::cli {

/// Which keys the rows of a sparse layer may attend to.
struct MethodOptions {
  std::string method = "hata";
  HataOptions hata = {};
  std::string weights = "auto";  ///< those beside the model; or "off", or a file
  Budget budget = {};
  DenseLayers dense_layers = {};
  int64_t min_ctx = 1024;
  bool prefill = true;
  bool huge_pages = true;
};

/// One option each, named as the function is.
void add_budget(CLI::App& app, Budget& budget);
/// The same under another name and help.
void add_budget(CLI::App& app, const std::string& name, const std::string& help, Budget& budget);
void add_dense_layers(CLI::App& app, DenseLayers& dense_layers);
void add_min_ctx(CLI::App& app, int64_t& min_ctx);
void add_prefill(CLI::App& app, bool& prefill);
void add_huge_pages(CLI::App& app, bool& huge_pages);
void add_weights(CLI::App& app, std::string& weights);
void add_rbit(CLI::App& app, int& rbit);
void add_rerank(CLI::App& app, int& rerank);
void add_cache_type(CLI::App& app, std::string& type);
/// --sink, --recent, --lengths, --score, --rerank, --seed, --rbit
void add_hata_options(CLI::App& app, HataOptions& options);
/// --method, --budget, --dense-layers, --min-ctx, --prefill, --huge-pages, --weights and those of
/// add_hata_options.
void add_method_options(CLI::App& app, MethodOptions& options);
/// -o, --output FORMAT (md, csv, json, jsonl) and --json.
void add_format(CLI::App& app, std::string& format);
/// -t, --threads
void add_threads(CLI::App& app, int& threads);

/// Options that take a comma list; what the vector holds is the default.
void add_budgets(CLI::App& app, std::vector<Budget>& budgets);
void add_dense_layers(CLI::App& app, std::vector<DenseLayers>& dense_layers);
void add_methods(CLI::App& app, std::vector<std::string>& methods);

/// The text by which the llama.cpp host is told of these options.
std::string host_options(const MethodOptions& options);

/// Throws Error where --weights (or another option) names a file that was made for another model.
void check_weights(const std::string& weights, const std::string& model,
                   const char* option = "--weights");

/// Throws Error where the folder that a file is to be written to is not there.
void check_output_folder(const std::string& path);

/// The cores that -t takes by default: all that this process may run on.
int default_threads();

}  // namespace hata::cli
