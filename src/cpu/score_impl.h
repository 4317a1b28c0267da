// Stage 2 for one instruction set. Included by kernels_<isa>.cpp only, after its vectors.

namespace hata::cpu::HATA_ISA {
namespace {

constexpr int kPrefetchBytes = 8192;  // ahead of the keys being read: two pages

/// Of kScoreKeys keys.
template <int Words>
void prefetch_ahead(const uint64_t* block) {
  for (int byte = 0; byte < kScoreKeys * Words * 8; byte += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(block) + kPrefetchBytes + byte);
  }
}

template <int Words, int N>
void score_planes(const ScorePlan& plan, const uint64_t* keys, const uint8_t* lengths, int64_t n,
                  int16_t* scores) {
  const Planes<Words, N> planes(plan);
  for (int64_t i = 0; i < n; i += kScoreKeys) {
    const uint64_t* block = keys + i * Words;
    prefetch_ahead<Words>(block);
    const I16 sums = planes.sums(block);
    I16 result = half_distance(plan, sums);  // D / 2 = (8 * D) >> kScoreShift
    if (lengths != nullptr) {
      const I16 length = load_lengths(lengths + i / 2);
      result = plan.narrow ? weigh_narrow(length, result) : weigh_wide(length, result);
    }
    result.store(scores + i);
  }
}

template <int Words>
void score_words(const ScorePlan& plan, const uint64_t* keys, const uint8_t* lengths, int64_t n,
                 int16_t* scores) {
  switch (plan.n_planes) {
    case 1:
      return score_planes<Words, 1>(plan, keys, lengths, n, scores);
    case 2:
      return score_planes<Words, 2>(plan, keys, lengths, n, scores);
    case 3:
      return score_planes<Words, 3>(plan, keys, lengths, n, scores);
    case 4:
      return score_planes<Words, 4>(plan, keys, lengths, n, scores);
    case 5:
      return score_planes<Words, 5>(plan, keys, lengths, n, scores);
    case 6:
      return score_planes<Words, 6>(plan, keys, lengths, n, scores);
    default:
      return score_planes<Words, 7>(plan, keys, lengths, n, scores);
  }
}

void score(const ScorePlan& plan, const uint64_t* keys, const uint8_t* lengths, int64_t n,
           int16_t* scores) {
  switch (plan.words) {
    case 1:
      return score_words<1>(plan, keys, lengths, n, scores);
    case 2:
      return score_words<2>(plan, keys, lengths, n, scores);
    default:
      return score_words<4>(plan, keys, lengths, n, scores);
  }
}

/// Planes whose sums are a query head's distances.
template <int Words>
Planes<Words, 1> head_planes(const uint64_t* query) {
  ScorePlan plan{};
  for (int w = 0; w < Words; ++w) {
    plan.majority[w] = query[w];
    plan.planes[0][w] = ~uint64_t{0};
  }
  return Planes<Words, 1>(plan);
}

template <int Words>
void squares_words(const uint64_t* query, int group, const uint64_t* keys, const uint8_t* lengths,
                   int64_t n, int16_t* scores) {
  Planes<Words, 1> heads[kMaxGroup];
  for (int g = 0; g < group; ++g) heads[g] = head_planes<Words>(query + g * Words);
  for (int64_t i = 0; i < n; i += kScoreKeys) {
    const uint64_t* block = keys + i * Words;
    prefetch_ahead<Words>(block);
    const auto agreement = [&](int g) { return below(Words * 32, heads[g].sums(block)); };
    Squares squares = Squares::zero();
    for (int g = 0; g + 1 < group; g += 2) squares.add(agreement(g), agreement(g + 1));
    if (group % 2 != 0) squares.add(agreement(group - 1), I16::all(0));
    const I16 length = lengths != nullptr ? load_lengths(lengths + i / 2) : I16::all(8);
    squares.levels(length).store(scores + i);
  }
}

void score_squares(const uint64_t* query, int group, int words, const uint64_t* keys,
                   const uint8_t* lengths, int64_t n, int16_t* scores) {
  switch (words) {
    case 1:
      return squares_words<1>(query, group, keys, lengths, n, scores);
    case 2:
      return squares_words<2>(query, group, keys, lengths, n, scores);
    default:
      return squares_words<4>(query, group, keys, lengths, n, scores);
  }
}

}  // namespace
}  // namespace hata::cpu::HATA_ISA
