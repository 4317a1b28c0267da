// What the tasks need of a model's vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hata::eval {

using Token = int32_t;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// The tokens of a text, no special ones added.
  virtual std::vector<Token> encode(std::string_view text) const = 0;
  virtual std::string decode(std::span<const Token> tokens) const = 0;
  /// What a document starts with; empty where the model wants nothing.
  virtual std::vector<Token> start() const = 0;
  /// The words of the list (words.h) that are a single token with their leading space.
  virtual const std::vector<std::string>& words() const = 0;
};

}  // namespace hata::eval
