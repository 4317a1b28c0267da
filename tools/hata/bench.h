// hata bench attn, prefill and model.
#pragma once

#include <CLI/CLI.hpp>

namespace hata::cli {

void add_bench_attn(CLI::App& bench);
void add_bench_prefill(CLI::App& bench);
void add_bench_model(CLI::App& bench);

}  // namespace hata::cli
