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
#include "eval/layer_check.h"
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
  std::string codes;     ///< weights to measure instead of training
  std::string compared;  ///< other weights to measure besides
  std::string samples;   ///< folder that keeps the sampled rows; empty: they go with the rest
  double memory_gb = 0;
  Budget check_budget = Budget::parse("1.56%");
  double most_kl = 0.05;
  bool resume = false;
  int threads = 1;
  eval::Device device = eval::Device::cpu;
};

// Budgets that are measured for --budget auto.
std::vector<Budget> needs() {
  std::vector<Budget> budgets;
  for (int64_t k = 32; k <= 4096; k *= 2) budgets.push_back({.tokens = k});
  return budgets;
}

// That a layer may have, the rule first. Larger ones leave too little to search at small budgets.
std::vector<Recent> windows() { return {{}, {.share = 0.5}, {.share = 0.75}}; }

// Before the model is loaded: it may be a large one.
weights::ModelShape trainable(weights::ModelShape shape, const std::string& path) {
  std::string why = "it has none";
  for (const auto& layer : shape.layers) {
    if (layer.why_dense.empty()) return shape;
    why = layer.why_dense;
  }
  throw Error(path + ": no layer can be sparse, so there is nothing to train (" + why + ")");
}

class Train {
 public:
  explicit Train(const Options& options)
      : options_(options),
        model_path_(options.model.empty() ? bundled_model() : options.model),
        header_(weights::read_gguf(model_path_)),
        shape_(trainable(weights::model_shape(header_), model_path_)),
        model_(open_model(options.model, eval::Device::cpu)),
        reader_(model_, options.device),
        tokenizer_(model_.vocab()),
        documents_(tokenizer_, options.texts, options.n_ctx, options.rows + options.held_out,
                   options.train.seed) {
    options_.train = learn::resolved(options.train);
    if (options_.output.empty()) options_.output = weights::weights_path(model_path_);
    if (!options_.codes.empty()) take_codes();
    if (!options_.compared.empty()) {
      check_weights(options_.compared, model_path_, "--compare");
      compared_ = weights::shared_weights(options_.compared);
    }
    folder_ = options_.output + ".work";
    samples_ = options_.samples.empty() ? folder_ : options_.samples;
  }

  void run() {
    check_output_folder(options_.output);
    announce();
    prepare_folder(samples_, "samples.txt", sample_settings());
    prepare_folder(folder_, "settings.txt", settings());
    sample();
    write(train());
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

 private:
  // What the codes were trained by stays in the file; what they are worth is measured anew.
  void take_codes() {
    check_weights(options_.codes, model_path_, "--codes");
    const weights::WeightsFile file = weights::read_weights(options_.codes);
    given_ = weights::shared_weights(options_.codes);
    given_provenance_ = file.provenance;
    options_.train.rbit = file.rbit;
    options_.train.objective = file.weights.objective;
    options_.train.steps = 0;
  }

  int64_t n_heads() const {
    int64_t n = 0;
    for (const auto& layer : shape_.layers)
      n += layer.why_dense.empty() ? layer.heads.n_kv_heads : 0;
    return n;
  }

  // Bytes of the sampled rows on disk, and what training one head holds in memory.
  struct Sizes {
    double disk = 0, head = 0;
  };
  Sizes sizes() const {
    Sizes sizes;
    const auto n = static_cast<double>(options_.n_ctx);
    for (const auto& layer : shape_.layers) {
      if (!layer.why_dense.empty()) continue;
      const HeadShape& h = layer.heads;
      const double keys = n * h.head_dim;
      const double vectors = static_cast<double>(options_.queries) * h.group();
      sizes.disk += static_cast<double>(documents_.size()) *
                    (2 * keys * h.n_kv_heads + 4 * options_.queries * h.n_q_heads * h.head_dim);
      sizes.disk += options_.held_out * 2 * keys * h.n_kv_heads;  // values
      // The rows of a step with one that is being loaded; soft codes with their gradients; the
      // logits of all queries, true and estimated.
      const int rows = options_.train.rows_a_step;
      sizes.head =
          std::max(sizes.head, 4 * (keys * (rows + 2) + rows * n * 2 * options_.train.rbit +
                                    2 * vectors * n + rows * n * (h.group() + 2)));
    }
    return sizes;
  }

  // Of the whole process: the model, its context while documents are read or checked, training.
  double memory() const {
    double cache = 0;
    for (const auto& layer : shape_.layers) {
      cache += 2.0 * static_cast<double>(options_.n_ctx) * layer.heads.n_kv_heads *
               (layer.heads.head_dim + layer.value_dim);
    }
    const double model = static_cast<double>(fs::file_size(model_path_));
    // What reads on a GPU is a second model, with a cache of its own.
    const double read_on_gpu = options_.device == eval::Device::cuda ? model + cache : 0;
    return kBaseBytes + model + read_on_gpu +
           std::max(cache * checked_documents() + kBaseBytes,
                    trainers() * (sizes().head + kThreadBytes));
  }

  // Heads trained side by side: as many as there are threads and room.
  int trainers() const {
    if (options_.memory_gb == 0) return options_.threads;
    const double room =
        options_.memory_gb * 1e9 - kBaseBytes - static_cast<double>(fs::file_size(model_path_));
    const double fit = room / (sizes().head + kThreadBytes);
    if (fit < 1) {
      throw Error(
          fmt::format("--memory {}: one head takes {} besides the model; give more, or a "
                      "smaller -c or --queries",
                      options_.memory_gb, human_bytes(sizes().head + kThreadBytes)));
    }
    return std::min(options_.threads, static_cast<int>(fit));
  }

  int checked_documents() const { return std::min(options_.held_out, kCheckedDocuments); }

  void announce() const {
    fmt::print(stderr,
               "hata train: {}, {} KV heads to train; {} documents of {} tokens ({}), {} of them "
               "held out\n            {} on disk in {}; at most {} of memory{}, {} heads at once\n",
               model_.name(), n_heads(), documents_.size(), options_.n_ctx,
               documents_.description(), options_.held_out, human_bytes(sizes().disk), samples_,
               human_bytes(memory()),
               options_.device == eval::Device::cuda ? " besides what CUDA takes" : "", trainers());
    if (documents_.size() <= options_.held_out) {
      throw Error(
          fmt::format("the texts give {} documents of {} tokens, {} of which are held out: "
                      "give more text, a smaller -c, or fewer --held-out",
                      documents_.size(), options_.n_ctx, options_.held_out));
    }
    print_time();
  }

  // One step on random numbers, timed.
  void print_time() const {
    if (given_ != nullptr) return;
    const auto layer = std::find_if(shape_.layers.begin(), shape_.layers.end(),
                                    [](const auto& l) { return l.why_dense.empty(); });
    const double step =
        learn::time_step(options_.train, layer->heads, options_.n_ctx, options_.queries);
    const double seconds =
        step * options_.train.steps * static_cast<double>(n_heads()) / trainers();
    fmt::print(stderr, "            training takes about {}, after the documents are read\n",
               human_duration(seconds));
  }

  // What decides the sampled rows.
  std::string sample_settings() const {
    return fmt::format("model {}\ndocuments {} of {} tokens: {}\nqueries {}\nseed {}\n",
                       weights::model_fingerprint(header_), documents_.size(), options_.n_ctx,
                       documents_.description(), options_.queries, options_.train.seed);
  }

  // What decides the heads.
  std::string settings() const {
    const learn::TrainOptions& t = options_.train;
    return sample_settings() +
           fmt::format(
               "held out {}\nobjective {}\nrbit {}\nsteps {}\nrows a step {}\nrate {}\nskip {} "
               "{}\nsharpness {} {}\nby head {}, by group {}, floor {}\nseparate queries "
               "{}\ncentre {}\n",
               options_.held_out, t.objective, t.rbit, t.steps, t.rows_a_step, t.rate,
               t.kl.skip_first, t.kl.skip_last, t.kl.sharpness_first, t.kl.sharpness_last,
               t.kl.by_head, t.kl.by_group, t.kl.floor, t.separate_queries, t.centre);
  }

  // Rows that are kept are there to be used again; a run that was interrupted has to be asked for.
  void prepare_folder(const std::string& folder, const char* name, const std::string& now) const {
    const fs::path file = fs::path(folder) / name;
    if (fs::exists(file) && !options_.resume && folder == folder_) {
      throw Error(folder +
                  " holds the beginning of another run: --resume goes on with it; remove "
                  "it to start anew");
    }
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw Error(folder + ": cannot be made: " + error.message());
    if (fs::exists(file)) {
      check_settings(folder, read_file(file), now);
    } else {
      write_file_whole(file, {now});
    }
  }

  static void check_settings(const std::string& folder, const std::string& of_run_before,
                             const std::string& settings) {
    std::istringstream before(of_run_before), now(settings);
    std::string line, mine;
    while (std::getline(now, mine)) {
      if (std::getline(before, line) && line == mine) continue;
      throw Error(
          fmt::format("{}: the run before had '{}', this one has '{}'; go on with the same "
                      "settings, or remove the folder",
                      folder, line, mine));
    }
  }

  fs::path row_file(int64_t number) const {
    return fs::path(samples_) / fmt::format("row-{:04}.bin", number);
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

  bool held_out(int64_t number) const { return number >= documents_.size() - options_.held_out; }

  template <class Progress>
  void sample_document(int64_t number, const Progress& progress) {
    const std::vector<eval::Token> tokens = documents_.make(number);
    const auto n = static_cast<int64_t>(tokens.size());
    learn::Sampler sampler(n, options_.queries, options_.train.seed + static_cast<uint64_t>(number),
                           held_out(number));
    eval::Session session(reader_.reading(), {.n_ctx = n, .threads = options_.threads});
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
    mean_keys_seen_ = rows.mean_keys_seen(rows.n_rows() - options_.held_out);
    learn::TrainerOptions trainer{.train = options_.train,
                                  .n_held_out = options_.held_out,
                                  .threads = trainers(),
                                  .compared = compared_,
                                  .given = given_,
                                  .budgets = budgets_,
                                  .needs = needs(),
                                  .windows = windows(),
                                  .window_budget = options_.check_budget};
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
    const std::pair<std::string, learn::Quality> kinds[] = {
        {"learned", mean(&learn::TrainedHead::learned)},
        {"random", mean(&learn::TrainedHead::random)},
        {compared_ != nullptr ? compared_->objective : "", mean(&learn::TrainedHead::compared)},
        {"exact", mean(&learn::TrainedHead::exact)}};
    Json quality;
    for (const auto& [name, q] : kinds) {
      if (q.queries == 0) continue;
      for (size_t b = 0; b < budgets_.size(); ++b) {
        quality["kept_mass"][name][budgets_[b].text()] = rounded(q.kept_mass[b]);
        quality["recall"][name][budgets_[b].text()] = rounded(q.recall[b]);
      }
    }
    return quality;
  }

  // With each window: what chose it.
  static Json output_error_of(const std::vector<const learn::TrainedHead*>& heads) {
    Json json;
    for (size_t i = 0; i < heads[0]->output_errors.size(); ++i) {
      double sum = 0;
      for (const auto* head : heads) sum += head->output_errors[i];
      json[windows()[i].text()] = rounded(sum / static_cast<double>(heads.size()));
    }
    return json;
  }

  weights::Provenance provenance(const std::vector<learn::TrainedHead>& heads) const {
    if (given_ != nullptr) return given_provenance_;
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

  // The share of attention kept, as --budget auto needs it.
  std::shared_ptr<const KeptMass> kept_mass(
      const std::vector<const learn::TrainedHead*>& heads) const {
    KeptMass kept;
    kept.n_keys = mean_keys_seen_;
    for (const Budget& budget : needs()) kept.budgets.push_back(budget.tokens);
    for (const auto* head : heads) {
      for (const double mass : head->needs.all_mass) {
        kept.mass.push_back(static_cast<float>(std::min(mass, 1.0)));
      }
    }
    return std::make_shared<const KeptMass>(std::move(kept));
  }

  LayerWeights layer_weights(const std::vector<const learn::TrainedHead*>& heads) const {
    LayerWeights out;
    const int rbit = options_.train.rbit;
    const int head_dim = static_cast<int>(heads[0]->w.size()) / rbit;
    out.projection = {static_cast<int>(heads.size()), head_dim, rbit, {}};
    if (!heads[0]->w_query.empty()) out.queries = out.projection;
    const auto append = [](std::vector<float>& to, const std::vector<float>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    for (const auto* head : heads) {
      append(out.projection.weights, head->w);
      append(out.queries.weights, head->w_query);
      append(out.key_means, head->key_mean);
      out.mean_lengths.push_back(static_cast<float>(head->mean_length));
    }
    out.kept_mass = kept_mass(heads);
    out.recent_share = static_cast<float>(heads[0]->recent.share);
    return out;
  }

  // Looks which layers should stay dense, with the weights as they are so far.
  void check_layers(weights::WeightsFile& file, Json& quality) {
    const std::string path = (fs::path(folder_) / "unchecked.gguf").string();
    weights::write_weights(path, file);
    eval::LayerCheckOptions check{.weights = path,
                                  .budget = options_.check_budget,
                                  .most_kl = options_.most_kl,
                                  .threads = options_.threads};
    for (const auto& [layer, unused] : file.weights.layers) check.layers.push_back(layer);
    std::vector<std::vector<eval::Token>> documents;
    for (int i = 0; i < checked_documents(); ++i) {
      documents.push_back(documents_.make(documents_.size() - 1 - i));
    }
    const eval::LayerCheck found = eval::check_layers(
        reader_, documents, check,
        [&](const std::string& what) { progress_.show("which layers may be sparse: {}", what); });
    progress_.clear();
    file.weights.dense_layers = found.dense_layers;
    Json kl;
    kl["budget"] = options_.check_budget.text();
    kl["tokens"] = found.n_compared;
    kl["all_sparse"] = rounded(found.kl_all);
    kl["chosen"] = rounded(found.kl);
    for (size_t i = 0; i < check.layers.size(); ++i) {
      kl["alone"][std::to_string(check.layers[i])] = rounded(found.kl_alone[i]);
    }
    quality["kl"] = kl;
    fmt::print(stderr,
               "at {} of the keys, all layers sparse cost {:.4f} nats a token; {} stay dense with "
               "--dense-layers auto ({:.4f} nats)\n",
               options_.check_budget.text(), found.kl_all,
               found.dense_layers.empty()
                   ? "none"
                   : fmt::format("layers {}", fmt::join(found.dense_layers, ", ")),
               found.kl);
  }

  static double rounded(double x) { return std::round(x * 1e4) / 1e4; }

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
      file.weights.layers[layer] = layer_weights(of_layer);
      quality["layers"][std::to_string(layer)] = quality_of(of_layer);
      quality["layers"][std::to_string(layer)]["output_error"] = output_error_of(of_layer);
    }
    check_layers(file, quality);
    file.provenance.quality = quality.dump();
    weights::write_weights(options_.output, file);
    print("{}\n", options_.output);
  }

  static constexpr int kCheckedDocuments = 4;
  // What OpenBLAS and the program itself take.
  static constexpr double kThreadBytes = 64e6, kBaseBytes = 150e6;

  Options options_;
  std::string model_path_;
  weights::GgufFile header_;
  weights::ModelShape shape_;
  eval::Model model_;
  eval::Reader reader_;
  eval::LlamaTokenizer tokenizer_;
  TrainingDocuments documents_;
  std::string folder_;   ///< of this run
  std::string samples_;  ///< of the rows
  std::shared_ptr<const Weights> given_, compared_;
  weights::Provenance given_provenance_;
  int64_t mean_keys_seen_ = 0;  ///< by the held-out queries
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
                   "kl-group (attention to far keys, of the group and of each head), kl-far (of "
                   "each head alone), kl (to all keys), paper (HATA's own)")
      ->check(CLI::IsMember({"kl-group", "kl-far", "kl", "paper"}))
      ->capture_default_str();
  train
      ->add_option("--skip-first", options->train.kl.skip_first,
                   "kl-group, kl-far: first keys that are not learned from (the window holds them)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  train->add_option("--skip-last", options->train.kl.skip_last, "last keys, likewise")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  train->add_flag("--separate-queries", options->train.separate_queries,
                  "queries learn a projection of their own");
  train->add_flag("--centre", options->train.centre, "keys are encoded relative to their mean");
  train->add_option("--steps", options->train.steps, "steps a head (0: the objective's default)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  train->add_option("--rate", options->train.rate, "learning rate (0: the objective's default)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  train->add_option("--seed", options->train.seed, "of the documents, samples and first codes")
      ->capture_default_str();
  train->add_option(
      "--codes", options->codes,
      "no training: measure the codes of this weights file (an imported one, say), and "
      "write them with what was measured");
  train->add_option("--compare", options->compared,
                    "another weights file of the model, measured on the same held-out documents");
  train->add_option("--samples", options->samples,
                    "a folder that keeps what was sampled, for further runs of other objectives");
  train
      ->add_option("--memory", options->memory_gb,
                   "gigabytes that may be used; fewer heads are trained at once (0: no limit)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_budget(*train, "--check-budget",
             "of sparse layers, where it is measured which should stay dense",
             options->check_budget);
  train
      ->add_option("--max-kl", options->most_kl,
                   "nats a token that sparse layers may cost; the rest stays dense")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  train->add_flag("--resume", options->resume, "go on with a run that was interrupted");
  add_threads(*train, options->threads);
  add_device(*train, options->device);
  train->callback([options] { Train(*options).run(); });
}

}  // namespace hata::cli
