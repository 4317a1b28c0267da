// hata run: generates text with any model that the host supports.
#include <unistd.h>

#include <iostream>
#include <iterator>

#include "commands.h"
#include "core/clock.h"
#include "core/files.h"
#include "ggml_host.h"
#include "model.h"
#include "options.h"
#include "output.h"

namespace hata::cli {
namespace {

struct Options {
  std::string model;
  std::string file;
  std::string prompt;
  int64_t n_ctx = 0;
  int64_t n_predict = 128;
  int threads = 1;
  std::string cache_type = "f16";
  MethodOptions method;
  bool json = false;
};

// "-": standard input.
std::string read_text(const std::string& path) {
  if (path != "-") return read_file(path);
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

void run(const Options& options) {
  const std::string text = (options.file.empty() ? "" : read_text(options.file)) + options.prompt;
  if (text.empty()) throw Error("the prompt is empty; give -p TEXT or -f FILE (- for stdin)");
  const eval::Model model = open_model(options.model);
  options.method.dense_layers.check(model.n_layers(), model.path());
  check_weights(options.method.weights, model.path());
  configure_host(host_options(options.method));

  const auto tokens = eval::prompt_tokens(model.vocab(), text);
  const auto n_prompt = static_cast<int64_t>(tokens.size());
  const int64_t n_ctx = options.n_ctx > 0 ? options.n_ctx : n_prompt + options.n_predict;
  if (n_prompt >= n_ctx) {
    throw Error(fmt::format("the prompt has {} tokens, the context {}; raise -c", n_prompt, n_ctx));
  }
  eval::Session session(model, {.n_ctx = n_ctx, .threads = options.threads});
  Progress progress;
  auto start = Clock::now();
  session.prefill(tokens, [&](int64_t done) {
    progress.show("reading the prompt: {}/{} tokens", done, n_prompt);
  });
  const double prefill_seconds = seconds_since(start);
  progress.clear();

  reset_host_stats();
  std::string generated;
  int64_t n_generated = 0;
  start = Clock::now();
  eval::Token token = session.next();
  const int64_t room = std::min(options.n_predict, n_ctx - n_prompt);
  for (; n_generated < room && !llama_vocab_is_eog(model.vocab(), token); ++n_generated) {
    const std::string piece = eval::piece(model.vocab(), token);
    if (options.json) {
      generated += piece;
    } else {
      write(piece);
      flush_output();
    }
    if (n_generated + 1 < room) token = session.decode(token);
  }
  const auto rate = [](int64_t n, double s) { return s > 0 ? static_cast<double>(n) / s : 0.0; };
  const double decode_rate = rate(std::max<int64_t>(n_generated - 1, 0), seconds_since(start));
  const double prefill_rate = rate(n_prompt, prefill_seconds);
  const HostStats stats = host_stats();
  if (options.json) {
    Json json;
    json["text"] = generated;
    json["n_prompt"] = n_prompt;
    json["n_generated"] = n_generated;
    json["prompt_tokens_per_second"] = prefill_rate;
    json["tokens_per_second"] = decode_rate;
    json["method"] = options.method.method;
    json["stats"] = stats.json;
    return print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  }
  write("\n");
  flush_output();
  fmt::print(stderr,
             "prompt {} tokens, {:.0f} tokens/s; generated {} tokens, {:.1f} tokens/s; {}\n",
             n_prompt, prefill_rate, n_generated, decode_rate, stats.line());
}

}  // namespace

void add_run(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* run_app = app.add_subcommand("run", "generate text from a prompt (greedy)");
  run_app->footer(
      "Example:\n  hata run -m model.gguf -f report.txt -p \"Summary:\" -n 200 --budget 1.56%");
  add_model(*run_app, options->model, false);
  run_app->add_option("-f,--file", options->file, "file that the prompt starts with (- for stdin)");
  run_app->add_option("-p,--prompt", options->prompt, "prompt, behind the file's text");
  run_app->add_option("-c,--ctx", options->n_ctx, "tokens of context (0: as many as needed)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  run_app->add_option("-n,--predict", options->n_predict, "tokens to generate at most")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_cache_type(*run_app, options->cache_type);
  run_app->add_flag("--json", options->json, "print text and statistics as one JSON object");
  add_threads(*run_app, options->threads);
  add_method_options(*run_app, options->method);
  run_app->callback([options] { run(*options); });
}

}  // namespace hata::cli
