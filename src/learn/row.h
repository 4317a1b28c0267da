// What training sees of one document under one KV head.
#pragma once

#include <cstdint>
#include <vector>

namespace hata::learn {

/// Keys and some queries of one document, as they lie in the cache (after RoPE), in the order of
/// positions. Query i is that of position positions[i] and sees keys 0 .. positions[i].
struct Row {
  int head_dim = 0;
  int group = 0;                      ///< query heads of the KV head
  std::vector<float> keys;            ///< [n_keys][head_dim]
  std::vector<float> queries;         ///< [n_queries][group][head_dim]
  std::vector<int32_t> positions;     ///< [n_queries]
  std::vector<float> values = {};     ///< [n_keys][head_dim]; empty: not sampled, or not asked for
  std::vector<uint8_t> lengths = {};  ///< [n_keys] as the score rule has them; empty: all are 8
  int64_t number = -1;  ///< where it comes again: the same number, the same row; -1: unknown

  int64_t n_keys() const { return static_cast<int64_t>(keys.size()) / head_dim; }
  int64_t n_queries() const { return static_cast<int64_t>(positions.size()); }
};

/// What is learned for one KV head.
struct Parameters {
  int head_dim = 0;
  int rbit = 0;
  std::vector<float> w;          ///< [head_dim][rbit]
  std::vector<float> log_scale;  ///< [group + 1]: of the estimated logits of a query head; of all
  std::vector<float> w_query = {};  ///< [head_dim][rbit]: of the queries; empty: w serves both

  /// The same shape, all 0.
  Parameters zeros() const {
    return {head_dim, rbit, std::vector<float>(w.size()), std::vector<float>(log_scale.size()),
            std::vector<float>(w_query.size())};
  }

  const std::vector<float>& of_queries() const { return w_query.empty() ? w : w_query; }
  std::vector<float>& of_queries() { return w_query.empty() ? w : w_query; }
};

}  // namespace hata::learn
