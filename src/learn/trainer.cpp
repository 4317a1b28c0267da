#include "learn/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>

#include "core/f16.h"
#include "core/files.h"
#include "hata/encode.h"
#include "hata/team.h"
#include "learn/vector_math.h"

namespace hata::learn {
namespace {

namespace fs = std::filesystem;

constexpr double kLeastGain = 0.01;  // in output error, for another window than the first

double mean_length(const RowStore& rows, int64_t n_rows, int layer, int head) {
  double sum = 0, n = 0;
  for (int64_t i = 0; i < n_rows; ++i) {
    const Row row = rows.load(i, layer, head);
    for (int64_t key = 0; key < row.n_keys(); ++key) {
      sum += std::sqrt(
          static_cast<double>(sum_of_squares(row.keys.data() + key * row.head_dim, row.head_dim)));
    }
    n += static_cast<double>(row.n_keys());
  }
  return sum / n;
}

std::vector<float> mean_key(const RowStore& rows, int64_t n_rows, int layer, int head) {
  std::vector<double> sum;
  double n = 0;
  for (int64_t i = 0; i < n_rows; ++i) {
    const Row row = rows.load(i, layer, head);
    const auto d = static_cast<size_t>(row.head_dim);
    sum.resize(d);
    for (size_t j = 0; j < row.keys.size(); ++j) sum[j % d] += static_cast<double>(row.keys[j]);
    n += static_cast<double>(row.n_keys());
  }
  std::vector<float> mean;
  for (const double s : sum) mean.push_back(static_cast<float>(s / n));
  return mean;
}

// What the file will hold is what is measured.
std::vector<float> to_f16(std::vector<float> w) {
  for (float& x : w) x = f16_to_f32(f32_to_f16(x));
  return w;
}

Parameters trained(const TrainOptions& options, int64_t n_rows, const RowStore& rows,
                   TrainedHead& head) {
  const auto load = [&](int64_t i) {
    Row row = rows.load(i, head.layer, head.head);
    if (options.objective == "kl-group") {
      row.lengths.resize(static_cast<size_t>(row.n_keys()));
      key_lengths(row.head_dim, row.keys.data(), DType::f32,
                  static_cast<size_t>(row.head_dim) * sizeof(float), row.n_keys(),
                  static_cast<float>(8 / head.mean_length), row.lengths.data());
    }
    if (options.centre) subtract_mean(head.key_mean.data(), row.head_dim, row.keys);
    return row;
  };
  Training training = train_head(options, n_rows, load, head.layer, head.head, head.mean_length);
  head.first_loss = static_cast<double>(training.losses.front());
  head.last_loss = static_cast<double>(training.losses.back());
  Parameters& p = training.parameters;
  p.w = to_f16(std::move(p.w));
  p.w_query = to_f16(std::move(p.w_query));
  return std::move(p);
}

void train_one(const TrainerOptions& options, const RowStore& rows, TrainedHead& out) {
  const int64_t n_rows = rows.n_rows() - options.n_held_out;
  out.mean_length = mean_length(rows, n_rows, out.layer, out.head);
  if (options.train.centre) out.key_mean = mean_key(rows, n_rows, out.layer, out.head);
  Parameters p = trained(options.train, n_rows, rows, out);
  out.w = std::move(p.w);
  out.w_query = std::move(p.w_query);
}

// A head of weights that are there already.
void take_given(const Weights& weights, const RowStore& rows, int64_t n_rows, TrainedHead& out) {
  const LayerWeights& w = weights.layers.at(out.layer);
  const HeadShape shape = rows.layers().at(out.layer);
  if (w.projection.n_heads != shape.n_kv_heads || w.projection.head_dim != shape.head_dim) {
    throw Error(weights.path + ": layer " + std::to_string(out.layer) + " has " +
                std::to_string(w.projection.n_heads) + " heads of " +
                std::to_string(w.projection.head_dim) + ", the model " +
                std::to_string(shape.n_kv_heads) + " of " + std::to_string(shape.head_dim) +
                "; give weights of this model");
  }
  const auto of_head = [&](const Projection& p) {
    const float* from = p.head(out.head);
    return std::vector<float>(from, from + p.head_dim * p.rbit);
  };
  out.w = of_head(w.projection);
  if (w.queries.n_heads > 0) out.w_query = of_head(w.queries);
  if (!w.key_means.empty()) {
    const auto from = w.key_means.begin() + out.head * shape.head_dim;
    out.key_mean.assign(from, from + shape.head_dim);
  }
  out.mean_length = w.mean_lengths.empty()
                        ? mean_length(rows, n_rows, out.layer, out.head)
                        : static_cast<double>(w.mean_lengths[static_cast<size_t>(out.head)]);
}

const float* data_or_null(const std::vector<float>& x) { return x.empty() ? nullptr : x.data(); }

// How decoding ranks by other weights; w nullptr where they have none for this head.
Ranking ranking_of(const Weights& weights, int layer, int head, const Row& row) {
  const auto at = weights.layers.find(layer);
  if (at == weights.layers.end()) return {};
  const LayerWeights& w = at->second;
  if (head >= w.projection.n_heads || w.projection.head_dim != row.head_dim) return {};
  const bool lengths = weights.objective != "paper" && !w.mean_lengths.empty();
  return {.w = w.projection.head(head),
          .rbit = w.projection.rbit,
          .w_query = w.of_queries().head(head),
          .key_mean = w.key_means.empty() ? nullptr : w.key_means.data() + head * row.head_dim,
          .inv_unit = lengths ? 8 / w.mean_lengths[static_cast<size_t>(head)] : 0.0f};
}

// sum += weight * x, of sums that begin empty.
void add(std::vector<double>& sum, const std::vector<double>& x, double weight) {
  sum.resize(x.size());
  for (size_t i = 0; i < x.size(); ++i) sum[i] += weight * x[i];
}

Ranking learned_ranking(const TrainerOptions& options, const TrainedHead& head) {
  return {.w = head.w.data(),
          .rbit = options.train.rbit,
          .w_query = data_or_null(head.w_query),
          .key_mean = data_or_null(head.key_mean),
          .inv_unit = static_cast<float>(8 / head.mean_length)};
}

void measure_one(const TrainerOptions& options, const RowStore& rows, TrainedHead& out) {
  const HeadShape shape = rows.layers().at(out.layer);
  const int rbit = options.train.rbit;
  const Projection random =
      random_projection(options.train.seed, out.layer, shape.n_kv_heads, shape.head_dim, rbit);
  const Ranking learned = learned_ranking(options, out);
  const float inv_unit = learned.inv_unit;
  const double weight = 1.0 / options.n_held_out;
  for (int64_t i = rows.n_rows() - options.n_held_out; i < rows.n_rows(); ++i) {
    const HeldOutRow row(rows.load(i, out.layer, out.head, !options.windows.empty()));
    out.learned += row.quality(learned, options.budgets);
    out.random += row.quality({.w = random.head(out.head), .rbit = rbit, .inv_unit = inv_unit},
                              options.budgets);
    out.exact += row.quality({}, options.budgets);
    if (row.has_values()) {
      add(out.output_errors, row.output_errors(learned, options.window_budget, options.windows),
          weight);
    }
    if (options.compared == nullptr) continue;
    const Ranking other = ranking_of(*options.compared, out.layer, out.head, row.row());
    if (other.w != nullptr) out.compared += row.quality(other, options.budgets);
  }
}

void measure_needs(const TrainerOptions& options, const RowStore& rows, TrainedHead& out) {
  for (int64_t i = rows.n_rows() - options.n_held_out; i < rows.n_rows(); ++i) {
    const HeldOutRow row(rows.load(i, out.layer, out.head));
    out.needs += row.quality(learned_ranking(options, out), options.needs, out.recent);
  }
}

// All heads of a layer have one window: the first, unless another loses clearly less.
void choose_windows(const TrainerOptions& options, const RowStore& rows,
                    std::vector<TrainedHead>& heads) {
  std::map<int, std::vector<double>> layers;  // means over heads
  for (const TrainedHead& head : heads) {
    add(layers[head.layer], head.output_errors, 1.0 / rows.layers().at(head.layer).n_kv_heads);
  }
  for (TrainedHead& head : heads) {
    const std::vector<double>& errors = layers[head.layer];
    if (errors.empty()) continue;
    const auto least = std::min_element(errors.begin(), errors.end());
    const bool clear = errors.front() - *least >= kLeastGain;
    head.recent = options.windows[clear ? static_cast<size_t>(least - errors.begin()) : 0];
  }
}

// --- finished heads on disk

constexpr char kMagic[8] = {'H', 'A', 'T', 'A', 'H', 'E', 'D', '3'};

fs::path file_of(const fs::path& folder, int layer, int head) {
  return folder / ("layer-" + std::to_string(layer) + "-head-" + std::to_string(head) + ".trained");
}

// What training made: numbers, then arrays with their sizes. One list for both directions.
template <class Head, class Fn>
void each_part(Head& head, Fn&& fn) {
  fn(head.mean_length);
  fn(head.first_loss);
  fn(head.last_loss);
  fn(head.w);
  fn(head.w_query);
  fn(head.key_mean);
}

struct Packer {
  std::string out{kMagic, sizeof(kMagic)};
  template <class T>
  void operator()(const T& number) {
    out += bytes_of(number);
  }
  template <class T>
  void operator()(const std::vector<T>& x) {
    (*this)(static_cast<uint64_t>(x.size()));
    out += bytes_of(x);
  }
};

struct Unpacker {
  std::string_view in;
  bool good = true;

  void bytes(void* to, size_t n) {
    good = good && n <= in.size();
    if (!good || n == 0) return;
    std::memcpy(to, in.data(), n);
    in.remove_prefix(n);
  }
  template <class T>
  void operator()(T& number) {
    bytes(&number, sizeof(T));
  }
  template <class T>
  void operator()(std::vector<T>& x) {
    uint64_t n = 0;
    (*this)(n);
    good = good && n <= in.size() / sizeof(T);
    if (!good) return;
    x.resize(n);
    bytes(x.data(), n * sizeof(T));
  }
};

std::string pack(const TrainedHead& head) {
  Packer packer;
  each_part(head, packer);
  return std::move(packer.out);
}

bool unpack(std::string_view in, size_t n_weights, TrainedHead& head) {
  if (!in.starts_with(std::string_view(kMagic, sizeof(kMagic)))) return false;
  Unpacker unpacker{in.substr(sizeof(kMagic))};
  each_part(head, unpacker);
  return unpacker.good && unpacker.in.empty() && head.w.size() == n_weights;
}

// Taken from the folder, or trained and put there.
TrainedHead finished(const TrainerOptions& options, const RowStore& rows, const fs::path& folder,
                     int layer, int head) {
  const auto n_weights = static_cast<size_t>(rows.layers().at(layer).head_dim * options.train.rbit);
  const fs::path file = file_of(folder, layer, head);
  TrainedHead out{.layer = layer, .head = head};
  if (options.given != nullptr) {
    take_given(*options.given, rows, rows.n_rows() - options.n_held_out, out);
  } else if (!fs::exists(file) || !unpack(read_file(file), n_weights, out)) {
    out = {.layer = layer, .head = head};
    train_one(options, rows, out);
    write_file_whole(file, {pack(out)});
  }
  measure_one(options, rows, out);
  return out;
}

}  // namespace

std::vector<TrainedHead> train_all(const TrainerOptions& options, const RowStore& rows,
                                   const fs::path& folder, const HeadDone& done) {
  if (rows.n_rows() <= options.n_held_out) {
    throw Error(std::to_string(rows.n_rows()) + " documents are not enough to train on: " +
                std::to_string(options.n_held_out) + " are held out");
  }
  std::vector<TrainedHead> heads;
  for (const auto& [layer, shape] : rows.layers()) {
    if (options.given != nullptr && !options.given->layers.contains(layer)) continue;
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      heads.push_back({.layer = layer, .head = head});
    }
  }
  const auto total = static_cast<int64_t>(heads.size());
  std::mutex mutex;
  int64_t n_done = 0;
  std::exception_ptr failure;
  Team team(options.threads);
  const auto each_head = [&](const auto& fn) {
    team.run([&](const Worker& worker) {
      worker.share(total, [&](int64_t i) {
        try {
          {
            const std::lock_guard lock(mutex);
            if (failure != nullptr) return;
          }
          fn(heads[static_cast<size_t>(i)]);
        } catch (...) {
          const std::lock_guard lock(mutex);
          if (failure == nullptr) failure = std::current_exception();
        }
      });
    });
    if (failure != nullptr) std::rethrow_exception(failure);
  };
  each_head([&](TrainedHead& head) {
    head = finished(options, rows, folder, head.layer, head.head);
    const std::lock_guard lock(mutex);
    done(head, ++n_done, total);
  });
  choose_windows(options, rows, heads);
  each_head([&](TrainedHead& head) { measure_needs(options, rows, head); });
  return heads;
}

}  // namespace hata::learn
