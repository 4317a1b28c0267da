#include "hata/selector.h"

#include "methods/methods.h"

namespace hata {

void Selection::reset(int n_rows, int n_kv_heads, int64_t capacity) {
  n_heads_ = n_kv_heads;
  capacity_ = capacity;
  const auto lists = static_cast<size_t>(n_rows) * static_cast<size_t>(n_kv_heads);
  counts_.assign(lists, 0);
  if (cells_.size() < lists * static_cast<size_t>(capacity)) {
    cells_.resize(lists * static_cast<size_t>(capacity));
  }
}

int32_t* Selection::data(int row, int head) {
  return cells_.data() + (static_cast<int64_t>(row) * n_heads_ + head) * capacity_;
}

void Selection::set_count(int row, int head, int64_t n) {
  counts_[static_cast<size_t>(row * n_heads_ + head)] = n;
}

std::span<const int32_t> Selection::cells(int row, int head) const {
  const int64_t list = static_cast<int64_t>(row) * n_heads_ + head;
  return {cells_.data() + list * capacity_,
          static_cast<size_t>(counts_[static_cast<size_t>(list)])};
}

StageCounters& StageCounters::operator+=(const StageCounters& other) {
  encode_ns += other.encode_ns;
  score_ns += other.score_ns;
  select_ns += other.select_ns;
  attend_ns += other.attend_ns;
  choose_bytes += other.choose_bytes;
  attend_bytes += other.attend_bytes;
  dense_bytes += other.dense_bytes;
  keys_attended += other.keys_attended;
  keys_valid += other.keys_valid;
  sparse_rows += other.sparse_rows;
  dense_rows += other.dense_rows;
  return *this;
}

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
  void select(const Step&, std::span<const RowPlan>, const CellIndex&, const KeyStore*, Scratch&,
              Selection&, StageCounters&, const Worker&) const override {}
};

struct Entry {
  std::string_view name;
  std::shared_ptr<const Selector> (*make)(const HataOptions& options);
};

constexpr Entry kMethods[] = {
    {"hata", [](const HataOptions& options) { return make_hata("hata", options); }},
    {"hata-paper",
     [](const HataOptions& options) {
       HataOptions paper = options;
       paper.lengths = false;
       paper.sink = paper.recent = 0;
       return make_hata("hata-paper", paper);
     }},
    {"exact", [](const HataOptions&) { return make_exact(); }},
    {"streaming", [](const HataOptions&) { return make_streaming(); }},
    {"dense",
     [](const HataOptions&) -> std::shared_ptr<const Selector> {
       return std::make_shared<Dense>();
     }},
};

}  // namespace

std::shared_ptr<const Selector> make_selector(std::string_view method, const HataOptions& options) {
  std::string known;
  for (const Entry& entry : kMethods) {
    if (entry.name == method) return entry.make(options);
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  throw Error("method '" + std::string(method) + "' is unknown; there are " + known);
}

std::vector<std::string> selector_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kMethods) names.emplace_back(entry.name);
  return names;
}

}  // namespace hata
