// Stage 3 for one instruction set. Included by kernels_<isa>.cpp only, after its vectors.

namespace hata::cpu::HATA_ISA {
namespace {

int64_t collect(int32_t first_cell, const int16_t* scores, const uint64_t* valid, int64_t n_words,
                int threshold, Candidates& out) {
  int64_t word = 0;
  for (; word < n_words && out.count < out.limit; ++word) {
    if (valid[word] == 0) continue;
    const uint64_t hits = valid[word] & above(scores + word * 64, threshold);
    if (hits == 0) continue;
    add_hits(first_cell + static_cast<int32_t>(word * 64), scores + word * 64, hits, out);
  }
  return word;
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
