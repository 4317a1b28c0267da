// hata train: learns the codes of a model from documents that it reads.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>

#include "commands.h"
#include "core/clock.h"
#include "core/files.h"
#include "eval/host.h"
#include "learn/sampler.h"
#include "learn/trainer.h"
#include "model.h"
#include "options.h"
#include "output.h"
#include "train_documents.h"
#include "weights/model_shape.h"
#include "weights/weights_file.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model;
  std::vector<std::string> texts;
  std::string output;
  int64_t n_ctx = 8192;
  int64_t rows = 40;
  int held_out = 4;
  int queries = 48;
  learn::TrainOptions train;
  bool with_paper = false;
  bool resume = false;
  int threads = 1;
};

class Train {
 public:
  explicit Train(const Options& options)
      : options_(options),
        model_path_(options.model.empty() ? bundled_model() : options.model),
        header_(weights::read_gguf(model_path_)),
        shape_(weights::model_shape(header_)),
        model_(open_model(options.model)),
        tokenizer_(model_.vocab()),
        documents_(tokenizer_, options.texts, options.n_ctx, options.rows + options.held_out,
                   options.train.seed) {
    options_.train = learn::resolved(options.train);
    if (options_.output.empty()) options_.output = weights::weights_path(model_path_);
    folder_ = options_.output + ".work";
  }

  void run() {
    check_output_folder(options_.output);
    announce();
    prepare_folder();
    sample();
    const auto heads = train();
    write(heads);
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

 private:
  int64_t n_heads() const {
    int64_t n = 0;
    for (const auto& layer : shape_.layers)
      n += layer.why_dense.empty() ? layer.heads.n_kv_heads : 0;
    return n;
  }

  // Bytes of the sampled rows on disk, and what training holds in memory besides the model.
  std::pair<double, double> sizes() const {
    double disk = 0, memory = 0;
    for (const auto& layer : shape_.layers) {
      if (!layer.why_dense.empty()) continue;
      const HeadShape& h = layer.heads;
      const double keys = static_cast<double>(options_.n_ctx) * h.head_dim;
      const double vectors = static_cast<double>(options_.queries) * h.group();
      disk += static_cast<double>(documents_.size()) *
              (2 * keys * h.n_kv_heads + 4 * options_.queries * h.n_q_heads * h.head_dim);
      const double rbit = options_.train.rbit;
      const double one_row = 4 * (keys + static_cast<double>(options_.n_ctx) * 2 * rbit +
                                  2 * vectors * static_cast<double>(options_.n_ctx));
      memory = std::max(memory, one_row + 4 * keys * options_.train.rows_a_step);
    }
    return {disk, memory * options_.threads};
  }

  void announce() const {
    const auto [disk, memory] = sizes();
    fmt::print(stderr,
               "hata train: {}, {} KV heads to train; {} documents of {} tokens ({}), {} of them "
               "held out\n            {} on disk in {}, {} of memory besides the model\n",
               model_.name(), n_heads(), documents_.size(), options_.n_ctx,
               documents_.description(), options_.held_out, human_bytes(disk), folder_,
               human_bytes(memory));
    if (documents_.size() <= options_.held_out) {
      throw Error(
          fmt::format("the texts give {} documents of {} tokens, {} of which are held out: "
                      "give more text, a smaller -c, or fewer --held-out",
                      documents_.size(), options_.n_ctx, options_.held_out));
    }
  }

  // What decides the rows and heads that the folder holds.
  std::string settings() const {
    const learn::TrainOptions& t = options_.train;
    return fmt::format(
        "model {}\ndocuments {} of {} tokens: {}\nqueries {}\nheld out {}\nseed {}\nobjective {}\n"
        "rbit {}\nsteps {}\nrows a step {}\nrate {}\nskip {} {}\nsharpness {} {}\npaper {}\n",
        weights::model_fingerprint(header_), documents_.size(), options_.n_ctx,
        documents_.description(), options_.queries, options_.held_out, t.seed, t.objective, t.rbit,
        t.steps, t.rows_a_step, t.rate, t.kl.skip_first, t.kl.skip_last, t.kl.sharpness_first,
        t.kl.sharpness_last, options_.with_paper);
  }

  void prepare_folder() const {
    const fs::path file = fs::path(folder_) / "settings.txt";
    if (fs::exists(file) && !options_.resume) {
      throw Error(folder_ +
                  " holds the beginning of another run: --resume goes on with it; remove "
                  "it to start anew");
    }
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) throw Error(folder_ + ": cannot be made: " + error.message());
    if (fs::exists(file)) {
      check_settings(read_file(file));
    } else {
      write_file_whole(file, {settings()});
    }
  }

  void check_settings(const std::string& of_run_before) const {
    std::istringstream before(of_run_before), now(settings());
    std::string line, mine;
    while (std::getline(now, mine)) {
      if (std::getline(before, line) && line == mine) continue;
      throw Error(
          fmt::format("{}: the run before had '{}', this one has '{}'; --resume with the "
                      "same settings, or remove the folder",
                      folder_, line, mine));
    }
  }

  fs::path row_file(int64_t number) const {
    return fs::path(folder_) / fmt::format("row-{:04}.bin", number);
  }

  void sample() {
    eval::configure_host("method=dense dense-layers=0");
    const auto start = Clock::now();
    int64_t made = 0;
    for (int64_t i = 0; i < documents_.size(); ++i) {
      if (fs::exists(row_file(i))) continue;
      sample_document(i, [&](int64_t tokens) {
        const double done = static_cast<double>(made) +
                            static_cast<double>(tokens) / static_cast<double>(options_.n_ctx);
        const double left = seconds_since(start) / std::max(done, 1e-9) *
                            (static_cast<double>(documents_.size() - i + made) - done);
        progress_.show("reading document {}/{}, {} left", i + 1, documents_.size(),
                       human_duration(left));
      });
      ++made;
    }
    progress_.clear();
    if (made > 0) {
      fmt::print(stderr, "read {} documents in {}\n", made, human_duration(seconds_since(start)));
    }
  }

  template <class Progress>
  void sample_document(int64_t number, const Progress& progress) {
    const std::vector<eval::Token> tokens = documents_.make(number);
    const auto n = static_cast<int64_t>(tokens.size());
    learn::Sampler sampler(n, options_.queries,
                           options_.train.seed + static_cast<uint64_t>(number));
    eval::Session session(model_, {.n_ctx = n, .threads = options_.threads});
    int64_t first_position = 0;
    const eval::PrefillWatch watch([&](const PrefillInspection& seen) {
      sampler.observe(seen.layer, seen.step, first_position);
    });
    session.prefill(tokens, [&](int64_t done) {
      first_position = done;
      progress(done);
    });
    learn::write_document(row_file(number), sampler.take());
  }

  std::vector<learn::TrainedHead> train() {
    std::vector<fs::path> files;
    for (int64_t i = 0; i < documents_.size(); ++i) files.push_back(row_file(i));
    const learn::RowStore rows(files);
    learn::TrainerOptions trainer{.train = options_.train,
                                  .n_held_out = options_.held_out,
                                  .threads = options_.threads,
                                  .with_paper = options_.with_paper,
                                  .budgets = budgets_};
    const auto start = Clock::now();
    progress_.show("training: {} heads", n_heads());
    auto heads = learn::train_all(
        trainer, rows, folder_, [&](const learn::TrainedHead& head, int64_t done, int64_t total) {
          const double left =
              seconds_since(start) / static_cast<double>(done) * static_cast<double>(total - done);
          progress_.clear();
          fmt::print(stderr,
                     "layer {:2} head {:2}: far attention kept at {}: {:.3f} (random {:.3f}, exact "
                     "{:.3f}); {}/{}, {} left\n",
                     head.layer, head.head, budgets_.front().text(), head.learned.kept_mass.front(),
                     head.random.kept_mass.front(), head.exact.kept_mass.front(), done, total,
                     human_duration(left));
        });
    progress_.clear();
    return heads;
  }

  Json quality_of(const std::vector<const learn::TrainedHead*>& heads) const {
    const auto mean = [&](auto member) {
      learn::Quality all;
      for (const auto* head : heads) all += head->*member;
      return all;
    };
    const std::pair<const char*, learn::Quality> kinds[] = {
        {"learned", mean(&learn::TrainedHead::learned)},
        {"random", mean(&learn::TrainedHead::random)},
        {"paper", mean(&learn::TrainedHead::paper)},
        {"exact", mean(&learn::TrainedHead::exact)}};
    Json quality;
    for (const auto& [name, q] : kinds) {
      if (q.queries == 0) continue;
      for (size_t b = 0; b < budgets_.size(); ++b) {
        quality["kept_mass"][name][budgets_[b].text()] = std::round(q.kept_mass[b] * 1e4) / 1e4;
        quality["recall"][name][budgets_[b].text()] = std::round(q.recall[b] * 1e4) / 1e4;
      }
    }
    return quality;
  }

  weights::Provenance provenance(const std::vector<learn::TrainedHead>& heads) const {
    weights::Provenance p;
    p.architecture = shape_.architecture;
    p.base_name = shape_.name;
    p.dataset = documents_.description();
    p.rows = static_cast<uint32_t>(documents_.size() - options_.held_out);
    p.row_tokens = static_cast<uint32_t>(options_.n_ctx);
    p.steps = static_cast<uint32_t>(options_.train.steps);
    p.seed = static_cast<uint32_t>(options_.train.seed);
    for (const learn::TrainedHead& head : heads) {
      p.first_loss += static_cast<float>(head.first_loss / static_cast<double>(heads.size()));
      p.last_loss += static_cast<float>(head.last_loss / static_cast<double>(heads.size()));
    }
    return p;
  }

  void write(const std::vector<learn::TrainedHead>& heads) {
    weights::WeightsFile file;
    file.rbit = options_.train.rbit;
    file.provenance = provenance(heads);
    file.weights.fingerprint = weights::model_fingerprint(header_);
    file.weights.objective = options_.train.objective;
    std::map<int, std::vector<const learn::TrainedHead*>> by_layer;
    std::vector<const learn::TrainedHead*> all;
    for (const learn::TrainedHead& head : heads) {
      by_layer[head.layer].push_back(&head);
      all.push_back(&head);
    }
    Json quality = quality_of(all);
    for (const auto& [layer, of_layer] : by_layer) {
      LayerWeights& out = file.weights.layers[layer];
      const int head_dim = static_cast<int>(of_layer[0]->w.size()) / file.rbit;
      out.projection = {static_cast<int>(of_layer.size()), head_dim, file.rbit, {}};
      for (const auto* head : of_layer) {
        auto& w = out.projection.weights;
        w.insert(w.end(), head->w.begin(), head->w.end());
        out.mean_lengths.push_back(static_cast<float>(head->mean_length));
      }
      quality["layers"][std::to_string(layer)] = quality_of(of_layer);
    }
    file.provenance.quality = quality.dump();
    weights::write_weights(options_.output, file);
    print("{}\n", options_.output);
  }

  Options options_;
  std::string model_path_;
  weights::GgufFile header_;
  weights::ModelShape shape_;
  eval::Model model_;
  eval::LlamaTokenizer tokenizer_;
  TrainingDocuments documents_;
  std::string folder_;
  const std::vector<Budget> budgets_ = {Budget::parse("64"), Budget::parse("256"),
                                        Budget::parse("1.56%")};
  Progress progress_;
};

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* train = app.add_subcommand("train", "learn the codes of a model");
  train->footer(
      "The model reads documents; its queries and keys are sampled in every layer, and the codes\n"
      "learn to rank keys as the queries do. A run that was interrupted goes on with --resume.\n"
      "Example:\n  hata train -m model.gguf -f book.txt -f code.txt -o hata-model.gguf");
  add_model(*train, options->model, false);
  train->add_option("-f,--file", options->texts,
                    "a text to read (several times for more); synthetic documents without it");
  train->add_option("-o,--output", options->output,
                    "weights file; by default hata-NAME.gguf beside the model");
  train->add_option("-c,--ctx", options->n_ctx, "tokens of a document")
      ->check(CLI::Range(int64_t{512}, int64_t{1} << 24))
      ->capture_default_str();
  train->add_option("--rows", options->rows, "documents to train on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  train->add_option("--held-out", options->held_out, "further documents, to measure on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  train->add_option("--queries", options->queries, "positions sampled in a document")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add_rbit(*train, options->train.rbit);
  train
      ->add_option("--objective", options->train.objective,
                   "kl-far (attention to far keys), kl (to all keys), paper (HATA's own)")
      ->check(CLI::IsMember({"kl-far", "kl", "paper"}))
      ->capture_default_str();
  train->add_option("--steps", options->train.steps, "steps a head (0: the objective's default)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  train->add_option("--rate", options->train.rate, "learning rate (0: the objective's default)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  train->add_option("--seed", options->train.seed, "of the documents, samples and first codes")
      ->capture_default_str();
  train->add_flag("--with-paper", options->with_paper,
                  "train the paper's objective too, to compare with (its codes are not kept)");
  train->add_flag("--resume", options->resume, "go on with a run that was interrupted");
  add_threads(*train, options->threads);
  train->callback([options] { Train(*options).run(); });
}

}  // namespace hata::cli
