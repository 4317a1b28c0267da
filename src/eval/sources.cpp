// Tasks by name.
#include <algorithm>

#include "eval/jsonl.h"
#include "eval/ruler.h"
#include "eval/sample.h"
#include "eval/tasks.h"
#include "eval/text.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

constexpr std::string_view kJsonl = "jsonl:", kText = "text:";

using MakeSample = Sample (*)(const Tokenizer&, const std::string&, int64_t, int, uint64_t);

// Samples that a function makes from a seed.
class Generated final : public TaskSource {
 public:
  Generated(const Tokenizer& tokenizer, const std::string& task, const TaskOptions& options,
            MakeSample make_sample)
      : tokenizer_(tokenizer), task_(task), options_(options), make_sample_(make_sample) {}

  const std::string& task() const override { return task_; }
  std::optional<int64_t> n_samples() const override { return std::nullopt; }
  Sample make(int64_t number) const override {
    const uint64_t seed = options_.seed * 1'000'003 + static_cast<uint64_t>(number);
    return make_sample_(tokenizer_, task_, options_.n_tokens, options_.n_queries, seed);
  }

 private:
  const Tokenizer& tokenizer_;
  std::string task_;
  TaskOptions options_;
  MakeSample make_sample_;
};

bool lists(const std::vector<TaskHelp>& tasks, const std::string& name) {
  return std::any_of(tasks.begin(), tasks.end(),
                     [&](const TaskHelp& task) { return task.name == name; });
}

// The file's name where the task is of this kind, else nothing.
std::optional<std::string> file_of(std::string_view kind, const std::string& name) {
  if (name.rfind(kind, 0) != 0) return std::nullopt;
  const std::string path = name.substr(kind.size());
  if (path.empty()) throw Error("task '" + name + "' names no file: " + std::string(kind) + "FILE");
  return path;
}

[[noreturn]] void reject(const std::string& name) {
  std::string known;
  for (const TaskHelp& task : task_help()) known += (known.empty() ? "" : ", ") + task.name;
  throw Error("task '" + name + "' is unknown; there are " + known);
}

}  // namespace

std::unique_ptr<TaskSource> open_task(const Tokenizer& tokenizer, const std::string& name,
                                      const TaskOptions& options) {
  if (const auto path = file_of(kJsonl, name)) return open_jsonl(tokenizer, *path);
  if (const auto path = file_of(kText, name)) return open_text(tokenizer, *path, options);
  if (lists(word_task_help(), name) || lists(long_task_help(), name)) {
    return std::make_unique<Generated>(tokenizer, name, options, make_document);
  }
  if (lists(ruler_task_help(), name)) {
    return std::make_unique<Generated>(tokenizer, name, options, make_ruler_sample);
  }
  reject(name);
}

std::vector<std::string> expand_tasks(const std::vector<std::string>& names) {
  std::vector<std::string> tasks;
  const auto add = [&](const std::string& name) {
    if (std::find(tasks.begin(), tasks.end(), name) == tasks.end()) tasks.push_back(name);
  };
  const auto add_all = [&](const std::vector<TaskHelp>& group) {
    for (const TaskHelp& task : group) add(task.name);
  };
  for (const std::string& name : names) {
    if (name == "words") {
      add_all(word_task_help());
    } else if (name == "long") {
      add_all(long_task_help());
    } else if (name == "ruler") {
      add_all(ruler_task_help());
    } else if (lists(word_task_help(), name) || lists(long_task_help(), name) ||
               lists(ruler_task_help(), name) || file_of(kJsonl, name) || file_of(kText, name)) {
      add(name);
    } else {
      reject(name);
    }
  }
  return tasks;
}

std::vector<TaskHelp> task_help() {
  std::vector<TaskHelp> help = word_task_help();
  for (const TaskHelp& task : long_task_help()) help.push_back(task);
  for (const TaskHelp& task : ruler_task_help()) help.push_back(task);
  help.insert(help.end(),
              {{"words", "all tasks in the bundled model's words, but for the long ones"},
               {"long", "the two with long questions"},
               {"ruler", "all tasks in RULER's text form"},
               {"jsonl:FILE", "your own: one JSON object a line"},
               {"text:FILE", "plain text, compared with dense attention"}});
  return help;
}

}  // namespace hata::eval
