#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/numbers.h"
#include "hata/selector.h"
#include "hata/weights.h"

namespace hata {
namespace {

// "12.5%"; the shortest text that gives the number again.
std::string number_text(double number) {
  char digits[32];
  const auto end =
      std::to_chars(digits, digits + sizeof(digits), number, std::chars_format::general, 6);
  return {digits, end.ptr};
}

double parse_number(std::string_view text) {
  double number = 0.0;
  if (!read_number(text, number) || !std::isfinite(number)) throw Error("not a number");
  return number;
}

int64_t parse_tokens(std::string_view text) {
  int64_t tokens = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, tokens);
  if (read.ec == std::errc::result_out_of_range) throw Error("too large");
  if (read.ec != std::errc() || read.ptr != end) throw Error("not a whole number");
  if (tokens <= 0) throw Error("must be at least 1");
  return tokens;
}

Budget parse_fixed(std::string_view text) {
  Budget budget;
  if (!text.ends_with('%')) {
    budget.tokens = parse_tokens(text);
    return budget;
  }
  const double percent = parse_number(text.substr(0, text.size() - 1));
  if (!(percent > 0.0 && percent <= 100.0)) throw Error("a share must be above 0 and at most 100%");
  budget.share = percent / 100.0;
  return budget;
}

Budget parse_any(std::string_view text) {
  constexpr std::string_view kAuto = "auto:";
  if (!text.starts_with(kAuto)) return parse_fixed(text);
  const std::string_view rest = text.substr(kAuto.size());
  const size_t colon = rest.find(':');
  Budget budget{.share = Budget::kAutoShare};
  if (colon != std::string_view::npos) budget = parse_fixed(rest.substr(colon + 1));
  budget.mass = parse_number(rest.substr(0, colon));
  if (!(budget.mass > 0.0 && budget.mass < 1.0))
    throw Error("the attention kept is between 0 and 1");
  return budget;
}

}  // namespace

int64_t Budget::of(int64_t n_valid) const {
  const int64_t n = share > 0.0 ? std::llround(share * static_cast<double>(n_valid)) : tokens;
  return std::max({n, floor, int64_t{1}});
}

int64_t Budget::of(int64_t n_valid, const KeptMass& kept, int head) const {
  const double longer =
      std::max(1.0, static_cast<double>(n_valid) / static_cast<double>(kept.n_keys));
  const int64_t needed = std::llround(static_cast<double>(kept.needed(head, mass)) * longer);
  return std::min(of(n_valid), std::max(kAutoFloor, needed));
}

std::string Budget::text() const {
  const std::string most = share > 0.0 ? number_text(share * 100.0) + "%" : std::to_string(tokens);
  return mass > 0.0 ? "auto:" + number_text(mass) + ":" + most : most;
}

Budget Budget::parse(std::string_view text) {
  try {
    return parse_any(text);
  } catch (const Error& why) {
    throw Error("budget '" + std::string(text) + "': " + why.what() +
                "; give a number of keys (512), a share of the context (1.56%), or auto:0.99 (as "
                "many as keep so much of the attention, by trained weights)");
  }
}

int64_t KeptMass::needed(int head, double wanted) const {
  const size_t n = budgets.size();
  const float* at = mass.data() + static_cast<size_t>(head) * n;
  size_t i = 0;
  while (i + 1 < n && static_cast<double>(at[i]) < wanted) ++i;
  const double above = static_cast<double>(at[i]);
  if (i == 0 || above < wanted) return budgets[i];
  const double below = static_cast<double>(at[i - 1]);
  const double part = above > below ? (wanted - below) / (above - below) : 1.0;
  const double from = std::log(static_cast<double>(budgets[i - 1]));
  const double to = std::log(static_cast<double>(budgets[i]));
  return static_cast<int64_t>(std::ceil(std::exp(from + part * (to - from)) - 1e-6));
}

}  // namespace hata
