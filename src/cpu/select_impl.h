// Stage 3 for one instruction set. Included by kernels_<isa>.cpp only, after its vectors.

namespace hata::cpu::HATA_ISA {
namespace {

int64_t collect(int32_t first_cell, const int16_t* scores, const uint64_t* valid, int64_t n_words,
                int threshold, Candidates& out) {
  int64_t count = out.count;
  int64_t word = 0;
  for (; word < n_words && count < out.limit; ++word) {
    if (valid[word] == 0) continue;
    const uint64_t hits = valid[word] & above(scores + word * 64, threshold);
    if (hits == 0) continue;
    add_hits(first_cell + static_cast<int32_t>(word * 64), scores + word * 64, hits,
             out.cells + count, out.scores + count);
    count += __builtin_popcountll(hits);
  }
  out.count = count;
  return word;
}

int64_t count_above(const int16_t* scores, int64_t n, int threshold) {
  int64_t count = 0;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) count += __builtin_popcountll(above(scores + i, threshold));
  for (; i < n; ++i) count += scores[i] > threshold;
  return count;
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
