#include "learn/train_head.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "core/clock.h"
#include "core/random.h"
#include "hata/encode.h"
#include "learn/optimizer.h"

namespace hata::learn {
namespace {

constexpr double kFirstScale = 0.5;  // of the estimated logits

// Rows in a random order, each once before any comes again.
class Deck {
 public:
  explicit Deck(int64_t n) : cards_(static_cast<size_t>(n)), at_(cards_.size()) {
    std::iota(cards_.begin(), cards_.end(), int64_t{0});
  }
  int64_t draw(Random& random) {
    if (at_ == cards_.size()) {
      random.shuffle(cards_);
      at_ = 0;
    }
    return cards_[at_++];
  }

 private:
  std::vector<int64_t> cards_;
  size_t at_;
};

Random random_of(uint64_t seed, int layer, int head) {
  Random of_layer(Random(seed).next() + static_cast<uint64_t>(layer));
  return Random(of_layer.next() + static_cast<uint64_t>(head));
}

bool is_paper(const TrainOptions& options) { return options.objective == "paper"; }

std::unique_ptr<Objective> make_objective(const TrainOptions& options, double mean_length) {
  if (is_paper(options)) return std::make_unique<PaperObjective>(options.paper);
  return std::make_unique<KlObjective>(options.kl, mean_length);
}

// The paper starts from normal random numbers; a rotation is where its loss ends anyway.
Parameters first_parameters(const TrainOptions& options, const Row& row, int layer, int head) {
  const int n_heads = head + 1;
  Parameters p{row.head_dim, options.rbit, {}, {}};
  const Projection random =
      random_projection(options.seed, layer, n_heads, row.head_dim, options.rbit);
  p.w.assign(random.head(head), random.head(head) + row.head_dim * options.rbit);
  if (is_paper(options)) {
    const auto spread = std::sqrt(static_cast<float>(row.head_dim));
    for (float& w : p.w) w *= spread;
  }
  p.log_scale.assign(static_cast<size_t>(row.group) + 1, static_cast<float>(std::log(kFirstScale)));
  p.log_scale.back() -= static_cast<float>(std::log(row.group));  // it is a sum
  if (options.separate_queries) p.w_query = p.w;
  return p;
}

// The paper has one query a sequence.
void keep_one_query(Row& row, Random& random) {
  const size_t one = static_cast<size_t>(row.group * row.head_dim);
  const size_t i = random.below(row.positions.size());
  row.positions = {row.positions[i]};
  row.queries = {row.queries.begin() + static_cast<std::ptrdiff_t>(i * one),
                 row.queries.begin() + static_cast<std::ptrdiff_t>((i + 1) * one)};
}

double rate_at(const TrainOptions& options, int step) {
  if (is_paper(options)) return options.rate;
  const double left = 2.0 * (1.0 - static_cast<double>(step) / options.steps);
  return options.rate * std::min(1.0, left);
}

}  // namespace

TrainOptions resolved(TrainOptions options) {
  const std::string& objective = options.objective;
  if (objective == "kl-far" || objective == "kl") {
    options.kl.by_group = 0;
    options.kl.floor = 1;
  } else if (objective != "kl-group" && objective != "paper") {
    throw Error("objective '" + objective + "' is unknown; there are kl-group, kl-far, kl, paper");
  }
  if (objective == "kl") options.kl.skip_first = options.kl.skip_last = 0;
  const bool paper = is_paper(options);
  if (paper && (options.separate_queries || options.centre)) {
    throw Error(
        "objective paper: it has one projection, of keys as they are; leave "
        "--separate-queries and --centre out");
  }
  if (options.steps == 0) options.steps = paper ? 300 : 600;
  if (options.rows_a_step == 0) options.rows_a_step = paper ? 20 : 1;
  if (options.rate == 0) options.rate = paper ? 0.1 : 3e-3;
  return options;
}

Training train_head(const TrainOptions& options, int64_t n_rows, const LoadRow& load, int layer,
                    int head, double mean_length) {
  const auto objective = make_objective(options, mean_length);
  // The scale of a group's sum is far from where it starts.
  Adam adam(0.9, 0.99, options.kl.by_group > 0 ? 10 : 1);
  Sgd sgd(0.9, 1e-6);
  Deck deck(n_rows);
  Random random = random_of(options.seed, layer, head);
  std::vector<Row> rows(static_cast<size_t>(std::min<int64_t>(options.rows_a_step, n_rows)));
  Training training;
  Parameters gradient;
  for (int step = 0; step < options.steps; ++step) {
    for (Row& row : rows) {
      const int64_t number = deck.draw(random);
      row = load(number);
      row.number = number;
      if (is_paper(options)) keep_one_query(row, random);
    }
    if (step == 0) training.parameters = first_parameters(options, rows[0], layer, head);
    const double progress = options.steps > 1 ? static_cast<double>(step) / (options.steps - 1) : 0;
    const double loss = objective->evaluate(rows, training.parameters, progress, &gradient);
    if (!std::isfinite(loss)) {
      throw Error("layer " + std::to_string(layer) + ", KV head " + std::to_string(head) +
                  ": the loss is not a number at step " + std::to_string(step) +
                  ": the sampled queries or keys hold NaN or infinity; look at the model file");
    }
    training.losses.push_back(static_cast<float>(loss));
    if (is_paper(options)) {
      sgd.step(gradient, rate_at(options, step), training.parameters);
    } else {
      adam.step(gradient, rate_at(options, step), training.parameters);
    }
  }
  return training;
}

double time_step(const TrainOptions& options, const HeadShape& shape, int64_t n_keys,
                 int n_queries) {
  Random random(1);
  const auto fill = [&](std::vector<float>& x, int64_t n) {
    x.resize(static_cast<size_t>(n));
    for (float& v : x) v = static_cast<float>(random.below(2048)) / 1024.0f - 1.0f;
  };
  Row row{shape.head_dim, shape.group(), {}, {}, {}};
  const int n = is_paper(options) ? 1 : n_queries;
  fill(row.keys, n_keys * shape.head_dim);
  fill(row.queries, int64_t{n} * shape.n_q_heads / shape.n_kv_heads * shape.head_dim);
  row.positions.assign(static_cast<size_t>(n), static_cast<int32_t>(n_keys - 1));
  const std::vector<Row> rows(static_cast<size_t>(options.rows_a_step), row);
  const Parameters parameters = first_parameters(options, row, 0, 0);
  Parameters gradient;
  const auto objective = make_objective(options, 1.0);
  objective->evaluate(rows, parameters, 0.5, &gradient);  // memory is there from now on
  const auto start = Clock::now();
  objective->evaluate(rows, parameters, 0.5, &gradient);
  return seconds_since(start);
}

}  // namespace hata::learn
