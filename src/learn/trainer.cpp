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

// What the file will hold is what is measured.
std::vector<float> to_f16(std::vector<float> w) {
  for (float& x : w) x = f16_to_f32(f32_to_f16(x));
  return w;
}

std::vector<float> trained(const TrainOptions& options, int64_t n_rows, const RowStore& rows,
                           TrainedHead& head) {
  const auto load = [&](int64_t i) { return rows.load(i, head.layer, head.head); };
  Training training = train_head(options, n_rows, load, head.layer, head.head, head.mean_length);
  head.first_loss = static_cast<double>(training.losses.front());
  head.last_loss = static_cast<double>(training.losses.back());
  return to_f16(std::move(training.parameters.w));
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
    paper = trained(resolved(as_paper), n_rows, rows, out);
  }
  out.w = trained(options.train, n_rows, rows, out);
  const HeadShape shape = rows.layers().at(layer);
  const int rbit = options.train.rbit;
  const Projection random =
      random_projection(options.train.seed, layer, shape.n_kv_heads, shape.head_dim, rbit);
  const auto inv_unit = static_cast<float>(8 / out.mean_length);
  for (int64_t i = n_rows; i < rows.n_rows(); ++i) {
    const Row row = rows.load(i, layer, head);
    out.learned += measure(row, {out.w.data(), rbit, inv_unit}, options.budgets);
    out.random += measure(row, {random.head(head), rbit, inv_unit}, options.budgets);
    out.exact += measure(row, {}, options.budgets);
    if (!paper.empty()) out.paper += measure(row, {paper.data(), rbit, 0}, options.budgets);
  }
  return out;
}

// --- finished heads on disk

constexpr char kMagic[8] = {'H', 'A', 'T', 'A', 'H', 'E', 'D', '1'};

fs::path file_of(const fs::path& folder, int layer, int head) {
  return folder / ("layer-" + std::to_string(layer) + "-head-" + std::to_string(head) + ".trained");
}

std::string pack(const TrainedHead& head) {
  std::string out(kMagic, sizeof(kMagic));
  const double numbers[] = {head.mean_length, head.first_loss, head.last_loss,
                            static_cast<double>(head.w.size()),
                            static_cast<double>(head.learned.kept_mass.size())};
  out += bytes_of(numbers);
  out += bytes_of(head.w);
  for (const Quality* q : {&head.learned, &head.random, &head.paper, &head.exact}) {
    out += bytes_of(static_cast<double>(q->queries));
    out += bytes_of(q->kept_mass);
    out += bytes_of(q->recall);
  }
  return out;
}

template <class T>
bool take(std::string_view& in, T* data, size_t n) {
  if (in.size() < n * sizeof(T)) return false;
  std::memcpy(data, in.data(), n * sizeof(T));
  in.remove_prefix(n * sizeof(T));
  return true;
}

bool unpack(std::string_view in, size_t n_weights, size_t n_budgets, TrainedHead& head) {
  char magic[sizeof(kMagic)];
  double numbers[5];
  if (!take(in, magic, sizeof(magic)) || std::memcmp(magic, kMagic, sizeof(magic)) != 0 ||
      !take(in, numbers, std::size(numbers)) || numbers[3] != static_cast<double>(n_weights) ||
      numbers[4] != static_cast<double>(n_budgets)) {
    return false;
  }
  head.mean_length = numbers[0];
  head.first_loss = numbers[1];
  head.last_loss = numbers[2];
  head.w.resize(n_weights);
  if (!take(in, head.w.data(), n_weights)) return false;
  for (Quality* q : {&head.learned, &head.random, &head.paper, &head.exact}) {
    double queries = 0;
    if (!take(in, &queries, 1)) return false;
    q->queries = static_cast<int64_t>(queries);
    if (queries == 0) continue;
    q->kept_mass.resize(n_budgets);
    q->recall.resize(n_budgets);
    if (!take(in, q->kept_mass.data(), n_budgets) || !take(in, q->recall.data(), n_budgets)) {
      return false;
    }
  }
  return in.empty();
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
