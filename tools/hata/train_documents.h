// The documents that codes are trained on: the user's texts, or synthetic ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/session.h"

namespace hata::cli {

class TrainingDocuments {
 public:
  /// Texts are cut into documents of n_tokens. Without texts, documents full of facts, with
  /// questions about them at the end, in the model's own words where it has them. Throws Error
  /// where a text cannot be read or all of them are shorter than one document.
  TrainingDocuments(const eval::Tokenizer& tokenizer, const std::vector<std::string>& texts,
                    int64_t n_tokens, int64_t n_documents, uint64_t seed);

  int64_t size() const { return n_documents_; }
  /// Exactly n_tokens tokens.
  std::vector<eval::Token> make(int64_t number) const;
  /// What they are made of, in a line.
  const std::string& description() const { return description_; }

 private:
  void cut_texts(const std::vector<std::string>& texts);
  std::vector<eval::Token> synthetic(int64_t number) const;

  const eval::Tokenizer& tokenizer_;
  int64_t n_tokens_, n_documents_;
  uint64_t seed_;
  bool own_words_ = false;
  std::vector<std::vector<eval::Token>> cut_;
  std::string description_;
};

}  // namespace hata::cli
