#include "eval/tasks.h"

#include <algorithm>

#include "eval/task_forms.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

template <class Form>
const Form* find(std::span<const Form> forms, const std::string& name) {
  const auto form = std::find_if(forms.begin(), forms.end(),
                                 [&](const Form& candidate) { return name == candidate.name; });
  return form == forms.end() ? nullptr : &*form;
}

[[noreturn]] void reject(const std::string& name) {
  std::string known;
  for (const auto& tasks : {word_task_help(), long_task_help()}) {
    for (const TaskHelp& task : tasks) known += (known.empty() ? "" : ", ") + task.name;
  }
  throw Error("task '" + name + "' is unknown; there are " + known);
}

void write_facts(Author& author, const FactTask& task, int64_t n_tokens, int n_questions) {
  const auto full = static_cast<int>(static_cast<size_t>(n_tokens) * 97 / 100 /
                                     author.length(task.sample(author)));
  task.write(author, task.count(full, n_questions), n_questions);
}

}  // namespace

std::vector<TaskHelp> word_task_help() {
  std::vector<TaskHelp> help;
  for (const FactTask& task : fact_tasks()) help.push_back({task.name, task.help});
  for (const ListTask& task : list_tasks()) help.push_back({task.name, task.help});
  return help;
}

std::vector<TaskHelp> long_task_help() {
  std::vector<TaskHelp> help;
  for (const FactTask& task : long_tasks()) help.push_back({task.name, task.help});
  return help;
}

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const TaskHelp& task : word_task_help()) names.push_back(task.name);
  return names;
}

Sample make_document(const Tokenizer& tokenizer, const std::string& name, int64_t n_tokens,
                     int n_questions, uint64_t seed) {
  Author author(tokenizer, seed);
  Hay hay = Hay::noise;
  const FactTask* task = find(fact_tasks(), name);
  if (task == nullptr) task = find(long_tasks(), name);
  if (task != nullptr) {
    write_facts(author, *task, n_tokens, n_questions);
    hay = task->hay;
  } else if (const ListTask* list = find(list_tasks(), name)) {
    list->write(author, static_cast<size_t>(n_tokens));
  } else {
    reject(name);
  }
  Sample sample = author.finish(hay, n_tokens);
  sample.task = name;
  sample.seed = seed;
  return sample;
}

Sample make_mixed_document(const Tokenizer& tokenizer, const std::vector<std::string>& tasks,
                           int64_t n_tokens, int per_task, uint64_t seed) {
  Author author(tokenizer, seed);
  for (const std::string& name : tasks) {
    const FactTask* task = find(fact_tasks(), name);
    if (task == nullptr) reject(name);
    task->write(author, 2 * per_task, per_task);
  }
  Sample sample = author.finish(Hay::text, n_tokens);
  sample.task = "mixed";
  sample.seed = seed;
  return sample;
}

}  // namespace hata::eval
