// The smallest and largest element of each channel over the keys of a page: what Quest keeps.
#pragma once

#include <cstdint>

#include "hata/index.h"
#include "index/huge_buffer.h"
#include "index/known_cells.h"

namespace hata {

class PageStore final : public KeyStore {
 public:
  /// page: cells of a page, a divisor of 64.
  PageStore(const HeadShape& shape, int64_t n_cells, int page);

  size_t bytes() const override { return pages_.bytes() + known_.bytes(); }
  void update(const CacheView& keys, const CacheView& values, std::span<const int32_t> cells,
              const Worker& worker) override;
  bool matches(const CacheView& keys, int64_t cell) const override;

  int page() const { return page_; }
  /// Of one KV head, f16 [page][2 * head_dim]: maxima, then minima; from this page on. Rounded
  /// outwards where the keys are no f16.
  const uint16_t* pages(int head, int64_t page) const {
    return pages_.as<uint16_t>() + (head * n_pages_ + page) * 2 * shape_.head_dim;
  }
  size_t page_bytes() const { return 2 * sizeof(uint16_t) * static_cast<size_t>(shape_.head_dim); }

 private:
  void derive(const CacheView& keys, int head, int64_t page, uint16_t* out) const;

  HeadShape shape_;
  int page_;
  int64_t n_pages_;
  KnownCells known_;
  HugeBuffer pages_;
};

}  // namespace hata
