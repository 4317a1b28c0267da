// The list of methods: their names, parameters and makers.
#include <algorithm>
#include <functional>

#include "methods/methods.h"

namespace hata {
namespace {

// Dense attention, as a method among others: every row attends to all its valid keys.
class Dense final : public Selector {
 public:
  std::string_view name() const override { return "dense"; }
  bool sparse() const override { return false; }
  std::unique_ptr<KeyStore> make_store(int, const HeadShape&, int64_t) const override {
    return nullptr;
  }
  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<Scratch>(); }
  void select(const Step&, std::span<const RowPlan>, LayerCache&, Scratch&, Selection&,
              StageCounters&, const Worker&) const override {}
};

constexpr const char* kSinkHelp = "first tokens always kept, inside the budget";
constexpr const char* kRecentHelp =
    "last tokens always kept, inside the budget; k/4 or 0.25k: a part of it; -1: min(32, k/2), or "
    "what hata's trained weights say of a layer";

constexpr const char* kScoreHelp =
    "sum: of the heads' distances; squares: of each head's agreement beyond chance";
constexpr const char* kRbitHelp = "bits of a random code: 64, 128 or 256";
constexpr const char* kSeedHelp = "of the random projection";
constexpr const char* kRerankHelp =
    "2 to 16: so many times the budget are ranked again by their keys; 0: none";
constexpr const char* kRerankKeysHelp =
    "from 4-bit copies (q4) or from the cache (cache), which is slower";

constexpr MethodParam kHataParams[] = {
    {"sink", "", kSinkHelp},
    {"recent", "", kRecentHelp},
    {"lengths", "", "key lengths in the score"},
    {"score", "", kScoreHelp},
    {"weights", "auto", "trained codes: those of the model, off (random), or a file"},
    {"rbit", "", kRbitHelp},
    {"seed", "", kSeedHelp},
    {"rerank", "", kRerankHelp},
    {"rerank-keys", "q4", kRerankKeysHelp},
};
constexpr MethodParam kPaperParams[] = {
    {"sink", "0", kSinkHelp},
    {"recent", "0", kRecentHelp},
    {"score", "sum", kScoreHelp},
    {"weights", "auto", "trained codes: the model's by the paper's objective, off, or a file"},
    {"rbit", "", kRbitHelp},
    {"seed", "", kSeedHelp},
    {"rerank", "0", kRerankHelp},
    {"rerank-keys", "q4", kRerankKeysHelp},
};
constexpr MethodParam kRandomParams[] = {
    {"sink", "0", kSinkHelp},
    {"recent", "0", kRecentHelp},
    {"score", "sum", kScoreHelp},
    {"rbit", "", kRbitHelp},
    {"seed", "", kSeedHelp},
    {"rerank", "0", kRerankHelp},
    {"rerank-keys", "q4", kRerankKeysHelp},
};
constexpr MethodParam kWindowParams[] = {
    {"sink", "0", kSinkHelp},
    {"recent", "0", kRecentHelp},
};
constexpr MethodParam kQuestParams[] = {
    {"page", "16", "keys of a page: a divisor of 64"},
    {"last", "on", "the page of the newest key is always chosen"},
    {"sink", "0", kSinkHelp},
    {"recent", "0", kRecentHelp},
};
constexpr MethodParam kLokiParams[] = {
    {"channels", "32", "principal components that are read"},
    {"sink", "0", kSinkHelp},
    {"recent", "0", kRecentHelp},
};
constexpr MethodParam kSparqParams[] = {
    {"channels", "32", "channels that are read"},
    {"mean", "on", "the mean value stands for the keys left out"},
    {"sink", "0", kSinkHelp},
    {"recent", "k/4", kRecentHelp},
};
constexpr MethodParam kMagicpigParams[] = {
    {"k", "10", "bits of a hash"},
    {"l", "150", "hashes of a key"},
    {"sink", "4", kSinkHelp},
    {"recent", "64", kRecentHelp},
    {"seed", "", "of the random directions"},
};
constexpr MethodParam kH2oParams[] = {
    {"sink", "0", kSinkHelp},
    {"recent", "k/2", kRecentHelp},
};
constexpr MethodParam kSnapkvParams[] = {
    {"pool", "7", "neighbouring keys whose largest vote counts"},
    {"sink", "0", kSinkHelp},
    {"recent", "32", kRecentHelp},
};
constexpr MethodParam kStreamingParams[] = {
    {"sink", "4", kSinkHelp},
};

struct Entry {
  MethodInfo info;
  std::shared_ptr<const Selector> (*make)(const Spec& spec, const HataOptions& options);
};

constexpr Entry kMethods[] = {
    {{"hata", "hash codes with key lengths and a window of recent keys", kHataParams}, make_hata},
    {{"hata-paper", "the paper's rule: summed Hamming distance alone (without weights: random)",
      kPaperParams},
     make_hata},
    {{"random", "summed Hamming distance of random codes: the floor", kRandomParams}, make_hata},
    {{"exact-logit", "top-k by q.k summed over the group", kWindowParams},
     [](const Spec& spec, const HataOptions&) { return make_exact_logit(spec); }},
    {{"exact-prob", "top-k by probability summed over the group: the ceiling", kWindowParams},
     [](const Spec& spec, const HataOptions&) { return make_exact_prob(spec); }},
    {{"quest", "Quest: pages, by a bound of their keys' logits", kQuestParams},
     [](const Spec& spec, const HataOptions&) { return make_quest(spec); }},
    {{"loki", "Loki: the keys' first principal components", kLokiParams},
     [](const Spec& spec, const HataOptions&) { return make_loki(spec); }},
    {{"sparq", "SparQ: the channels in which the queries are largest", kSparqParams},
     [](const Spec& spec, const HataOptions&) { return make_sparq(spec); }},
    {{"magicpig", "MagicPIG: sampling by locality-sensitive hashes, up to the budget",
      kMagicpigParams},
     [](const Spec& spec, const HataOptions& options) {
       return make_magicpig(spec, options.seed);
     }},
    {{"streaming", "StreamingLLM: the first tokens and the last", kStreamingParams},
     [](const Spec& spec, const HataOptions&) { return make_streaming(spec); }},
    {{"h2o", "H2O: the keys most looked at so far (needs observe=on)", kH2oParams},
     [](const Spec& spec, const HataOptions&) { return make_h2o(spec); }},
    {{"snapkv", "SnapKV: the keys that the prompt's end looked at (needs observe=on)",
      kSnapkvParams},
     [](const Spec& spec, const HataOptions&) { return make_snapkv(spec); }},
    {{"dense", "every key", {}},
     [](const Spec&, const HataOptions&) -> std::shared_ptr<const Selector> {
       return std::make_shared<Dense>();
     }},
};

}  // namespace

std::vector<MethodInfo> methods() {
  std::vector<MethodInfo> infos;
  for (const Entry& entry : kMethods) infos.push_back(entry.info);
  return infos;
}

std::vector<std::string> selector_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kMethods) names.emplace_back(entry.info.name);
  return names;
}

std::string methods_help() {
  std::string text;
  const auto line = [&](std::string left, size_t width, std::string_view right) {
    left.resize(std::max(left.size() + 1, width), ' ');
    text += left + std::string(right) + "\n";
  };
  for (const Entry& entry : kMethods) {
    line(std::string(entry.info.name), 14, entry.info.help);
    for (const MethodParam& param : entry.info.params) {
      line("  :" + std::string(param.key) + "=" + std::string(param.value), 18, param.help);
    }
  }
  return text;
}

std::shared_ptr<const Selector> make_selector(std::string_view spec, const HataOptions& options) {
  const std::string_view name = Spec::name_of(spec);
  std::string known;
  for (const Entry& entry : kMethods) {
    if (entry.info.name == name) return entry.make(Spec(spec, entry.info), options);
    known += (known.empty() ? "" : ", ") + std::string(entry.info.name);
  }
  throw Error("method '" + std::string(name) + "' is unknown; there are " + known);
}

}  // namespace hata
