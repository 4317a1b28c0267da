#include "learn/row_store.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/files.h"
#include "cpu/rank.h"

namespace hata::learn {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[8] = {'H', 'A', 'T', 'A', 'R', 'O', 'W', '2'};

struct Header {
  char magic[8];
  int64_t n_keys;
  int64_t n_queries;
  int64_t n_layers;
  int64_t has_values;  // 0 or 1
  int64_t bytes;       // of the whole file
};

struct LayerHeader {
  int32_t layer, n_q_heads, n_kv_heads, head_dim;
  int64_t offset;  // of the keys; the queries follow them, then the values
};

int64_t key_bytes(const HeadShape& s, int64_t n_keys) {
  return int64_t{2} * s.n_kv_heads * s.head_dim * n_keys;
}
int64_t query_bytes(const HeadShape& s, int64_t n_queries) {
  return int64_t{4} * s.n_q_heads * s.head_dim * n_queries;
}

template <class T>
void get(std::ifstream& in, T* data, size_t n) {
  in.read(reinterpret_cast<char*>(data), static_cast<std::streamsize>(n * sizeof(T)));
}

}  // namespace

void write_document(const fs::path& file, const SampledDocument& document) {
  const auto n_queries = static_cast<int64_t>(document.positions.size());
  const bool has_values = std::any_of(document.layers.begin(), document.layers.end(),
                                      [](const auto& l) { return !l.second.values.empty(); });
  std::vector<LayerHeader> layers;
  auto offset = static_cast<int64_t>(sizeof(Header) + document.layers.size() * sizeof(LayerHeader) +
                                     document.positions.size() * sizeof(int32_t));
  for (const auto& [number, layer] : document.layers) {
    const HeadShape& s = layer.shape;
    layers.push_back({number, s.n_q_heads, s.n_kv_heads, s.head_dim, offset});
    offset += (has_values ? 2 : 1) * key_bytes(s, document.n_keys) + query_bytes(s, n_queries);
  }
  Header header{.magic = {},
                .n_keys = document.n_keys,
                .n_queries = n_queries,
                .n_layers = static_cast<int64_t>(layers.size()),
                .has_values = has_values,
                .bytes = offset};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));

  std::vector<std::string_view> parts = {bytes_of(header), bytes_of(layers),
                                         bytes_of(document.positions)};
  for (const auto& [number, layer] : document.layers) {
    parts.push_back(bytes_of(layer.keys));
    parts.push_back(bytes_of(layer.queries));
    parts.push_back(bytes_of(layer.values));
  }
  write_file_whole(file, parts, "; free some disk, or sample less (--rows, -c)");
}

RowStore::RowStore(const std::vector<fs::path>& files) {
  for (const fs::path& path : files) files_.push_back(open(path));
}

RowStore::File RowStore::open(const fs::path& path) {
  const auto damaged = [&](const char* what) {
    return Error(path.string() + ": " + what + "; remove it, and it is made again");
  };
  std::ifstream in(path, std::ios::binary);
  Header header{};
  get(in, &header, 1);
  std::error_code error;
  const auto size = static_cast<int64_t>(fs::file_size(path, error));
  if (!in || error || std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    throw damaged("not a file of training rows");
  }
  if (header.bytes != size || header.n_layers < 0 || header.n_layers > 4096 ||
      header.n_queries < 0 || header.n_queries > size || header.n_keys < 0 ||
      header.has_values < 0 || header.has_values > 1) {
    throw damaged("damaged or truncated");
  }
  File file{.path = path,
            .n_keys = header.n_keys,
            .positions = {},
            .offsets = {},
            .has_values = header.has_values == 1};
  std::vector<LayerHeader> layers(static_cast<size_t>(header.n_layers));
  get(in, layers.data(), layers.size());
  file.positions.resize(static_cast<size_t>(header.n_queries));
  get(in, file.positions.data(), file.positions.size());
  if (!in) throw damaged("damaged or truncated");
  std::map<int, HeadShape> shapes;
  for (const LayerHeader& layer : layers) {
    shapes[layer.layer] = {layer.n_q_heads, layer.n_kv_heads, layer.head_dim};
    file.offsets[layer.layer] = layer.offset;
  }
  if (files_.empty()) layers_ = shapes;
  if (shapes != layers_) throw damaged("of other layers than the files before it");
  longest_ = std::max(longest_, file.n_keys);
  bytes_ += size;
  return file;
}

int64_t RowStore::mean_keys_seen(int64_t first) const {
  int64_t sum = 0, n = 0;
  for (auto file = files_.begin() + first; file != files_.end(); ++file) {
    for (const int32_t position : file->positions) sum += position + 1;
    n += std::ssize(file->positions);
  }
  return n > 0 ? sum / n : 0;
}

Row RowStore::load(int64_t row, int layer, int head, bool with_values) const {
  const File& file = files_[static_cast<size_t>(row)];
  const HeadShape& shape = layers_.at(layer);
  const auto n_queries = static_cast<int64_t>(file.positions.size());
  const int64_t keys_a_head = file.n_keys * shape.head_dim;
  const int64_t queries_a_head = n_queries * shape.group() * shape.head_dim;
  Row out{shape.head_dim, shape.group(), {}, {}, file.positions};
  std::ifstream in(file.path, std::ios::binary);
  const auto halves_at = [&](int64_t offset) {
    std::vector<uint16_t> halves(static_cast<size_t>(keys_a_head));
    in.seekg(offset + head * keys_a_head * 2);
    get(in, halves.data(), halves.size());
    std::vector<float> floats(halves.size());
    const auto d = static_cast<size_t>(shape.head_dim);
    for (size_t i = 0; i < halves.size(); i += d) {
      to_floats(halves.data() + i, DType::f16, shape.head_dim, floats.data() + i);
    }
    return floats;
  };
  const int64_t keys = file.offsets.at(layer);
  const int64_t queries = keys + key_bytes(shape, file.n_keys);
  out.keys = halves_at(keys);
  out.queries.resize(static_cast<size_t>(queries_a_head));
  in.seekg(queries + head * queries_a_head * 4);
  get(in, out.queries.data(), out.queries.size());
  if (with_values && file.has_values)
    out.values = halves_at(queries + query_bytes(shape, n_queries));
  if (!in) throw Error(file.path.string() + ": cannot be read: " + std::strerror(errno));
  return out;
}

}  // namespace hata::learn
