// Between text and tokens, for tasks that are written as text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/sample.h"
#include "eval/tokenizer.h"

namespace hata::eval {

/// A text that begins a document: with what the model wants at the start.
std::vector<Token> encode_document(const Tokenizer& tokenizer, std::string_view text);

/// A text that goes on after another: without the space that some tokenizers put before a text.
std::vector<Token> encode_continuation(const Tokenizer& tokenizer, std::string_view text);

/// Bytes of a text: begin .. end-1.
struct ByteRange {
  size_t begin, end;
};

/// The tokens of encode_document(text) that hold these bytes, in whole or in part. Ranges ascend by
/// their begin. Where a token is no part of the text (a normalised character), places are near.
std::vector<TokenRange> token_ranges(const Tokenizer& tokenizer, const std::vector<Token>& tokens,
                                     std::string_view text, const std::vector<ByteRange>& ranges);

}  // namespace hata::eval
