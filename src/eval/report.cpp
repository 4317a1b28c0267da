#include "eval/report.h"

#include <string_view>

namespace hata::eval {
namespace {

constexpr std::string_view kPage =
#include "report.html.inc"
    ;
constexpr std::string_view kStyle =
#include "report.css.inc"
    ;
constexpr std::string_view kScript =
#include "report.js.inc"
    ;

void put(std::string& page, std::string_view name, std::string_view text) {
  const std::string mark = "{{" + std::string(name) + "}}";
  page.replace(page.find(mark), mark.size(), text);
}

// JSON that HTML cannot take for a tag.
std::string script_json(const Json& json) {
  std::string text = dump(json);
  for (size_t at = 0; (at = text.find('<', at)) != std::string::npos;) {
    text.replace(at, 1, "\\u003c");
  }
  return text;
}

Json sample_json(const Json& document, const Results& results) {
  Json sample = document;
  sample["settings"] = Json::object();
  for (const Record& record : results.records) {
    const bool of_it = document.at("task") == record.key.task &&
                       document.at("n_ctx") == record.key.n_ctx &&
                       document.at("document") == record.key.document;
    if (!of_it || record.queries.empty()) continue;
    const QueryResult& query = record.queries.front();
    sample["settings"][record.setting] = {
        {"score", query.score}, {"answer", query.text}, {"chosen", chosen_json(record.chosen)}};
  }
  return sample;
}

}  // namespace

std::string render_report(const Json& summary, const Results& results) {
  Json data = summary;
  Json samples = Json::array();
  for (const Json& document : results.documents) {
    const Json sample = sample_json(document, results);
    if (!sample.at("settings").empty()) samples.push_back(sample);
  }
  data["samples"] = samples;
  std::string page(kPage);
  put(page, "css", kStyle);
  put(page, "js", kScript);
  put(page, "data", script_json(data));
  return page;
}

}  // namespace hata::eval
