#include "eval/encode.h"

#include <algorithm>

namespace hata::eval {

std::vector<Token> encode_document(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<Token> tokens = tokenizer.start();
  const auto body = tokenizer.encode(text);
  tokens.insert(tokens.end(), body.begin(), body.end());
  return tokens;
}

std::vector<Token> encode_continuation(const Tokenizer& tokenizer, std::string_view text) {
  // What follows a line break, less the line break. Where the two make one token, the text alone.
  const auto line_break = tokenizer.encode("\n");
  const auto both = tokenizer.encode("\n" + std::string(text));
  if (both.size() < line_break.size() ||
      !std::equal(line_break.begin(), line_break.end(), both.begin())) {
    return tokenizer.encode(text);
  }
  return {both.begin() + static_cast<int64_t>(line_break.size()), both.end()};
}

std::vector<TokenRange> token_ranges(const Tokenizer& tokenizer, const std::vector<Token>& tokens,
                                     std::string_view text, const std::vector<ByteRange>& ranges) {
  const size_t n_start = tokenizer.start().size();
  // Where each token ends, in bytes; a space that the tokenizer puts before the text comes first.
  std::vector<size_t> ends(tokens.size(), 0);
  size_t end = 0;
  for (size_t i = n_start; i < tokens.size(); ++i) {
    ends[i] = end += tokenizer.decode({&tokens[i], 1}).size();
  }
  const size_t shift = end > text.size() ? end - text.size() : 0;

  std::vector<TokenRange> found;
  for (const ByteRange& range : ranges) {
    const auto first = std::upper_bound(ends.begin() + static_cast<int64_t>(n_start), ends.end(),
                                        range.begin + shift);
    const auto last = std::lower_bound(first, ends.end(), range.end + shift);
    found.push_back(
        {first - ends.begin(), std::min<int64_t>(last - ends.begin() + 1, std::ssize(tokens))});
  }
  return found;
}

}  // namespace hata::eval
