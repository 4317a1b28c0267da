#include "eval/layer_check.h"

#include <algorithm>
#include <numeric>

#include "core/words.h"
#include "eval/asking.h"
#include "eval/host.h"
#include "hata/dense_layers.h"

namespace hata::eval {
namespace {

using Layers = std::vector<int>;  // ascending

// One document: read densely, then continued under other settings, again and again.
class Document {
 public:
  Document(const Reader& reader, const std::vector<Token>& tokens, const LayerCheckOptions& options)
      : options_(options) {
    const auto n = std::ssize(tokens);
    const auto compared = std::min<int64_t>(options.n_compared, n / 8);
    query_ = {.scoring = Scoring::compare, .tokens = {tokens.end() - compared, tokens.end()}};
    configure_host("method=dense");
    session_ = std::make_unique<Session>(reader.model(),
                                         SessionOptions{.n_ctx = n, .threads = options.threads});
    reader.read(*session_, {tokens.data(), static_cast<size_t>(n - compared)});
    dense_ = predict(*session_, query_);
  }

  int64_t n_compared() const { return std::ssize(dense_); }

  double kl(const Layers& dense_layers) {
    const DenseLayers layers{.first = 0, .also = dense_layers};
    configure_host("method=hata weights=" + as_word(options_.weights) + " budget=" +
                   options_.budget.text() + " dense-layers=" + layers.text() + " min-ctx=0");
    const TextResult result = compare(*session_, query_, dense_, nullptr);
    return std::accumulate(result.kl.begin(), result.kl.end(), 0.0) /
           static_cast<double>(result.kl.size());
  }

 private:
  const LayerCheckOptions& options_;
  Query query_;
  std::unique_ptr<Session> session_;
  Predictions dense_;
};

}  // namespace

LayerCheck check_layers(const Reader& reader, const std::vector<std::vector<Token>>& documents,
                        const LayerCheckOptions& options,
                        const std::function<void(const std::string& what)>& progress) {
  std::vector<std::unique_ptr<Document>> read;
  for (const auto& tokens : documents) {
    progress("reading document " + std::to_string(read.size() + 1));
    read.push_back(std::make_unique<Document>(reader, tokens, options));
  }
  const auto mean_kl = [&](const Layers& dense) {
    double sum = 0;
    for (const auto& document : read) sum += document->kl(dense);
    return sum / static_cast<double>(read.size());
  };

  LayerCheck check;
  for (const auto& document : read) check.n_compared += document->n_compared();
  progress("all layers sparse");
  check.kl = check.kl_all = mean_kl({});
  for (const int layer : options.layers) {
    progress("layer " + std::to_string(layer) + " alone");
    Layers others;
    for (int i = 0; i < reader.model().n_layers(); ++i) {
      if (i != layer) others.push_back(i);
    }
    check.kl_alone.push_back(mean_kl(others));
  }
  std::vector<size_t> order(options.layers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return check.kl_alone[a] > check.kl_alone[b]; });
  for (size_t i = 0; i < order.size() && check.kl > options.most_kl; ++i) {
    check.dense_layers.push_back(options.layers[order[i]]);
    std::sort(check.dense_layers.begin(), check.dense_layers.end());
    progress(std::to_string(check.dense_layers.size()) + " layers dense");
    check.kl = mean_kl(check.dense_layers);
  }
  return check;
}

}  // namespace hata::eval
