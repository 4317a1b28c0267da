#include <algorithm>
#include <charconv>

#include "core/numbers.h"
#include "hata/selector.h"

namespace hata {
namespace {

constexpr int64_t kDefaultTokens = 32;

bool read_share(std::string_view text, double& share) {
  if (text.starts_with("k/")) {
    int64_t part = 0;
    if (!read_number(text.substr(2), part) || part < 1) return false;
    share = 1.0 / static_cast<double>(part);
    return true;
  }
  return text.ends_with('k') && read_number(text.substr(0, text.size() - 1), share) &&
         share > 0.0 && share <= 1.0;
}

}  // namespace

int64_t Recent::of(int64_t budget) const {
  // 1/3 of 9 is 3, however 1/3 is rounded.
  if (share > 0.0) return static_cast<int64_t>(static_cast<double>(budget) * share + 1e-6);
  return tokens >= 0 ? std::min(tokens, budget) : std::min(kDefaultTokens, budget / 2);
}

std::string Recent::text() const {
  if (share == 0.0) return std::to_string(tokens);
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), share).ptr;
  return std::string(digits, end) + "k";
}

Recent Recent::parse(std::string_view text) {
  Recent recent;
  const bool good =
      read_share(text, recent.share) ||
      (read_number(text, recent.tokens) && recent.tokens >= -1 && recent.tokens <= kMost);
  if (good) return recent;
  throw Error("recent '" + std::string(text) +
              "': give a number of tokens (32), a part of the budget (0.75k or k/4), or -1 for "
              "min(32, budget / 2)");
}

}  // namespace hata
