// A vocabulary for tests that need no model.
#pragma once

#include <string>
#include <vector>

#include "eval/tokenizer.h"

namespace hata::eval {

// A vocabulary of single characters and 300 words, the same everywhere.
class PlainTokenizer final : public Tokenizer {
 public:
  explicit PlainTokenizer(int n_words = 300) {
    for (int i = 0; i < n_words; ++i) {
      words_.push_back({'w', static_cast<char>('a' + i / 26), static_cast<char>('a' + i % 26)});
    }
  }
  std::vector<Token> encode(std::string_view text) const override {
    std::vector<Token> tokens;
    while (!text.empty()) {
      size_t length = 1;
      Token token = static_cast<unsigned char>(text[0]);
      for (size_t w = 0; w < words_.size(); ++w) {
        if (text[0] == ' ' && text.substr(1, words_[w].size()) == words_[w]) {
          token = static_cast<Token>(256 + w);
          length = 1 + words_[w].size();
        }
      }
      tokens.push_back(token);
      text.remove_prefix(length);
    }
    return tokens;
  }
  std::string decode(std::span<const Token> tokens) const override {
    std::string text;
    for (const Token t : tokens) {
      text += t < 256 ? std::string(1, static_cast<char>(t))
                      : " " + words_[static_cast<size_t>(t) - 256];
    }
    return text;
  }
  std::vector<Token> start() const override { return {1}; }
  const std::vector<std::string>& words() const override { return words_; }

 private:
  std::vector<std::string> words_;
};

}  // namespace hata::eval
