#include <algorithm>
#include <charconv>
#include <cmath>

#include "hata/selector.h"

namespace hata {

int64_t Budget::of(int64_t n_valid) const {
  const int64_t n = share > 0.0 ? std::llround(share * static_cast<double>(n_valid)) : tokens;
  return std::max({n, floor, int64_t{1}});
}

std::string Budget::text() const {
  if (share <= 0.0) return std::to_string(tokens);
  std::string digits(32, '\0');
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), share * 100.0,
                                 std::chars_format::general, 6);
  digits.resize(static_cast<size_t>(end.ptr - digits.data()));
  return digits + "%";
}

Budget Budget::parse(std::string_view text) {
  const auto refuse = [&](const char* why) {
    throw Error("budget '" + std::string(text) + "': " + why +
                "; give a number of keys (512) or a share of the context (1.56%)");
  };
  const char* const end = text.data() + text.size();
  Budget budget;
  if (!text.empty() && text.back() == '%') {
    double percent = 0.0;
    const auto read = std::from_chars(text.data(), end - 1, percent);
    if (read.ec != std::errc() || read.ptr != end - 1) refuse("not a number");
    if (!(percent > 0.0 && percent <= 100.0)) refuse("a share must be above 0 and at most 100%");
    budget.share = percent / 100.0;
    return budget;
  }
  const auto read = std::from_chars(text.data(), end, budget.tokens);
  if (read.ec == std::errc::result_out_of_range) refuse("too large");
  if (read.ec != std::errc() || read.ptr != end) refuse("not a whole number");
  if (budget.tokens <= 0) refuse("must be at least 1");
  return budget;
}

}  // namespace hata
