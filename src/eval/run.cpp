#include "eval/run.h"

#include "core/clock.h"
#include "core/hash.h"
#include "eval/asking.h"
#include "eval/host.h"
#include "eval/jsonl.h"
#include "eval/plan.h"
#include "eval/work.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

constexpr int64_t kFileTokens = 4096;  // a guess, for the time left
constexpr int64_t kBeyond = 1024;      // room for the question behind the longest document

// A document, and the settings that it has not been asked under.
struct Job : PlannedDocument {
  std::vector<const Setting*> settings = {};
  int64_t weight() const { return key.n_ctx > 0 ? key.n_ctx : kFileTokens; }
};

std::string name_of(const Job& job) {
  const std::string length =
      job.key.n_ctx > 0 ? " at " + std::to_string(job.key.n_ctx) + " tokens" : "";
  return job.key.task + length + ", document " + std::to_string(job.key.document + 1);
}

class Run {
 public:
  Run(const Model& model, const RunOptions& options, const States& states, ResultsFile& file,
      const Listener& listener)
      : model_(model),
        options_(options),
        states_(states),
        file_(file),
        listener_(listener),
        reader_(model, options.device),
        tokenizer_(model.vocab()),
        plan_(tokenizer_, model, options) {
    for (const Setting& setting : options.settings) {
      observe_ = observe_ || (setting.method != "ggml" &&
                              make_selector(setting.method, HataOptions{})->needs_totals());
      if (observe_ && options.device != Device::cpu) {
        throw Error("--device cuda: " + setting.method +
                    " looks at the queries of the prompt, which is seen on the CPU alone; leave "
                    "the method out, or take --device cpu");
      }
    }
  }

  void all() {
    std::vector<Job> jobs;
    for (const PlannedDocument& document : plan_.documents()) {
      Job job{document};
      for (const Setting& setting : options_.settings) {
        if (!file_.has(job.key, setting.id())) job.settings.push_back(&setting);
      }
      if (job.settings.empty()) continue;
      work_.plan(job.weight(), static_cast<int64_t>(job.settings.size()));
      jobs.push_back(std::move(job));
    }
    for (const Job& job : jobs) ask_about(job);
  }

 private:
  void ask_about(const Job& job);
  std::unique_ptr<Session> read(const Job& job, const Sample& sample);
  void keep(const Job& job, const Session& session, const Sample& sample) const;
  Record ask_under(const Setting& setting, const Job& job, Session& session, const Sample& sample);
  void ask_all(const Job& job, Session& session, const Sample& sample, Record& record,
               Recorder& recorder);
  void show_document(const Job& job, const Sample& sample);
  template <class Fn>
  bool attempt(const Job& job, const Setting* setting, Fn&& fn);
  void tell(const Job& job, const std::string& what);

  const Model& model_;
  const RunOptions& options_;
  const States& states_;
  ResultsFile& file_;
  const Listener& listener_;
  Reader reader_;
  LlamaTokenizer tokenizer_;
  Plan plan_;
  Work work_;
  bool observe_ = false;  ///< a method chooses by what the queries of the prefill looked at
  Predictions dense_;     ///< of the text at hand
};

void Run::tell(const Job& job, const std::string& what) {
  if (!listener_.progress) return;
  listener_.progress(name_of(job) + ": " + what, work_.share_done(), work_.seconds_left());
}

// False where it threw, which is noted. setting nullptr: none can be asked.
template <class Fn>
bool Run::attempt(const Job& job, const Setting* setting, Fn&& fn) {
  try {
    fn();
    return true;
  } catch (const std::exception& error) {
    file_.add_error(job.key, setting != nullptr ? setting->id() : "", error.what());
    listener_.note(name_of(job) + (setting != nullptr ? ", " + setting->id() : "") + ": " +
                   error.what());
    return false;
  }
}

void Run::ask_about(const Job& job) {
  Sample sample;
  std::unique_ptr<Session> session;
  const bool ready = attempt(job, nullptr, [&] {
    sample = job.make();
    session = read(job, sample);
    dense_.clear();
    if (sample.queries.front().scoring == Scoring::compare) {
      dense_ = predict(*session, sample.queries.front());
    }
  });
  if (!ready) {
    for (size_t i = 0; i < job.settings.size(); ++i) work_.has_failed(job.weight());
    return;
  }
  const bool shown = job.key.document == 0 && dense_.empty();
  if (shown && !file_.has_document(job.key)) show_document(job, sample);
  for (const Setting* setting : job.settings) {
    tell(job, setting->id());
    Record record;
    const auto start = Clock::now();
    const bool asked = attempt(job, setting, [&] {
      session->truncate(static_cast<int64_t>(sample.tokens.size()));
      record = ask_under(*setting, job, *session, sample);
    });
    if (!asked) {
      work_.has_failed(job.weight());
      continue;
    }
    work_.has_asked(job.weight(), seconds_since(start));
    file_.add(record);
  }
}

std::unique_ptr<Session> Run::read(const Job& job, const Sample& sample) {
  const int64_t trained = llama_model_n_ctx_train(model_.get());
  if (sample.n_ctx() > trained + kBeyond) {
    throw Error("needs " + std::to_string(sample.n_ctx()) + " tokens, and " + model_.path() +
                " was trained up to " + std::to_string(trained));
  }
  configure_host(observe_ ? "method=dense observe=on" : "method=dense");
  auto session = std::make_unique<Session>(
      model_, SessionOptions{.n_ctx = sample.n_ctx(), .threads = options_.threads});
  const auto start = Clock::now();
  // A state holds keys and values, not what the prefill's queries looked at.
  if (!observe_ && states_.load(*session, sample.tokens)) {
    work_.has_read(job.weight(), seconds_since(start));
    return session;
  }
  const auto n_tokens = sample.tokens.size();
  reader_.read(*session, sample.tokens, [&](int64_t done) {
    tell(job, std::to_string(done) + "/" + std::to_string(n_tokens) + " tokens read");
  });
  work_.has_read(job.weight(), seconds_since(start));
  if (!observe_) keep(job, *session, sample);
  return session;
}

void Run::keep(const Job& job, const Session& session, const Sample& sample) const {
  const int64_t bytes = states_.save(session, sample.tokens);
  if (bytes == 0) return;
  char text[96];
  std::snprintf(text, sizeof(text), ": its state of %.1f MB is kept, %.1f MB in all",
                static_cast<double>(bytes) / 1e6, static_cast<double>(states_.bytes()) / 1e6);
  listener_.note(name_of(job) + text);
}

Record Run::ask_under(const Setting& setting, const Job& job, Session& session,
                      const Sample& sample) {
  Record record{.key = job.key,
                .setting = setting.id(),
                .n_tokens = static_cast<int64_t>(sample.tokens.size())};
  configure_host(setting.host_options() + (observe_ ? " observe=on" : ""));
  // The first step after a change derives what the method keeps of the whole document.
  session.decode(sample.queries.front().tokens.front());
  session.truncate(record.n_tokens);
  reset_host_stats();
  Recorder recorder;
  if (sample.queries.front().scoring == Scoring::compare) {
    record.text = compare(session, sample.queries.front(), dense_,
                          options_.inspect > 0 ? &recorder : nullptr);
  } else {
    ask_all(job, session, sample, record, recorder);
  }
  record.counters = host_counters();
  record.layers = recorder.counts();
  record.chosen = recorder.cells();
  return record;
}

void Run::ask_all(const Job& job, Session& session, const Sample& sample, Record& record,
                  Recorder& recorder) {
  for (size_t q = 0; q < sample.queries.size(); ++q) {
    const bool inspected = static_cast<int>(q) < options_.inspect;
    recorder.note_cells(q == 0 && job.key.document == 0);
    record.queries.push_back(
        ask(session, tokenizer_, sample.queries[q], inspected ? &recorder : nullptr));
  }
}

// The report shows the first document of each task and length with its first query.
void Run::show_document(const Job& job, const Sample& sample) {
  const Query& query = sample.queries.front();
  Json pieces = Json::array(), evidence = Json::array();
  for (const Token token : sample.tokens) pieces.push_back(piece(model_.vocab(), token));
  for (const TokenRange& range : query.evidence) evidence.push_back({range.begin, range.end});
  file_.add_document(
      job.key, {{"pieces", pieces},
                {"query", tokenizer_.decode(std::span(query.tokens).first(query.first_answer()))},
                {"answers", query.answers},
                {"evidence", evidence}});
}

}  // namespace

Json settings_json(const RunOptions& options, const Model& model, uint64_t fingerprint) {
  Json settings = Json::array();
  for (const Setting& s : options.settings) {
    const bool sparse = !s.reads_every_key();
    settings.push_back({{"id", s.id()},
                        {"method", s.method},
                        {"budget", sparse ? Json(s.budget.text()) : Json()},
                        {"dense_layers", sparse ? dense_layers_json(s.dense_layers) : Json()}});
  }
  return {{"model", model.name()},
          {"model_fingerprint", hexadecimal(fingerprint)},
          {"tasks", options.tasks},
          {"contexts", options.contexts},
          {"samples", options.samples},
          {"per_document", options.per_document},
          {"seed", options.seed},
          {"inspect", options.inspect},
          {"min_ctx", options.settings.front().min_ctx},
          {"weights", options.settings.front().weights},
          {"settings", settings}};
}

void run(const Model& model, const RunOptions& options, const States& states, ResultsFile& file,
         const Listener& listener) {
  Run(model, options, states, file, listener).all();
}

int64_t export_jsonl(const Model& model, const RunOptions& options, std::ostream& out) {
  const LlamaTokenizer tokenizer(model.vocab());
  const Plan plan(tokenizer, model, options);
  int64_t n = 0;
  for (const PlannedDocument& document : plan.documents()) n += write_jsonl(document.make(), out);
  return n;
}

}  // namespace hata::eval
