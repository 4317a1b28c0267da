#include "ggml/verify.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace hata::host {
namespace {

constexpr uint64_t kMix = 0x9E3779B97F4A7C15;
constexpr uint64_t kSampleOf = 512;   // one cell in so many is encoded again at every step
constexpr int64_t kFreshInFull = 64;  // so many new cells are all encoded again
constexpr int64_t kWordsAtOnce = 16;
constexpr int64_t kCellsAtOnce = 1024;

uint64_t mixed(uint64_t x) {
  x *= kMix;
  return x ^ (x >> 32);
}

/// Never 0. The row's size is a multiple of 8 bytes: head_dim is a multiple of 16.
uint64_t hash_row(const std::byte* row, size_t bytes) {
  uint64_t hash = kMix;
  for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, row + at, sizeof(word));
    hash = mixed(hash ^ word) + at;
  }
  return hash | 1;
}

}  // namespace

void Verifier::before(const Step& step, const CellIndex& index, const Worker& worker) {
  if (worker.ith == 0) index.stale(step.first_cell, step.first_cell + step.n_kv, fresh_);
  worker.barrier();
}

void Verifier::after(const Step& step, std::span<const RowPlan> plans, const KeyStore& store,
                     const CacheView& keys, size_t row_bytes, KeyHashes& hashes,
                     const Worker& worker) {
  const auto n_words = (step.n_kv + 63) / 64;
  const auto n_fresh = static_cast<int64_t>(fresh_.size());
  if (worker.ith == 0) {
    valid_.assign(static_cast<size_t>(n_words), 0);
    for (const RowPlan& plan : plans) {
      if (plan.budget == 0) continue;
      for (size_t w = 0; w < valid_.size(); ++w) valid_[w] |= plan.valid[w];
    }
    sample_ = mixed(sample_ + kMix);
    ++steps_;
  }
  worker.barrier();
  worker.share((n_fresh + kCellsAtOnce - 1) / kCellsAtOnce, [&](int64_t item) {
    const int64_t end = std::min(n_fresh, (item + 1) * kCellsAtOnce);
    for (int64_t i = item * kCellsAtOnce; i < end; ++i) {
      const int64_t cell = fresh_[static_cast<size_t>(i)];
      hashes.at(cell) = hash_row(keys.row(cell, 0), row_bytes);
      if (n_fresh <= kFreshInFull || sampled(cell)) encode_again(cell, store, keys, hashes);
    }
  });
  worker.share((n_words + kWordsAtOnce - 1) / kWordsAtOnce, [&](int64_t item) {
    const int64_t end = std::min(n_words, (item + 1) * kWordsAtOnce);
    for (int64_t w = item * kWordsAtOnce; w < end; ++w) {
      for (uint64_t bits = valid_[static_cast<size_t>(w)]; bits != 0; bits &= bits - 1) {
        check_cell(step.first_cell + w * 64 + std::countr_zero(bits), store, keys, row_bytes,
                   hashes);
      }
    }
  });
}

bool Verifier::sampled(int64_t cell) const {
  return mixed(static_cast<uint64_t>(cell) + sample_) % kSampleOf == 0;
}

void Verifier::encode_again(int64_t cell, const KeyStore& store, const CacheView& keys,
                            KeyHashes& hashes) {
  reencoded_.fetch_add(1, std::memory_order_relaxed);
  if (store.matches(keys, cell)) return;
  stale_.fetch_add(1, std::memory_order_relaxed);
  hashes.at(cell) = 0;  // differs at the next step, too
}

void Verifier::check_cell(int64_t cell, const KeyStore& store, const CacheView& keys,
                          size_t row_bytes, KeyHashes& hashes) {
  cells_.fetch_add(1, std::memory_order_relaxed);
  const uint64_t hash = hash_row(keys.row(cell, 0), row_bytes);
  const bool changed = hashes.at(cell) != hash;
  if (changed) unseen_.fetch_add(1, std::memory_order_relaxed);
  hashes.at(cell) = hash;
  if (changed || sampled(cell)) encode_again(cell, store, keys, hashes);
}

VerifyCounts& VerifyCounts::operator+=(const VerifyCounts& other) {
  steps += other.steps;
  cells += other.cells;
  reencoded += other.reencoded;
  unseen += other.unseen;
  stale += other.stale;
  return *this;
}

VerifyCounts Verifier::take_counts() {
  return {.steps = std::exchange(steps_, 0),
          .cells = cells_.exchange(0),
          .reencoded = reencoded_.exchange(0),
          .unseen = unseen_.exchange(0),
          .stale = stale_.exchange(0)};
}

}  // namespace hata::host
