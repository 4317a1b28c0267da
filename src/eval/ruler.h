// RULER's tasks in their own text form, for users' models: NVIDIA/RULER (Hsieh et al., 2024,
// arXiv 2404.06654), scripts/data/synthetic at commit c3f5e3b, the parameters of synthetic.yaml.
// Prompts (without a chat template), needle sentences, numbers, ids, variable names, lists, the
// one-shot examples of vt and cwe, answer prefixes, lengths of answers and scoring are RULER's.
//
// What differs:
// - several queries: a document can have many, each about needles or a chain of its own; it then
//   says that several are hidden. With n_queries 1 it is RULER's. cwe and fwe have one query.
// - essays: prose made from a seed (ruler_prose.cpp) stands for Paul Graham's essays, which are not
//   ours to give. Needles stand between its sentences, at any of them (RULER: at 40 depths).
// - words: pairs of this project's list ("memory-index") where RULER pairs adjectives and nouns of
//   a package; cwe lists words of that list, or such pairs where the list is too short.
// - vt's example has 14 lines of noise; RULER's fills 500 tokens.
// - length: prompt and answer stay within the limit as RULER's do, here with the start token; one
//   unit (sentence, line, word) more would exceed it.
// - the random numbers: no sample is equal to one of RULER's.
#pragma once

#include <string>
#include <vector>

#include "eval/sample.h"
#include "eval/tokenizer.h"

namespace hata::eval {

std::vector<TaskHelp> ruler_task_help();

/// A sample of at most `n_tokens` tokens: document, longest query and its answer. Throws Error on
/// an unknown task and where the shortest document is longer than that.
Sample make_ruler_sample(const Tokenizer& tokenizer, const std::string& task, int64_t n_tokens,
                         int n_queries, uint64_t seed);

}  // namespace hata::eval
