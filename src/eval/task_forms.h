// The forms of the tasks in the model's own words: what each writes into a document and asks.
#pragma once

#include <span>
#include <string>

#include "eval/author.h"

namespace hata::eval {

/// Facts in a haystack, several questions about them.
struct FactTask {
  const char* name;
  const char* help;
  Hay hay;
  /// A fact of this kind, to see how many fill a document.
  std::string (*sample)(Author& author);
  /// How many facts to write, where `full` would fill the document.
  int (*count)(int full, int asked);
  /// Writes n facts and asks about the first `asked` of them (their places are random).
  void (*write)(Author& author, int n, int asked);
};

/// One list of words that fills the document, one question about it.
struct ListTask {
  const char* name;
  const char* help;
  void (*write)(Author& author, size_t n_tokens);
};

std::span<const FactTask> fact_tasks();
/// Those whose questions are hundreds of tokens long: slow, and asked by name.
std::span<const FactTask> long_tasks();
std::span<const ListTask> list_tasks();

}  // namespace hata::eval
