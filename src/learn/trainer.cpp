#include "learn/trainer.h"

#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>

#include "core/f16.h"
#include "core/files.h"
#include "hata/encode.h"
#include "hata/team.h"
#include "learn/vector_math.h"

namespace hata::learn {
namespace {

namespace fs = std::filesystem;

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

TrainedHead train_one(const TrainerOptions& options, const RowStore& rows, int layer, int head) {
  const int64_t n_rows = rows.n_rows() - options.n_held_out;
  TrainedHead out{.layer = layer, .head = head};
  out.mean_length = mean_length(rows, n_rows, layer, head);
  std::vector<float> paper;
  if (options.with_paper) {
    TrainOptions as_paper = options.train;
    as_paper.objective = "paper";
    as_paper.steps = as_paper.rows_a_step = 0;
    as_paper.rate = 0;
    as_paper.separate_queries = as_paper.centre = false;
    paper = trained(resolved(as_paper), n_rows, rows, out).w;
  }
  if (options.train.centre) out.key_mean = mean_key(rows, n_rows, layer, head);
  Parameters p = trained(options.train, n_rows, rows, out);
  out.w = std::move(p.w);
  out.w_query = std::move(p.w_query);
  const HeadShape shape = rows.layers().at(layer);
  const int rbit = options.train.rbit;
  const Projection random =
      random_projection(options.train.seed, layer, shape.n_kv_heads, shape.head_dim, rbit);
  const auto inv_unit = static_cast<float>(8 / out.mean_length);
  const Ranking learned{.w = out.w.data(),
                        .rbit = rbit,
                        .w_query = out.w_query.empty() ? nullptr : out.w_query.data(),
                        .key_mean = out.key_mean.empty() ? nullptr : out.key_mean.data(),
                        .inv_unit = inv_unit};
  for (int64_t i = n_rows; i < rows.n_rows(); ++i) {
    const Row row = rows.load(i, layer, head);
    out.learned += measure(row, learned, options.budgets);
    out.random += measure(row, {.w = random.head(head), .rbit = rbit, .inv_unit = inv_unit},
                          options.budgets);
    out.exact += measure(row, {}, options.budgets);
    if (!paper.empty()) {
      out.paper += measure(row, {.w = paper.data(), .rbit = rbit}, options.budgets);
    }
    out.needs += measure(row, learned, options.needs);
  }
  return out;
}

// --- finished heads on disk

constexpr char kMagic[8] = {'H', 'A', 'T', 'A', 'H', 'E', 'D', '2'};

fs::path file_of(const fs::path& folder, int layer, int head) {
  return folder / ("layer-" + std::to_string(layer) + "-head-" + std::to_string(head) + ".trained");
}

// Everything of a head that is not its place: numbers, then arrays with their sizes. One list for
// both directions: `put` or `take` gets each part in order.
template <class Head, class Fn>
void each_part(Head& head, Fn&& fn) {
  fn(head.mean_length);
  fn(head.first_loss);
  fn(head.last_loss);
  fn(head.w);
  fn(head.w_query);
  fn(head.key_mean);
  for (auto* q : {&head.learned, &head.random, &head.paper, &head.exact, &head.needs}) {
    fn(q->queries);
    fn(q->kept_mass);
    fn(q->recall);
    fn(q->all_mass);
  }
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

bool unpack(std::string_view in, size_t n_weights, size_t n_budgets, TrainedHead& head) {
  if (!in.starts_with(std::string_view(kMagic, sizeof(kMagic)))) return false;
  Unpacker unpacker{in.substr(sizeof(kMagic))};
  each_part(head, unpacker);
  return unpacker.good && unpacker.in.empty() && head.w.size() == n_weights &&
         head.learned.kept_mass.size() == n_budgets;
}

// Taken from the folder, or trained and put there.
TrainedHead finished(const TrainerOptions& options, const RowStore& rows, const fs::path& folder,
                     int layer, int head) {
  const auto n_weights = static_cast<size_t>(rows.layers().at(layer).head_dim * options.train.rbit);
  const fs::path file = file_of(folder, layer, head);
  TrainedHead out{.layer = layer, .head = head};
  if (!fs::exists(file) || !unpack(read_file(file), n_weights, options.budgets.size(), out)) {
    out = train_one(options, rows, layer, head);
    write_file_whole(file, {pack(out)});
  }
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
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      heads.push_back({.layer = layer, .head = head});
    }
  }
  const auto total = static_cast<int64_t>(heads.size());
  std::mutex mutex;
  int64_t n_done = 0;
  std::exception_ptr failure;
  Team team(options.threads);
  team.run([&](const Worker& worker) {
    worker.share(total, [&](int64_t i) {
      TrainedHead& head = heads[static_cast<size_t>(i)];
      try {
        {
          const std::lock_guard lock(mutex);
          if (failure != nullptr) return;
        }
        head = finished(options, rows, folder, head.layer, head.head);
        const std::lock_guard lock(mutex);
        done(head, ++n_done, total);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (failure == nullptr) failure = std::current_exception();
      }
    });
  });
  if (failure != nullptr) std::rethrow_exception(failure);
  return heads;
}

}  // namespace hata::learn
