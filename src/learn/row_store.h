// Training rows on disk: one file a document, with all its layers and heads. What training holds in
// memory is one row a thread; the files are read through the page cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "hata/types.h"
#include "learn/row.h"

namespace hata::learn {

/// The sampled layers of one document. Positions are the same in all of them.
struct SampledDocument {
  struct Layer {
    HeadShape shape;
    std::vector<uint16_t> keys;         ///< f16 [KV head][n_keys][head_dim]
    std::vector<float> queries;         ///< [KV head][n_queries][group][head_dim]
    std::vector<uint16_t> values = {};  ///< like the keys; empty: they were not sampled
  };

  int64_t n_keys = 0;
  std::vector<int32_t> positions;  ///< of the queries, ascending
  std::map<int, Layer> layers;
};

/// The file is whole or not there. Throws Error where the disk is full.
void write_document(const std::filesystem::path& file, const SampledDocument& document);

/// Documents written before, all of the same layers.
class RowStore {
 public:
  /// Throws Error on a file that is damaged, or of other shapes than the first.
  explicit RowStore(const std::vector<std::filesystem::path>& files);

  int64_t n_rows() const { return static_cast<int64_t>(files_.size()); }
  int64_t longest() const { return longest_; }  ///< keys
  int64_t bytes() const { return bytes_; }
  /// Keys that the queries of the rows from `first` on see, on average.
  int64_t mean_keys_seen(int64_t first) const;
  const std::map<int, HeadShape>& layers() const { return layers_; }

  /// All threads may load at once. Values come where they were sampled and are asked for.
  Row load(int64_t row, int layer, int head, bool with_values = false) const;

 private:
  struct File {
    std::filesystem::path path;
    int64_t n_keys = 0;
    std::vector<int32_t> positions;
    std::map<int, int64_t> offsets;  // of a layer's keys
    bool has_values = false;
  };

  File open(const std::filesystem::path& path);

  std::vector<File> files_;
  std::map<int, HeadShape> layers_;
  int64_t longest_ = 0, bytes_ = 0;
};

}  // namespace hata::learn
