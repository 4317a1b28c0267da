// The parts of stage 3 for instruction sets that cannot compress a vector.

namespace hata::cpu::HATA_ISA {
namespace {

/// Writes the keys of one word whose bit in `hits` is set.
inline void add_hits(int32_t first_cell, const int16_t* scores, uint64_t hits, int32_t* to_cells,
                     int16_t* to_scores) {
  for (; hits != 0; hits &= hits - 1) {
    const int i = __builtin_ctzll(hits);
    *to_cells++ = first_cell + i;
    *to_scores++ = scores[i];
  }
}

void keep(int threshold, int64_t ties, Candidates& candidates) {
  int64_t kept = 0;
  for (int64_t i = 0; i < candidates.count; ++i) {
    const int32_t cell = candidates.cells[i];
    const int16_t score = candidates.scores[i];
    candidates.cells[kept] = cell;  // overwritten by the next one where this one is dropped
    candidates.scores[kept] = score;
    const bool tie = score == threshold && ties > 0;
    ties -= tie;
    kept += tie || score > threshold;
  }
  candidates.count = kept;
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
