#include "eval/summary.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

namespace hata::eval {
namespace {

constexpr Bounds kScore{0, 1}, kDifference{-1, 1};
constexpr const char* kReference = "dense";
constexpr size_t kPositions = 32;  // points of the curve of KL over position

// The records of one length and setting, by document.
using Records = std::map<DocumentKey, const Record*>;

Records select(const Results& results, int64_t n_ctx, const std::string& setting) {
  Records records;
  for (const Record& record : results.records) {
    if (record.key.n_ctx == n_ctx && record.setting == setting) records[record.key] = &record;
  }
  return records;
}

Json or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }
Json ratio(double a, double b) { return b > 0 ? Json(a / b) : Json(); }

Json estimate_json(const Estimate& e) {
  if (e.n == 0) return {};
  return {{"n", e.n}, {"mean", e.mean}, {"low", e.low}, {"high", e.high}};
}

Cluster scores_of(const Record& record) {
  Cluster scores;
  for (const QueryResult& query : record.queries) scores.push_back(query.score);
  return scores;
}

using Strata = std::map<std::string, Stratum>;

Strata scores_by_task(const Records& records) {
  Strata strata;
  for (const auto& [key, record] : records) {
    if (!record->queries.empty()) strata[key.task].push_back(scores_of(*record));
  }
  return strata;
}

Strata differences_by_task(const Records& records, const Records& reference) {
  Strata strata;
  for (const auto& [key, record] : records) {
    const auto other = reference.find(key);
    if (other == reference.end() || record->queries.empty()) continue;
    strata[key.task].push_back(difference(scores_of(*record), scores_of(*other->second)));
  }
  return strata;
}

Estimate estimate(const Strata& strata, const Bounds& bounds, uint64_t seed) {
  std::vector<Stratum> all;
  for (const auto& [task, stratum] : strata) all.push_back(stratum);
  return bootstrap(all, bounds, seed);
}

void add_difference(const Strata& differences, uint64_t seed, Json& json) {
  const Estimate d = estimate(differences, kDifference, seed);
  json["difference"] = estimate_json(d);
  json["verdict"] = d.n > 0 ? Json(verdict(d)) : Json();
}

// --- what the host counted

void add_counters(const Records& records, Json& row) {
  StageCounters c;
  double steps = 0, ns = 0;
  for (const auto& [key, record] : records) {
    c += record->counters;
    steps += static_cast<double>(record->text.steps);
    ns += static_cast<double>(record->text.ns);
    for (const QueryResult& query : record->queries) {
      steps += static_cast<double>(query.steps);
      ns += static_cast<double>(query.ns);
    }
  }
  const auto sparse = static_cast<double>(c.sparse_rows), dense = static_cast<double>(c.dense_rows);
  // Layers that stay dense are counted in the sums; within a step all layers hold the same keys.
  const double of_dense = sparse + dense > 0 ? dense / (sparse + dense) : 0.0;
  const double rows = sparse > 0 ? sparse : dense;
  const double left = sparse > 0 ? of_dense : 0.0;
  const auto apart = [&](int64_t sum, int64_t all) {
    return ratio(static_cast<double>(sum) - left * static_cast<double>(all), rows);
  };
  row["keys"] = apart(c.keys_attended, c.keys_valid);
  row["choose_bytes"] = ratio(static_cast<double>(c.choose_bytes), rows);
  row["attend_bytes"] = apart(c.attend_bytes, c.dense_bytes);
  row["share_of_bytes"] = ratio(static_cast<double>(c.choose_bytes + c.attend_bytes),
                                static_cast<double>(c.dense_bytes));
  row["ns_per_step"] = ratio(ns, steps);
  row["sparse_share"] = ratio(sparse, sparse + dense);
}

// --- inspection

LayerCounts layers_of(const Records& records) {
  LayerCounts sum;
  for (const auto& [key, record] : records) {
    for (const auto& [layer, heads] : record->layers) {
      auto& into = sum[layer];
      into.resize(std::max(into.size(), heads.size()));
      for (size_t head = 0; head < heads.size(); ++head) into[head] += heads[head];
    }
  }
  return sum;
}

template <class T>
Json by_region(const std::array<T, kRegions>& part, const std::array<T, kRegions>& whole) {
  constexpr const char* kNames[kRegions] = {"sinks", "recent", "far"};
  double parts = 0, wholes = 0;
  Json json = {{"all", nullptr}};
  for (size_t r = 0; r < kRegions; ++r) {
    const auto a = static_cast<double>(part[r]), b = static_cast<double>(whole[r]);
    json[kNames[r]] = ratio(a, b);
    parts += a;
    wholes += b;
  }
  json["all"] = ratio(parts, wholes);
  return json;
}

void add_inspection(const LayerCounts& layers, Json& row) {
  HeadCounts sum;
  for (const auto& [layer, heads] : layers) {
    for (const HeadCounts& head : heads) sum += head;
  }
  row["kept"] = by_region(sum.kept, sum.mass);
  row["recall"] = by_region(sum.found, sum.best);
}

Json heads_json(const LayerCounts& layers) {
  Json json = Json::array();
  for (const auto& [layer, heads] : layers) {
    Json recall = Json::array(), far = Json::array(), kept = Json::array();
    for (const HeadCounts& head : heads) {
      recall.push_back(or_null(head.recall()));
      far.push_back(or_null(head.far_recall()));
      kept.push_back(or_null(head.kept_mass()));
    }
    json.push_back({{"layer", layer}, {"recall", recall}, {"far_recall", far}, {"kept", kept}});
  }
  return json;
}

// --- plain text

struct TextSums {
  double kl = 0, nll = 0, same = 0, n = 0;
  std::vector<double> kl_at, n_at;  // [position]
};

TextSums sum_text(const Records& records) {
  TextSums sums;
  for (const auto& [key, record] : records) {
    const TextResult& text = record->text;
    sums.kl_at.resize(std::max(sums.kl_at.size(), text.kl.size()));
    sums.n_at.resize(sums.kl_at.size());
    for (size_t i = 0; i < text.kl.size(); ++i) {
      sums.kl += text.kl[i];
      sums.nll += text.nll[i];
      sums.same += text.same[i];
      sums.n += 1;
      sums.kl_at[i] += text.kl[i];
      sums.n_at[i] += 1;
    }
  }
  return sums;
}

Json positions_json(const TextSums& sums) {
  Json json = Json::array();
  const size_t width = std::max<size_t>(1, (sums.kl_at.size() + kPositions - 1) / kPositions);
  for (size_t first = 0; first < sums.kl_at.size(); first += width) {
    double kl = 0, n = 0;
    for (size_t i = first; i < std::min(first + width, sums.kl_at.size()); ++i) {
      kl += sums.kl_at[i];
      n += sums.n_at[i];
    }
    json.push_back({{"position", first}, {"kl", ratio(kl, n)}});
  }
  return json;
}

void add_text(const Records& records, int64_t n_ctx, const std::string& setting, Json& rows) {
  std::map<std::string, Records> by_task;
  for (const auto& [key, record] : records) {
    if (!record->text.kl.empty()) by_task[key.task][key] = record;
  }
  for (const auto& [task, of_task] : by_task) {
    const TextSums sums = sum_text(of_task);
    rows.push_back({{"n_ctx", n_ctx},
                    {"setting", setting},
                    {"task", task},
                    {"n", static_cast<int64_t>(sums.n)},
                    {"kl", sums.kl / sums.n},
                    {"perplexity", std::exp(sums.nll / sums.n)},
                    {"same", sums.same / sums.n},
                    {"positions", positions_json(sums)}});
  }
}

// --- a row

Json summarize_setting(const Json& setting, int64_t n_ctx, const Records& records,
                       const Records& reference, const LayerCounts& layers, uint64_t seed) {
  Json row = {{"n_ctx", n_ctx}};
  for (const char* key : {"id", "method", "budget", "dense_layers"}) row[key] = setting.at(key);
  row["documents"] = records.size();
  const Strata scores = scores_by_task(records);
  const bool compared = setting.at("id") != kReference;
  const Strata differences = compared ? differences_by_task(records, reference) : Strata{};
  row["tasks"] = Json::object();
  for (const auto& [task, stratum] : scores) {
    Json& json = row["tasks"][task] = estimate_json(estimate({{task, stratum}}, kScore, seed));
    add_difference(differences.contains(task) ? Strata{{task, differences.at(task)}} : Strata{},
                   seed, json);
  }
  row["mean"] = estimate_json(estimate(scores, kScore, seed));
  add_difference(differences, seed, row);
  add_inspection(layers, row);
  add_counters(records, row);
  return row;
}

// The setting of another method that a setting is compared with; "" where there is none.
std::string counterpart(const Json& settings, const Json& setting, const std::string& method) {
  if (setting.at("method") == method) return "";
  for (const Json& other : settings) {
    if (other.at("method") == method && other.at("budget") == setting.at("budget") &&
        other.at("dense_layers") == setting.at("dense_layers")) {
      return other.at("id");
    }
  }
  return "";
}

}  // namespace

std::string verdict(const Estimate& difference) {
  if (as_good(difference)) return "as good";
  if (difference.high < 0) return "worse";
  return difference.low > 0 ? "better" : "open";
}

Json summarize(const Results& results, const std::string& against) {
  Json summary = {
      {"settings", results.settings}, {"against", against.empty() ? Json() : Json(against)},
      {"errors", results.errors},     {"rows", Json::array()},
      {"heads", Json::array()},       {"text", Json::array()}};
  std::set<int64_t> lengths;
  for (const Record& record : results.records) lengths.insert(record.key.n_ctx);
  const uint64_t seed = results.settings.at("seed");
  for (const int64_t n_ctx : lengths) {
    const Records reference = select(results, n_ctx, kReference);
    for (const Json& setting : results.settings.at("settings")) {
      const std::string id = setting.at("id");
      const Records records = select(results, n_ctx, id);
      if (records.empty()) continue;
      const LayerCounts layers = layers_of(records);
      Json& row = summary["rows"].emplace_back(
          summarize_setting(setting, n_ctx, records, reference, layers, seed));
      const std::string other = counterpart(results.settings.at("settings"), setting, against);
      if (!other.empty()) {
        const Strata differences = differences_by_task(records, select(results, n_ctx, other));
        row["against"] = estimate_json(estimate(differences, kDifference, seed));
      }
      if (!layers.empty()) {
        summary["heads"].push_back(
            {{"n_ctx", n_ctx}, {"setting", id}, {"layers", heads_json(layers)}});
      }
      add_text(records, n_ctx, id, summary["text"]);
    }
  }
  return summary;
}

}  // namespace hata::eval
