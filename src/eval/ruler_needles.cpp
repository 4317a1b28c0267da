// RULER's needles in a haystack (its task niah).
#include <algorithm>
#include <set>
#include <span>

#include "eval/ruler_draft.h"

namespace hata::eval {
namespace {

enum class Haystack { noise, essay, needles };
enum class Kind { words, numbers, uuids };

struct Needles {
  Haystack haystack = Haystack::essay;
  Kind key = Kind::words, value = Kind::numbers;
  int keys = 1;     // in a document, at least
  int values = 1;   // of a key
  int queried = 1;  // keys of a query
};

std::string uuid(Random& random) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (int i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) text += '-';
    size_t digit = random.below(16);
    if (i == 12) digit = 4;              // version 4: random
    if (i == 16) digit = 8 + digit % 4;  // the variant
    text += kHex[digit];
  }
  return text;
}

std::string make(Random& random, Kind kind) {
  switch (kind) {
    case Kind::words:
      return random_word_pair(random);
    case Kind::numbers:
      return random_number(random, 7);
    default:
      return uuid(random);
  }
}

std::string new_key(Random& random, Kind kind, std::set<std::string>& seen) {
  std::string key;
  do {
    key = make(random, kind);
  } while (!seen.insert(key).second);
  return key;
}

std::string noun(Kind kind, bool plural) {
  std::string text = kind == Kind::numbers ? "numbers" : kind == Kind::uuids ? "uuids" : "words";
  if (!plural) text.pop_back();
  return text;
}

std::string needle(Kind kind, const std::string& key, const std::string& value) {
  return "One of the special magic " + noun(kind, true) + " for " + key + " is: " + value + ".";
}

std::string head(Kind kind, bool plural) {
  const std::string what = noun(kind, plural);
  return std::string(plural ? "Some" : "A") + " special magic " + what + (plural ? " are" : " is") +
         " hidden within the following text. Make sure to memorize it. I will quiz you about the " +
         what + " afterwards.\n";
}

int n_keys(const Needles& needles, int n_queries) {
  return std::max(needles.keys, n_queries * needles.queried);
}

std::vector<Unit> make_hay(Random& random, const Needles& needles, int64_t n,
                           std::set<std::string>& seen) {
  std::vector<Unit> hay;
  for (int64_t i = 0; i < n; ++i) {
    switch (needles.haystack) {
      case Haystack::noise:
        hay.push_back({kRulerNoise});
        break;
      case Haystack::essay:
        hay.push_back({prose_sentence(random)});
        break;
      case Haystack::needles: {
        const std::string key = new_key(random, needles.key, seen);
        hay.push_back({needle(needles.value, key, make(random, needles.value))});
      }
    }
  }
  return hay;
}

struct Key {
  std::string name;
  std::vector<std::string> values;
};

std::vector<Key> make_keys(Random& random, const Needles& needles, int n,
                           std::set<std::string>& seen) {
  std::vector<Key> keys(static_cast<size_t>(n));
  for (Key& key : keys) {
    key.name = new_key(random, needles.key, seen);
    for (int v = 0; v < needles.values; ++v) key.values.push_back(make(random, needles.value));
  }
  return keys;
}

DraftQuery ask(Kind kind, std::span<const Key> keys, bool plural) {
  std::string list;
  std::vector<std::string> answers;
  for (const Key& key : keys) {
    if (!list.empty()) list += &key == &keys.back() ? ", and " : ", ";
    list += key.name;
    answers.insert(answers.end(), key.values.begin(), key.values.end());
  }
  const std::string what =
      " special magic " + noun(kind, plural) + " for " + list + " mentioned in the provided text";
  return {.question = (plural ? "What are all the" : "What is the") + what + "?",
          .answer_prefix = " The" + what + (plural ? " are" : " is"),
          .answers = answers};
}

Draft draft_needles(Random random, const DraftOrder& order, const Needles& needles) {
  std::set<std::string> seen;
  const auto keys = make_keys(random, needles, n_keys(needles, order.n_queries), seen);
  const auto n_asked = static_cast<size_t>(order.n_queries * needles.queried);
  const bool plural = needles.queried * needles.values > 1;

  Draft draft;
  for (size_t first = 0; first < n_asked; first += needles.queried) {
    draft.queries.push_back(ask(needles.value, {&keys[first], size_t(needles.queried)}, plural));
  }
  std::vector<Unit> hidden;
  for (size_t k = 0; k < keys.size(); ++k) {
    const int query = k < n_asked ? static_cast<int>(k) / needles.queried : -1;
    for (const std::string& value : keys[k].values) {
      hidden.push_back({needle(needles.value, keys[k].name, value), query});
    }
  }
  random.shuffle(hidden);
  Random hay_random(random.next());  // the same hay for any number of units
  std::vector<std::pair<size_t, Unit>> added;
  for (const size_t place :
       different_places(random, hidden.size(), static_cast<size_t>(order.n_units))) {
    added.emplace_back(place, hidden[added.size()]);
  }

  draft.text = head(needles.value, plural || order.n_queries > 1);
  append(draft, mix(make_hay(hay_random, needles, order.n_units, seen), std::move(added)),
         needles.haystack == Haystack::essay ? " " : "\n");
  draft.text += "\n";
  return draft;
}

// A task of fixed parameters: functions that a table can hold.
template <Needles kNeedles>
RulerTask task(const char* name, const char* help) {
  return {name, help, 128,
          [](int n_queries) {
            return static_cast<int64_t>(n_keys(kNeedles, n_queries)) * kNeedles.values;
          },
          [](Random random, const DraftOrder& order) {
            return draft_needles(random, order, kNeedles);
          }};
}

}  // namespace

std::vector<RulerTask> ruler_needle_tasks() {
  return {
      task<Needles{.haystack = Haystack::noise}>("niah_single_1", "a number for a key, in noise"),
      task<Needles{}>("niah_single_2", "a number for a key, in prose"),
      task<Needles{.value = Kind::uuids}>("niah_single_3", "a uuid for a key, in prose"),
      task<Needles{.keys = 4}>("niah_multikey_1", "the number of one key of four, in prose"),
      task<Needles{.haystack = Haystack::needles}>("niah_multikey_2",
                                                   "the number of one key, among needles alone"),
      task<Needles{.haystack = Haystack::needles, .key = Kind::uuids, .value = Kind::uuids}>(
          "niah_multikey_3", "the uuid of one uuid, among needles alone"),
      task<Needles{.values = 4}>("niah_multivalue", "the four numbers of a key, in prose"),
      task<Needles{.queried = 4}>("niah_multiquery", "the numbers of four keys, in prose"),
  };
}

}  // namespace hata::eval
