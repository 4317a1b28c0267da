// hata demo: questions about a long document, dense and with HATA side by side.
#include <algorithm>

#include "commands.h"
#include "core/clock.h"
#include "eval/evaluate.h"
#include "eval/tasks.h"
#include "ggml_host.h"
#include "model.h"
#include "options.h"
#include "output.h"

namespace hata::cli {
namespace {

const std::vector<std::string> kTasks = {"needle", "multi-key", "key-value",
                                         "trace",  "recall",    "copy"};

struct Options {
  std::string model;
  int64_t n_ctx = 8192;
  int per_task = 2;
  uint64_t document_seed = 1;
  int threads = 1;
  MethodOptions method;
  bool json = false;
};

// One way to attend, and how it did on all questions.
struct Contender {
  std::string label;
  MethodOptions method;
  std::vector<eval::Answer> answers;
  HostStats stats;

  int64_t right() const {
    return std::count_if(answers.begin(), answers.end(), [](const auto& a) { return a.right; });
  }
  int64_t steps() const {
    int64_t n = 0;
    for (const auto& answer : answers) n += answer.steps;
    return n;
  }
  double tokens_per_second() const {
    int64_t ns = 0;
    for (const auto& answer : answers) ns += answer.ns;
    return ns > 0 ? static_cast<double>(steps()) * 1e9 / static_cast<double>(ns) : 0;
  }
};

MethodOptions with_method(MethodOptions options, const std::string& method) {
  options.method = method;
  return options;
}

void ask_all(Contender& contender, eval::Session& session, const eval::Sample& document,
             Progress& progress) {
  configure_host(host_options(contender.method));
  // The first step after a change makes codes of the whole document: it is not one of the timed.
  session.decode(document.queries.front().tokens.front());
  session.truncate(static_cast<int64_t>(document.tokens.size()));
  reset_host_stats();
  for (const auto& question : document.queries) {
    progress.show("{}: question {}/{}", contender.label, contender.answers.size() + 1,
                  document.queries.size());
    contender.answers.push_back(eval::ask(session, question, true));
  }
  contender.stats = host_stats();
}

// One line of text, cut where it is long.
std::string shorten(std::string text, size_t width) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  const size_t begin = text.find_first_not_of(' ');
  text =
      begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(' ') - begin + 1);
  return text.size() <= width ? text : text.substr(0, width - 2) + "..";
}

void print_answers(const eval::Tokenizer& tokenizer, const eval::Sample& document,
                   const std::vector<Contender>& contenders) {
  constexpr size_t kQuestion = 38, kAnswer = 26;
  std::string head = fmt::format("{:<{}}  {:<{}}", "question", kQuestion, "expected", kAnswer);
  for (const auto& contender : contenders)
    head += fmt::format("  {:<{}}", contender.label, kAnswer + 6);
  print("{}\n{}\n", head, std::string(head.size(), '-'));
  for (size_t q = 0; q < document.queries.size(); ++q) {
    const eval::Query& question = document.queries[q];
    const auto cell = [&](const std::vector<eval::Token>& tokens) {
      return shorten(tokenizer.decode(tokens), kAnswer);
    };
    std::string line =
        fmt::format("{:<{}}  {:<{}}", shorten(tokenizer.decode(question.part(false)), kQuestion),
                    kQuestion, cell(question.part(true)), kAnswer);
    for (const auto& contender : contenders) {
      const eval::Answer& answer = contender.answers[q];
      line += fmt::format("  {:<5} {:<{}}", answer.right ? "right" : "WRONG", cell(answer.tokens),
                          kAnswer);
    }
    print("{}\n", line);
  }
}

void print_summary(const std::vector<Contender>& contenders, size_t n_questions) {
  print("\n{:<24} {:>8} {:>10} {:>11} {:>16}\n", "", "right", "tokens/s", "keys read",
        "bytes/token");
  // Dense attention reads every key; the host counts that where it is at work.
  const HostStats& counted = contenders.back().stats;
  for (const auto& contender : contenders) {
    const bool hands_off = contender.method.method == "ggml";
    const double share = hands_off ? 1.0 : contender.stats.share_of_keys();
    const double bytes = (hands_off ? counted.dense_bytes : contender.stats.bytes_read()) /
                         static_cast<double>(contender.steps());
    print("{:<24} {:>5}/{:<2} {:>10.1f} {:>9.1f} % {:>16}\n", contender.label, contender.right(),
          n_questions, contender.tokens_per_second(), 100 * share, human_bytes(bytes));
  }
}

Json summary_json(const eval::Tokenizer& tokenizer, const eval::Sample& document,
                  const std::vector<Contender>& contenders, double prefill_seconds) {
  Json json;
  json["n_tokens"] = document.tokens.size();
  json["prefill_seconds"] = prefill_seconds;
  for (size_t q = 0; q < document.queries.size(); ++q) {
    const eval::Query& question = document.queries[q];
    Json row;
    row["task"] = question.task;
    row["question"] = tokenizer.decode(question.part(false));
    row["expected"] = tokenizer.decode(question.part(true));
    for (const auto& contender : contenders) {
      row[contender.method.method] = {{"answer", tokenizer.decode(contender.answers[q].tokens)},
                                      {"right", contender.answers[q].right}};
    }
    json["questions"].push_back(row);
  }
  for (const auto& contender : contenders) {
    json["methods"][contender.method.method] = {
        {"right", contender.right()},
        {"questions", document.queries.size()},
        {"tokens_per_second", contender.tokens_per_second()},
        {"stats", contender.stats.json}};
  }
  return json;
}

void run(const Options& options) {
  const eval::Model model = open_model(options.model);
  options.method.dense_layers.check(model.n_layers(), model.path());
  check_weights(options.method.weights, model.path());
  const eval::LlamaTokenizer tokenizer(model.vocab());
  const eval::Sample document = eval::make_mixed_document(tokenizer, kTasks, options.n_ctx,
                                                          options.per_task, options.document_seed);
  size_t longest = 0;
  for (const auto& question : document.queries) {
    longest = std::max(longest, question.tokens.size());
  }

  configure_host("method=dense");
  eval::Session session(
      model, {.n_ctx = options.n_ctx + static_cast<int64_t>(longest), .threads = options.threads});
  Progress progress;
  const auto start = Clock::now();
  session.prefill(document.tokens, [&](int64_t done) {
    progress.show("reading the document: {}/{} tokens", done, document.tokens.size());
  });
  const double prefill_seconds = seconds_since(start);

  std::vector<Contender> contenders;
  contenders.push_back({"dense (llama.cpp)", with_method(options.method, "ggml"), {}, {}});
  contenders.push_back({options.method.method, options.method, {}, {}});
  for (auto& contender : contenders) ask_all(contender, session, document, progress);
  progress.clear();
  if (options.json) {
    return print("{}\n", summary_json(tokenizer, document, contenders, prefill_seconds)
                             .dump(2, ' ', false, Json::error_handler_t::replace));
  }
  print("{}: a document of {} tokens, read in {:.1f} s; {} questions\n", model.name(),
        document.tokens.size(), prefill_seconds, document.queries.size());
  print("{}: budget {}, dense layers {}, {} threads\n\n", options.method.method,
        options.method.budget.text(), options.method.dense_layers.text(), options.threads);
  print_answers(tokenizer, document, contenders);
  print_summary(contenders, document.queries.size());
}

}  // namespace

void add_demo(CLI::App& app) {
  auto options = std::make_shared<Options>();
  options->method.budget = Budget::parse("1.56%");
  CLI::App* demo = app.add_subcommand(
      "demo", "answer questions about a long document, dense and with HATA side by side");
  demo->footer("Example:\n  hata demo\n  hata demo -c 16384 --budget 64 --dense-layers 0");
  add_model(*demo, options->model, false);
  demo->add_option("-c,--ctx", options->n_ctx, "tokens of the document")
      ->check(CLI::Range(int64_t{512}, int64_t{1} << 24))
      ->capture_default_str();
  demo->add_option("--questions", options->per_task, "questions of each kind")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  demo->add_option("--document-seed", options->document_seed, "another document")
      ->capture_default_str();
  demo->add_flag("--json", options->json, "print everything as one JSON object");
  add_threads(*demo, options->threads);
  add_method_options(*demo, options->method);
  demo->callback([options] { run(*options); });
}

}  // namespace hata::cli
