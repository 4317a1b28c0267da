#include "eval/ruler_draft.h"

#include <algorithm>
#include <set>

#include "eval/words.h"

namespace hata::eval {

const char* const kRulerNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

void append(Draft& draft, const std::vector<Unit>& units, const std::string& separator) {
  for (size_t i = 0; i < units.size(); ++i) {
    if (i > 0) draft.text += separator;
    const size_t begin = draft.text.size();
    draft.text += units[i].text;
    if (units[i].query < 0) continue;
    draft.queries[static_cast<size_t>(units[i].query)].evidence.push_back(
        {begin, draft.text.size()});
  }
}

std::vector<Unit> mix(std::vector<Unit> hay, std::vector<std::pair<size_t, Unit>> added) {
  std::stable_sort(added.begin(), added.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Unit> units;
  auto next = added.begin();
  for (size_t i = 0; i <= hay.size(); ++i) {
    for (; next != added.end() && (next->first <= i || i == hay.size()); ++next) {
      units.push_back(std::move(next->second));
    }
    if (i < hay.size()) units.push_back(std::move(hay[i]));
  }
  return units;
}

std::vector<size_t> different_places(Random& random, size_t n, size_t end) {
  std::set<size_t> places;
  while (places.size() < std::min(n, end)) places.insert(random.below(end));
  return {places.begin(), places.end()};
}

std::string random_word(Random& random) {
  const auto words = word_list();
  return std::string(words[random.below(words.size())]);
}

std::string random_word_pair(Random& random) {
  const std::string first = random_word(random);
  return first + "-" + random_word(random);
}

std::string random_letters(Random& random, char first, int n) {
  std::string text;
  for (int i = 0; i < n; ++i)
    text += static_cast<char>(first + static_cast<char>(random.below(26)));
  return text;
}

std::string random_number(Random& random, int n_digits) {
  std::string text(1, static_cast<char>('1' + random.below(9)));
  while (std::ssize(text) < n_digits) text += static_cast<char>('0' + random.below(10));
  return text;
}

}  // namespace hata::eval
