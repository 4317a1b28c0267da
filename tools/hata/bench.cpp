#include "bench.h"

#include "commands.h"

namespace hata::cli {

void add_bench(CLI::App& app) {
  CLI::App* bench =
      app.add_subcommand("bench", "measure one attention step, prefill, or a whole model");
  bench->require_subcommand(1);
  bench->footer("Example:\n  hata bench attn -d 32768\n  hata bench model -m model.gguf -d 32768");
  add_bench_attn(*bench);
  add_bench_prefill(*bench);
  add_bench_model(*bench);
}

}  // namespace hata::cli
