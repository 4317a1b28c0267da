// Prose without end: sentences of a few forms, filled from lists. Written for this project.
#include <iterator>

#include "eval/ruler_draft.h"

namespace hata::eval {
namespace {

constexpr const char* kWho[] = {"the clerk",     "an old teacher",        "the ferryman",
                                "her neighbour", "the night guard",       "a young baker",
                                "the surveyor",  "the librarian",         "his sister",
                                "the gardener",  "a retired judge",       "the printer",
                                "the shepherd",  "an apprentice",         "the station master",
                                "the violinist", "a travelling salesman", "the miller",
                                "the innkeeper", "a patient nurse",       "the carpenter",
                                "the mapmaker",  "a quiet student",       "the fisherman"};
constexpr const char* kDid[] = {"repaired",     "carried home", "gave away",
                                "forgot about", "wrote down",   "painted over",
                                "looked after", "argued about", "measured",
                                "hid",          "sold",         "borrowed",
                                "described",    "remembered",   "took apart",
                                "counted",      "kept",         "waited for",
                                "asked for",    "paid for",     "complained about",
                                "dreamed of",   "searched for", "returned"};
constexpr const char* kThing[] = {
    "the wooden boat",      "a letter without a stamp", "the broken clock",
    "a basket of apples",   "the long report",          "an umbrella",
    "the garden wall",      "a box of buttons",         "the second key",
    "a pair of boots",      "the parish records",       "an unpaid bill",
    "the map of the coast", "a borrowed ladder",        "the winter coat",
    "a jar of honey",       "the guest list",           "a bag of flour",
    "the iron stove",       "a roll of cloth",          "the old photographs",
    "a dictionary",         "the kitchen table",        "a bundle of letters"};
constexpr const char* kWhere[] = {
    "at the harbour",         "near the mill",        "behind the school",
    "in the upper village",   "by the river",         "on the market square",
    "in the attic",           "under the bridge",     "at the edge of town",
    "in the railway station", "beside the orchard",   "in a rented room",
    "along the canal",        "on the northern road", "in the reading room",
    "at the foot of the hill"};
constexpr const char* kWhen[] = {"before noon",
                                 "in the first week of spring",
                                 "after the long rain",
                                 "on market day",
                                 "late in the evening",
                                 "during the holidays",
                                 "a year later",
                                 "when the snow came",
                                 "early in the morning",
                                 "once the shops had closed",
                                 "in the dry summer",
                                 "that same night",
                                 "before the bell rang",
                                 "on the way home",
                                 "at the end of the month",
                                 "without hurry"};
constexpr const char* kWhy[] = {"because nobody else would",
                                "although it was none of their business",
                                "which surprised the whole street",
                                "as people did in those years",
                                "and nothing more was said",
                                "while the others played cards",
                                "since the price had fallen again",
                                "and that was the end of the matter",
                                "though the roof still leaked",
                                "so that there was something to talk about",
                                "as if there were no other way",
                                "and the dog slept through all of it",
                                "since it had been promised",
                                "which took longer than expected",
                                "and everyone agreed it was better so",
                                "although the light was poor"};

template <size_t N>
std::string pick(Random& random, const char* const (&list)[N]) {
  return list[random.below(N)];
}

}  // namespace

std::string prose_sentence(Random& random) {
  const std::string who = pick(random, kWho), did = pick(random, kDid);
  const std::string thing = pick(random, kThing), where = pick(random, kWhere);
  const std::string when = pick(random, kWhen), why = pick(random, kWhy);
  std::string text;
  switch (random.below(5)) {
    case 0:
      text = who + " " + did + " " + thing + " " + where + " " + when + ".";
      break;
    case 1:
      text = when + " " + who + " " + did + " " + thing + ", " + why + ".";
      break;
    case 2:
      text = where + ", " + who + " " + did + " " + thing + " " + why + ".";
      break;
    case 3:
      text = "it was " + who + " who " + did + " " + thing + " " + when + ", " + why + ".";
      break;
    default:
      text = who + " " + did + " " + thing + ", and " + pick(random, kWho) + " " +
             pick(random, kDid) + " " + pick(random, kThing) + " " + where + ".";
  }
  text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

}  // namespace hata::eval
