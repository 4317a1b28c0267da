// The decode step as one kernel: encode, score, select, attend. A cluster of blocks serves one row
// and KV head; blocks exchange histograms, chosen cells and partial results through each other's
// shared memory. Without `p.attend` it ends with the chosen cells in p.selected.
//
// Measured, 2026-11 (docs/cuda.md): an integer instruction that all 16 warps run takes 8 cycles, a
// 64-bit division 1000, and a cluster barrier that releases is a fence of the whole device. So what
// all do is short, words are sent with barriers of their own, and the loop over keys has two pieces
// under way and no branches. Codes asked for before W and the queries keep these waiting for 7 us.
// 256 blocks in clusters of 4 do not fit a Hopper at once, 128 of 16 warps in clusters of 2 do, and
// so do 256 of 8 warps without clusters, two a multiprocessor.
#pragma once

#include "attend.cuh"
#include "clocks.cuh"
#include "select.cuh"

namespace hata::cuda {

/// Barriers of a block that count what other blocks send to it.
struct Arrivals {
  uint64_t codes, list, results;
};

/// Chosen cells in lists of the blocks that attend to them, keys_each a block.
struct Lists {
  int32_t* selected;  ///< of the row and KV head, or nullptr
  uint32_t list;      ///< address in shared memory
  uint32_t arrival;   ///< likewise: the barrier for it
  int keys_each;      ///< 0: not attended to here
  int n_blocks;
  uint32_t inverse;  ///< of keys_each, in 2^-32, rounded up; exact for as many keys as fit a list

  /// How many of `chosen` keys block `rank` attends to.
  __device__ __forceinline__ int n_keys(int rank, int chosen) const {
    return min(max(chosen - rank * keys_each, 0), keys_each);
  }
  __device__ __forceinline__ void operator()(bool ok, int position, int cell) const {
    if (selected != nullptr && ok) selected[position] = cell;
    if (keys_each == 0) return;
    const int owner = n_blocks > 1 ? __umulhi(position, inverse) : 0;
    send(ok, peer_address(list + 4 * (position - owner * keys_each), owner),
         static_cast<uint32_t>(cell), peer_address(arrival, owner), n_blocks == 1);
  }
};

// The slow ways, out of line below.
template <int kWarps, class Query>
__device__ __noinline__ void count_all(const StepParams& p, std::byte* memory,
                                       Codes<Query::kWords>& codes, SelectScratch& s, int n_blocks,
                                       int row, int head, int n_kv);
template <int kWarps, class Query>
__device__ __noinline__ void put_from_codes(const StepParams& p, std::byte* memory,
                                            Codes<Query::kWords>& codes, SelectScratch& s,
                                            int n_blocks, int row, int head, int n_kv,
                                            const Threshold& t, int own_ties, Lists put);

/// One block's part of a step, as far as the choice of keys.
template <int kWarps, class Query, int kStages>
struct Chooser {
  static constexpr int kWords = Query::kWords, kBinShift = Query::kBinShift;
  static constexpr int kThreads = kWarps * kWarp;
  using Pieces = cuda::Pieces<kWarps>;
  using Cursor = cuda::Cursor<kWarps>;
  static constexpr int kCodeBytes = kWords * 4;
  static constexpr int kPieceBytes = piece_bytes(32 * kWords);
  static constexpr int kStageBytes = kWarps * kPieceBytes;
  static constexpr int kRows = kPiece / kWarp;  ///< keys of a lane in a piece

  const StepParams& p;
  std::byte* const memory;
  const StepLayout& layout;
  Codes<kWords>& codes;
  SelectScratch& s;
  const int n_blocks, shift, rank, row, head;  ///< n_blocks = 2^shift
  const int warp, lane;
  int n_kv, budget;
  const Pieces pieces;
  const Cells cells;
  const int last_code;         ///< the cell whose code this step makes, or -1
  int plain_begin, plain_end;  ///< cells that are valid, not forced, and have their codes
  Cursor coming;               ///< the next piece to be asked for
  int length_shift;            ///< of the lane's nibbles in words of lengths
  uint32_t ring;  ///< shared memory of the lane's first code; then of its word of lengths
  uint32_t ring_lengths;
  const std::byte*
      lane_codes;  ///< of a contiguous cache: the lane's first code, and word of lengths
  const std::byte* lane_lengths;

  __device__ __forceinline__ Chooser(const StepParams& params, std::byte* smem, Codes<kWords>& c,
                                     SelectScratch& scratch, int size, int row_, int head_,
                                     int n_kv_)
      : p(params),
        memory(smem),
        layout(params.layout),
        codes(c),
        s(scratch),
        n_blocks(size),
        shift(log2_of(size)),
        rank(size == 1 ? 0 : cluster_rank()),
        row(row_),
        head(head_),
        warp(warp_index()),
        lane(threadIdx.x % kWarp),
        n_kv(n_kv_),
        budget(params.budgets != nullptr ? max(1, min(params.budgets[row_], params.budget))
                                         : params.budget),
        pieces(n_kv_, rank, shift),
        cells(params, params.sequences != nullptr ? params.sequences[row_] : row_, head_),
        last_code(params.encode_last ? n_kv_ - 1 : -1),
        coming(pieces, warp) {
    length_shift = lane % 8 * 4;
    ring = shared_address(memory + layout.ring + warp * kPieceBytes);
    // The 16 words of lengths lie so that a lane finds its four side by side.
    ring_lengths = ring + kPiece * kCodeBytes + (lane % 4 * 4 + lane / 4) * 4;
    ring += lane * kCodeBytes;
    const int64_t first = cells.first_slot + pieces.first_cell();
    lane_codes = reinterpret_cast<const std::byte*>(p.codes.codes) + (first + lane) * kCodeBytes;
    const bool has_length = p.codes.lengths != nullptr && lane < kPiece / 8;
    lane_lengths = has_length ? reinterpret_cast<const std::byte*>(p.codes.lengths) +
                                    (first + pieces.cell(0, lane / 4)) / 2 + lane % 4 * 4
                              : nullptr;
    const bool bits = p.valid != nullptr || p.forced != nullptr;
    plain_begin = p.sink;
    plain_end = bits ? 0 : n_kv - max(p.recent, p.encode_last ? 1 : 0);
  }

  template <class T>
  __device__ __forceinline__ T* at(int offset) const {
    return reinterpret_cast<T*>(memory + offset);
  }
  __device__ __forceinline__ int* hist() const { return at<int>(layout.hist); }
  __device__ __forceinline__ int* sample() const { return at<int>(layout.sample); }
  __device__ __forceinline__ Threshold find(const int* in, int lowest) const {
    return find_threshold<kWarps>(in, at<int>(layout.totals), at<int>(layout.before),
                                  n_bins(Query::kSquares, p.group, p.rbit), lowest, budget, rank,
                                  n_blocks, s);
  }
  __device__ __forceinline__ uint32_t* candidates() const {
    return at<uint32_t>(layout.shared) + warp * p.candidate_limit;
  }

  // --- codes under way ----------------------------------------------------------------------

  /// Begins to copy the warp's next piece into the ring; always commits one group of copies.
  __device__ __forceinline__ void begin_piece(int offset) {
    if (coming.has(pieces)) {
      const uint32_t to = ring + offset, to_length = ring_lengths + offset;
      if (cells.table == nullptr) {
        // A sequence's capacity is whole pieces, so nothing is read that is not there.
        const std::byte* from =
            lane_codes + static_cast<int64_t>(coming.piece) * Pieces::kPieceStep * kCodeBytes;
        const int row_bytes = pieces.row_step() * kCodeBytes;
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          copy_code(to + i * kWarp * kCodeBytes, from + i * row_bytes, true);
        }
        if (lane_lengths != nullptr)
          copy_async<4>(to_length, lane_lengths + coming.piece * (Pieces::kPieceStep / 2), true);
      } else {
        const int first = pieces.first_cell();
#pragma unroll 1
        for (int i = 0; i < kRows; ++i) {
          const int cell = first + pieces.cell(coming.piece, i) + lane;
          const bool ok = cell < n_kv;
          copy_code(to + i * kWarp * kCodeBytes, p.codes.codes + cells.slot(ok ? cell : 0) * kWords,
                    ok);
        }
        const int cell = first + pieces.cell(coming.piece, lane / 4) + lane % 4 * 8;
        if (lane_lengths != nullptr && cell < n_kv) {
          copy_async<4>(to_length, p.codes.lengths + cells.slot(cell) / 2, true);
        }
      }
    }
    commit_copies();
    coming.next(pieces);
  }
  static __device__ __forceinline__ void copy_code(uint32_t to, const void* from, bool ok) {
    if constexpr (kCodeBytes < 16) {
      copy_async<8>(to, from, ok);
    } else {
#pragma unroll
      for (int part = 0; part < kCodeBytes; part += 16) {
        copy_async<16>(to + part, static_cast<const std::byte*>(from) + part, ok);
      }
    }
  }

  // --- encode -------------------------------------------------------------------------------

  __device__ __forceinline__ float* vector(int i) const {
    return at<float>(layout.vectors) + i * vector_stride(p.head_dim);
  }
  /// The last key's element of this thread (head_dim is at most a thread each). kAnyType: of a
  /// cache that may be q8_0, for which a kernel that attends has no registers to spare.
  template <bool kAnyType>
  __device__ __forceinline__ uint32_t load_last_key() const {
    if (last_code < 0 || static_cast<int>(threadIdx.x) >= p.head_dim) return 0;
    const std::byte* key = cells.key(last_code);
    return kAnyType ? load_key_element(key, p.cache.type, threadIdx.x)
                    : load_element(key, p.cache.type, threadIdx.x);
  }
  template <bool kAnyType>
  __device__ __forceinline__ void store_last_key(uint32_t bits) const {
    if (last_code < 0 || static_cast<int>(threadIdx.x) >= p.head_dim) return;
    const float* mean = p.projection.key_means;
    const float v = kAnyType ? widen_key(bits, p.cache.type) : widen(bits, p.cache.type);
    vector(p.group + 1)[threadIdx.x] = v;
    vector(p.group)[threadIdx.x] =
        mean != nullptr ? __fsub_rn(v, mean[head * p.head_dim + threadIdx.x]) : v;
  }

  /// Columns that this block encodes for the whole cluster.
  __device__ __forceinline__ int own_columns() const { return p.rbit >> shift; }
  __device__ __forceinline__ const float* projection(const float* w) const {
    return w + static_cast<int64_t>(head) * p.head_dim * p.rbit;
  }

  /// Encodes the queries and the last key. The first slab of W is in shared memory.
  template <int kDim>
  __device__ __forceinline__ void encode(float inv_unit, uint32_t arrival) {
    const bool with_key = last_code >= 0;
    const bool apart = p.projection.queries != nullptr;
    if (warp == kWarps - 1) {  // it has no other work here, as a rule
      if (with_key && p.codes.lengths != nullptr) {
        const float* key = vector(p.group + 1);
        const float norm2 = norm2_of<kDim>(p.head_dim, lane % 16, [&](int i) { return key[i]; });
        if (lane == 0) codes.new_length = length_of(norm2, inv_unit);
      }
      prepare();
    }
    // The key's projection comes behind, where it has its own.
#pragma unroll 1
    for (int part = 0; part < (with_key && apart ? 2 : 1); ++part) {
      const float* w = projection(apart && part == 0 ? p.projection.queries : p.projection.keys);
      const int first = part == 0 ? 0 : p.group;
      const int count = part == 1 ? 1 : p.group + (with_key && !apart ? 1 : 0);
      const int own = own_columns(), step = min(own, p.slab_columns);
      auto* slab = at<float>(layout.slab);
#pragma unroll 1
      for (int column = 0; column < own; column += step) {
        if (column > 0 || part > 0) {
          __syncthreads();
          begin_slab<kDim>(w, p.head_dim, p.rbit, rank * own + column, step, slab, kThreads);
          commit_copies();
          wait_copies<0>();
          __syncthreads();
        }
        const auto encode = [&](auto encode_slab) {
          encode_slab(slab, p.head_dim, rank * own + column, step, vector(first), count,
                      shared_address(&codes.parts[first][0]), arrival, n_blocks, kThreads);
        };
        if (kWarps == kStepWarps && step <= kWarp / 2) {
          encode(encode_slab<kDim, 1>);
        } else {
          encode(encode_slab<kDim, 3>);
        }
      }
    }
  }
  __device__ __forceinline__ void store_last_code() const {
    if (warp != kWarps - 1 || last_code < 0 || rank != 0) return;
    const int64_t slot = cells.slot(last_code);
    if (lane < kWords) p.codes.codes[slot * kWords + lane] = codes.vectors[p.group][lane];
    if (lane == 0 && p.codes.lengths != nullptr) {
      store_length(p.codes.lengths, slot, codes.new_length);
    }
  }

  // --- score --------------------------------------------------------------------------------

  __device__ __forceinline__ bool is_forced(int cell) const {
    if (p.forced != nullptr) {
      return p.forced[row * p.bit_stride + cell / 32] >> (cell % 32) & 1;
    }
    return cell < p.sink || cell >= n_kv - p.recent;
  }
  __device__ __forceinline__ bool is_valid(int cell) const {
    return cell < n_kv && (p.valid == nullptr ||
                           (p.valid[row * p.bit_stride + cell / 32] >> (cell % 32) & 1) != 0);
  }

  /// Whether all cells of a piece may be chosen and none must be, by their bits. Whole warps.
  __device__ __forceinline__ bool is_plain_by_bits(int piece) const {
    const int first = pieces.first_cell() + pieces.cell(piece, lane % kRows);
    const int64_t word = row * p.bit_stride + first / 32;
    const bool free = p.forced != nullptr ? first + kWarp <= n_kv && p.forced[word] == 0u
                                          : first >= p.sink && first + kWarp <= n_kv - p.recent;
    const bool known = last_code < first || last_code >= first + kWarp;
    return __all_sync(kAll, free && known && p.valid[word] == 0xffffffffu);
  }
  /// The code that this step makes, as a bin.
  __device__ __forceinline__ int last_bin(const Query& query) const {
    uint32_t code[kWords];
#pragma unroll
    for (int w = 0; w < kWords; ++w) code[w] = codes.vectors[p.group][w];
    const int length = p.codes.lengths != nullptr ? static_cast<int>(codes.new_length) : 8;
    return query.bin(code, length);
  }
  /// What the bin of a cell's code is in the choice; -1: it may not be chosen.
  __device__ __forceinline__ int final_bin(int bin, int cell, int last) const {
    if (cell == last_code) bin = last;
    if (is_forced(cell)) bin = forced_bin(Query::kSquares, p.group, p.rbit);
    return is_valid(cell) ? bin : -1;
  }

  /// Bins of the keys that the lane has of a piece, times 2^kBinShift and some, by their codes
  /// and lengths alone; the piece lies `offset` bytes into the ring. Whole warps; no branches, so
  /// that this goes on while the piece before it is kept.
  __device__ __forceinline__ void score_piece(const Query& query, int offset,
                                              int (&bins)[kRows]) const {
    const std::byte* piece = memory + layout.ring + warp * kPieceBytes + offset;
    const uint4 words = reinterpret_cast<const uint4*>(piece + kPiece * kCodeBytes)[lane / 8];
    const uint32_t lengths[kRows] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < kRows; i += 2) {
      uint32_t x[kWords], y[kWords];
      load_code(piece + (i * kWarp + lane) * kCodeBytes, x);
      load_code(piece + ((i + 1) * kWarp + lane) * kCodeBytes, y);
      query.scaled_bins(x, y, static_cast<int>(lengths[i] >> length_shift & 15),
                        static_cast<int>(lengths[i + 1] >> length_shift & 15), bins[i],
                        bins[i + 1]);
    }
  }
  /// What else bins depend on: whether there is a piece, and which of its cells may or must be
  /// chosen. Whole warps.
  __device__ __forceinline__ void finish_bins(const Query& query, const Cursor& at,
                                              int (&bins)[kRows]) const {
    const bool has = at.has(pieces);
    const int first = pieces.first_cell() + pieces.cell(at.piece, 0);
    const int end = first + (kRows - 1) * pieces.row_step() + kWarp;
    if (has && first >= plain_begin && end <= plain_end) return;
    if (has && p.valid != nullptr && is_plain_by_bits(at.piece)) return;
    const int last = last_bin(query);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int cell = first + i * pieces.row_step() + lane;
      const int bin = has ? final_bin(bins[i] >> kBinShift, cell, last) : -1;
      bins[i] = bin * (1 << kBinShift);
    }
  }
  /// Without lengths all are alike.
  __device__ __forceinline__ void fill_lengths() const {
    if (p.codes.lengths != nullptr || lane >= kPiece / 8) return;
#pragma unroll 1
    for (int stage = 0; stage < kStages; ++stage) {
      store_if(true, ring_lengths + stage * kStageBytes, 0x88888888u);
    }
  }

  /// Keeps the piece's keys at or above the cut; returns how many the warp has then. No branches.
  __device__ __forceinline__ int keep(const Cursor& at, const int (&bins)[kRows], int cut,
                                      int count) const {
    const bool room = count + kPiece <= p.candidate_limit;
    if (!room) s.overflowed = 1;
    const int least = cut << kBinShift, least_stored = room ? least : INT_MAX;
    const uint32_t cell = pieces.cell(at.piece, 0) + lane, below = (1u << lane) - 1;
    const uint32_t to = shared_address(candidates()), bin_at = shared_address(hist());
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const unsigned hits = __ballot_sync(kAll, bins[i] >= least);
      const int bin = bins[i] >> kBinShift;
      store_at_least(bins[i], least_stored, to + 4 * (count + __popc(hits & below)),
                     static_cast<uint32_t>(bin) << kIndexBits | (cell + i * pieces.row_step()));
      count_at_least(bins[i], least, bin_at + 4 * bin);
      count += __popc(hits);
    }
    return count;
  }

  /// The warp's candidates are about to exceed their room. Where this block alone has counted
  /// enough keys above a higher bin, no lower one can be chosen: the cut rises for this warp.
  __device__ __forceinline__ int prune(int count, int& cut) const {
    const int rise = bin_of_best(hist(), n_bins(Query::kSquares, p.group, p.rbit), budget);
    if (rise <= cut) return count;
    cut = rise;
    int kept = 0;
#pragma unroll 1
    for (int first = 0; first < count; first += kWarp) {
      const uint32_t entry = first + lane < count ? candidates()[first + lane] : 0u;
      const bool keeps = static_cast<int>(entry >> kIndexBits) >= cut;
      const unsigned all = __ballot_sync(kAll, keeps);
      __syncwarp();
      if (keeps) candidates()[kept + __popc(all & ((1u << lane) - 1))] = entry;
      __syncwarp();
      kept += __popc(all);
    }
    return kept;
  }

  // --- choose -------------------------------------------------------------------------------

  /// What one warp finds out for all: divisions and roots are long.
  __device__ __forceinline__ void prepare() const {
    // So many keys of the sample shall lie at or above the cut that as many of the block's as could
    // be chosen will: all that are wanted may be in one block. Where there is no room for so many,
    // as many as there surely is room for, or less, since a bin may hold many; but the block's even
    // share.
    const float part =
        static_cast<float>(pieces.sampled()) / static_cast<float>(max(1, pieces.count));
    const float expected = static_cast<float>(budget) * part;
    const auto surely = [](float n) { return n + 4.0f * sqrtf(n) + 8.0f; };
    const float all = surely(expected), share = surely(expected / static_cast<float>(n_blocks));
    const float room = 0.7f * static_cast<float>(kWarps * (p.candidate_limit - kPiece)) * part;
    // There is room for all keys, or a block alone makes room: prune().
    const bool fits = all <= room || n_blocks == 1 || pieces.rounds * kPiece <= p.candidate_limit;
    const int wanted = max(1, static_cast<int>(fits ? all : room));
    const int needed = fits ? 0 : static_cast<int>(share);
    const int each = (min(budget, max(n_kv, 0)) + n_blocks - 1) >> shift;
    const int keys_each = max(kTileKeys, (each + kTileKeys - 1) / kTileKeys * kTileKeys);
    if (lane == 0) {
      s.wanted = wanted;
      s.needed = needed;
      s.keys_each = keys_each;
      s.inverse = 0xffffffffu / keys_each + 1;
    }
  }

  /// Calls `put` for each key of this block that is chosen; positions count over the
  /// cluster. Returns how many are chosen in all.
  __device__ __forceinline__ int choose(const Lists& put) {
    constexpr int kCounted = 1, kCut = 2;  // barriers
    const Query query(codes, p.group, p.rbit);
    int cut = 0, count = 0, offset = 0;
    Cursor at(pieces, warp);
    int bins[kRows];
    wait_copies<kStages - 1>();
    __syncwarp();
    score_piece(query, offset, bins);
    finish_bins(query, at, bins);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (bins[i] >= 0) atomicAdd(sample() + (bins[i] >> kBinShift), 1);
    }
    if (warp == 0) {
      named_wait<kThreads>(kCounted);
      const int bins = n_bins(Query::kSquares, p.group, p.rbit);
      int found = bin_of_best(sample(), bins, s.wanted);
      if (s.needed > 0) found = min(found + 1, max(found, bin_of_best(sample(), bins, s.needed)));
      if (lane == 0) s.cut = found;
    } else {
      named_arrive<kThreads>(kCounted);
    }
    begin_piece(offset);
    named_wait<kThreads>(kCut);
    cut = s.cut;
    stamp(p, Part::kSample);
    // A piece is kept while the next one is scored: each alone is a chain of waits.
#pragma unroll 1
    for (int round = 1; round < pieces.rounds; ++round) {
      offset = offset == (kStages - 1) * kStageBytes ? 0 : offset + kStageBytes;
      const Cursor before = at;
      at.next(pieces);
      int next[kRows];
      wait_copies<kStages - 1>();
      __syncwarp();
      score_piece(query, offset, next);
      count = keep(before, bins, cut, count);
      __syncwarp();
      begin_piece(offset);
      finish_bins(query, at, next);
#pragma unroll
      for (int i = 0; i < kRows; ++i) bins[i] = next[i];
      if (count + kPiece > p.candidate_limit) count = prune(count, cut);
    }
    count = keep(at, bins, cut, count);
    wait_copies<0>();
    stamp(p, Part::kScore);
    cluster_barrier(n_blocks);
    clear_tied();
    Threshold t = find(hist(), s.cut);
    stamp(p, Part::kThreshold);
    bool again = s.overflowed != 0;
    if (t.highest_cut > 0 && (t.all < budget || t.bin < t.highest_cut)) {  // the same in all blocks
      count_all<kWarps, Query>(p, memory, codes, s, n_blocks, row, head, n_kv);
      t = s.threshold;
      again = true;
    }
    const int chosen = min(budget, t.all);
    const int ties_wanted = chosen - t.above;  // of all blocks
    const int own_ties = min(max(ties_wanted - t.before_at, 0), t.own_at);
    if (threadIdx.x == 0 && put.keys_each > 0)
      expect_bytes(put.arrival, 4 * put.n_keys(rank, chosen));
    if (again) {
      put_from_codes<kWarps, Query>(p, memory, codes, s, n_blocks, row, head, n_kv, t, own_ties,
                                    put);
    } else {
      put_from_candidates(count, t, own_ties, put);
    }
    return chosen;
  }

  /// A bit for each of the block's cells, in place of the codes.
  __device__ __forceinline__ uint32_t* tied() const { return at<uint32_t>(layout.ring); }
  __device__ __forceinline__ void clear_tied() const {
#pragma unroll 1
    for (int i = threadIdx.x; i < pieces.count; i += kThreads) {
      static_assert(kPiece / 32 * sizeof(uint32_t) == sizeof(uint4));
      reinterpret_cast<uint4*>(tied())[i] = make_uint4(0, 0, 0, 0);
    }
  }

  /// The bin of a cell, its code read from memory again. Whole warps.
  __device__ __forceinline__ int bin_in_memory(const Query& query, int last, int cell) const {
    const int64_t slot = cells.slot(cell < n_kv ? cell : 0);
    uint32_t code[kWords];
    load_code(p.codes.codes + slot * kWords, code);
    const int length =
        p.codes.lengths != nullptr ? p.codes.lengths[slot / 2] >> (slot % 2 * 4) & 15 : 8;
    return final_bin(query.bin(code, length), cell, last);
  }

  __device__ __forceinline__ void put_from_candidates(int count, const Threshold& t, int own_ties,
                                                      const Lists& put) {
    const uint32_t* mine = candidates();
    const uint32_t above_from = static_cast<uint32_t>(t.bin + 1) << kIndexBits;
    const uint32_t at_from = static_cast<uint32_t>(t.bin) << kIndexBits;
    constexpr uint32_t kIndex = (1u << kIndexBits) - 1;
    int above = 0;
    const uint32_t ties_at = shared_address(tied());
#pragma unroll 2
    for (int i = lane; i < count; i += kWarp) {
      const uint32_t entry = mine[i];
      above += entry >= above_from;
      or_if(entry >= at_from && entry < above_from, ties_at + (entry & kIndex) / 32 * 4,
            1u << (entry % 32));
    }
    above = sum_warp(above);
    if (lane == 0) s.warp_above[warp] = above;
    __syncthreads();
    above = t.before_above + sum_warp(lane < warp ? s.warp_above[lane] : 0);
    const int first_cell = pieces.first_cell();
#pragma unroll 2
    for (int first = 0; first < count; first += kWarp) {
      const uint32_t entry = first + lane < count ? mine[first + lane] : 0;
      const bool is_above = entry >= above_from;
      const unsigned aboves = __ballot_sync(kAll, is_above);
      put(is_above, above + __popc(aboves & ((1u << lane) - 1)),
          first_cell + static_cast<int>(entry & kIndex));
      above += __popc(aboves);
    }
    if (own_ties == 0) return;  // the same in all threads
    // Ties in the order of cells: each thread has neighbouring ones.
    const int n_words = pieces.count * (kPiece / 32);
    const int each = (n_words + kThreads - 1) / kThreads;
    const int begin = min(n_words, static_cast<int>(threadIdx.x) * each);
    const int end = min(n_words, begin + each);
    int ties = 0;
#pragma unroll 1
    for (int w = begin; w < end; ++w) ties += __popc(tied()[w]);
    const int inclusive = scan_warp(ties);
    if (lane == kWarp - 1) s.warp_ties[warp] = inclusive;
    __syncthreads();
    int tie = sum_warp(lane < warp ? s.warp_ties[lane] : 0) + inclusive - ties;
#pragma unroll 1
    for (int w = begin; w < end; ++w) {
#pragma unroll 1
      for (uint32_t bits = tied()[w]; bits != 0 && tie < own_ties; bits &= bits - 1, ++tie) {
        put(true, t.above + t.before_at + tie, first_cell + 32 * w + __ffs(bits) - 1);
      }
    }
  }
};

/// The cut was too high: counts all keys, from memory, in the place of the sample; the threshold
/// is s.threshold.
template <int kWarps, class Query>
__device__ __noinline__ void count_all(const StepParams& p, std::byte* memory,
                                       Codes<Query::kWords>& codes, SelectScratch& s, int n_blocks,
                                       int row, int head, int n_kv) {
  constexpr int kThreads = kWarps * kWarp;
  const Chooser<kWarps, Query, 1> c(p, memory, codes, s, n_blocks, row, head, n_kv);
  const Query query(codes, p.group, p.rbit);
  const int last = c.last_bin(query);
  for (int i = threadIdx.x; i < n_bins(Query::kSquares, p.group, p.rbit); i += kThreads)
    c.sample()[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < c.pieces.count * kPiece; i += kThreads) {
    const int bin = c.bin_in_memory(query, last, c.pieces.first_cell() + i);
    if (bin >= 0) atomicAdd(c.sample() + bin, 1);
  }
  cluster_barrier(n_blocks);
  c.find(c.sample(), 0);
}

/// The slow way, in the order of cells.
template <int kWarps, class Query>
__device__ __noinline__ void put_from_codes(const StepParams& p, std::byte* memory,
                                            Codes<Query::kWords>& codes, SelectScratch& s,
                                            int n_blocks, int row, int head, int n_kv,
                                            const Threshold& t, int own_ties, Lists put) {
  constexpr int kThreads = kWarps * kWarp;
  const Chooser<kWarps, Query, 1> c(p, memory, codes, s, n_blocks, row, head, n_kv);
  const Query query(codes, p.group, p.rbit);
  const int last = c.last_bin(query);
  int above = t.before_above, ties = 0;
  for (int first = 0; first < c.pieces.count * kPiece; first += kThreads) {
    const int i = first + threadIdx.x;
    const int cell = c.pieces.first_cell() + i;
    const int found = c.bin_in_memory(query, last, cell);
    const int bin = i < c.pieces.count * kPiece ? found : -1;
    const unsigned is_above = __ballot_sync(kAll, bin > t.bin);
    const unsigned is_at = __ballot_sync(kAll, bin == t.bin);
    __syncthreads();
    if (c.lane == 0) s.warp_above[c.warp] = __popc(is_above), s.warp_ties[c.warp] = __popc(is_at);
    __syncthreads();
    int my_above = above, my_ties = ties;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < c.warp) my_above += s.warp_above[w], my_ties += s.warp_ties[w];
      above += s.warp_above[w], ties += s.warp_ties[w];
    }
    const unsigned below = (1u << c.lane) - 1;
    my_ties += __popc(is_at & below);
    put(bin > t.bin, my_above + __popc(is_above & below), cell);
    put(bin == t.bin && my_ties < own_ties, t.above + t.before_at + my_ties, cell);
  }
}

/// Attends to the block's list of cells, once all blocks have put what they chose.
template <int kWarps, class T, int kDim, int kHeadTiles>
__device__ __forceinline__ void attend_list(const StepParams& p, std::byte* memory,
                                            const Arrivals& arrived, const Cells& cells, int row,
                                            int head, int rank, int n_blocks, int n_keys) {
  constexpr int kThreads = kWarps * kWarp;
  const StepLayout& layout = p.layout;
  const int warp = warp_index(), lane = threadIdx.x % kWarp;
  const auto* list = reinterpret_cast<const int32_t*>(memory + layout.list);
  std::byte* buffer = memory + layout.ring + warp * p.gather_bytes;
  __shared__ float2 ml[kWarps][8 * kHeadTiles];
  {
    const TileCopies<kDim, 1, false> copies{cells, shared_address(buffer), 0};
    // Few keys are dealt out to all warps, so that their rows come in fewer steps.
    const int of_tile = min(kTileKeys, (n_keys + kWarps - 1) / kWarps);
    const int n_tiles =
        of_tile < kTileKeys ? min(n_keys, kWarps) : (n_keys + kTileKeys - 1) / kTileKeys;
    const auto cell_at = [&](int i) {
      const int in_tile = i % kTileKeys, at = i / kTileKeys * of_tile + in_tile;
      return in_tile < of_tile && at < n_keys ? list[at] : -1;
    };
    Attention<T, kDim, kHeadTiles> attention;
    attention.begin(reinterpret_cast<const float*>(memory + layout.vectors), vector_stride(kDim),
                    p.group);
    __syncthreads();  // the ring's memory is used anew
    receive(shared_address(&arrived.list), n_blocks == 1);
    stamp(p, Part::kLists);
    copies.begin_all(warp, kWarps, n_tiles, cell_at);
    attention.run(p, copies, row, head, warp, kWarps, n_tiles, cell_at);
    stamp(p, Part::kAttend);
    attention.put(p.group, reinterpret_cast<float*>(buffer), &ml[warp][0].x);
  }
  __syncthreads();
  // The warps' results become the block's; a warp here has elements of one head. They go to the
  // blocks that finish them, a range of dimensions each.
  const int columns = kDim >> log2_of(n_blocks);
  const uint32_t results = shared_address(memory + layout.results);
  const uint32_t mls = results + p.group * kDim * 4;
  const uint32_t arrival = shared_address(&arrived.results);
  // All warps' scales, in a copy of each warp's own; no other block reads what lay here.
  auto* scales = reinterpret_cast<float*>(memory + layout.totals) + warp * kWarps;
#pragma unroll 1
  for (int i = threadIdx.x; i < p.group * kDim; i += kThreads) {
    const int g = i / kDim, d = i % kDim;
    const float2 part = lane < kWarps ? ml[lane][g] : make_float2(-INFINITY, 0.0f);
    const float max = max_warp(part.x);
    const float scale = exp2f(part.x - (max == -INFINITY ? 0.0f : max));
    float sum = 0.0f;
    __syncwarp();
    if (lane < kWarps) scales[lane] = scale;
    __syncwarp();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      sum += scales[w] * reinterpret_cast<const float*>(
                             memory + layout.ring + w * p.gather_bytes)[g * kHeadStride<kDim> + d];
    }
    const int owner = d >> log2_of(columns);
    send(true,
         peer_address(results + ((rank * p.group + g) * columns + (d & (columns - 1))) * 4, owner),
         __float_as_uint(sum), peer_address(arrival, owner), n_blocks == 1);
    if (d < kWarp) {  // one warp a head
      float of_head = scale * part.y;
#pragma unroll
      for (int step = 1; step < kWarp; step *= 2) {
        of_head += __shfl_xor_sync(kAll, of_head, step);
      }
      const bool sends = d < n_blocks;
      const uint32_t to = peer_address(mls + (rank * p.group + g) * 8, sends ? d : 0);
      send(sends, to, __float_as_uint(max), peer_address(arrival, sends ? d : 0), n_blocks == 1);
      send(sends, to + 4, __float_as_uint(of_head), peer_address(arrival, sends ? d : 0),
           n_blocks == 1);
    }
  }
  stamp(p, Part::kMerge);
  receive(arrival, n_blocks == 1);
  const auto* parts = reinterpret_cast<const float*>(memory + layout.results);
  const auto* part_ml = reinterpret_cast<const float2*>(parts + p.group * kDim);
#pragma unroll 1
  for (int i = threadIdx.x; i < p.group * columns; i += kThreads) {
    const int g = i >> log2_of(columns), d = rank * columns + (i & (columns - 1));
    float max = -INFINITY;
#pragma unroll 8
    for (int b = 0; b < n_blocks; ++b) max = fmaxf(max, part_ml[b * p.group + g].x);
    const float base = max == -INFINITY ? 0.0f : max;
    float total = 0.0f, sum = 0.0f;
#pragma unroll 8
    for (int b = 0; b < n_blocks; ++b) {
      const float2 part = part_ml[b * p.group + g];
      const float scale = exp2f(part.x - base);
      total += scale * part.y;
      sum += scale * parts[b * p.group * columns + i];
    }
    const int q_head = head * p.group + g;
    store_out(p, row, q_head, d, sum * normaliser(p, q_head, {max, total}));
  }
}

/// grid: (blocks of a cluster, KV heads, rows). kDim 0: without attention. kWarps: kStepWarps, or
/// kHalfWarps without a cluster, two blocks a multiprocessor.
template <int kWarps, class T, int kDim, int kHeadTiles, class Query>
__global__ void __launch_bounds__(kWarps* kWarp, kStepWarps / kWarps)
    step_kernel(const __grid_constant__ StepParams p) {
  extern __shared__ __align__(128) std::byte memory[];
  constexpr int kWords = Query::kWords;
  __shared__ Codes<kWords> codes;
  __shared__ SelectScratch scratch;
  __shared__ Arrivals arrivals;
  stamp(p, Part::kBegin);
  constexpr int kThreads = kWarps * kWarp;
  const int n_blocks = kWarps == kHalfWarps ? 1 : gridDim.x, head = blockIdx.y, row = blockIdx.z;
  // What a kernel is given comes from memory line by line: all warps ask at once.
  asm volatile("" ::"r"(reinterpret_cast<const int*>(&p)[warp_index() * 16 % (sizeof(p) / 4)]));
  if (!p.early) wait_for_previous();

  // W and the queries are asked for before all else, and before the codes, which would keep them
  // waiting in the memory's queues; and a warp that asks for too many codes is itself kept waiting,
  // so most are asked for after its part in encoding.
  constexpr int kSoon = kSoonStages;
  const StepLayout& layout = p.layout;
  {
    const float* w = p.projection.queries != nullptr ? p.projection.queries : p.projection.keys;
    const int own = p.rbit >> log2_of(n_blocks);
    begin_slab<kDim>(w + static_cast<int64_t>(head) * p.head_dim * p.rbit, p.head_dim, p.rbit,
                     static_cast<int>(blockIdx.x) * own, min(own, p.slab_columns),
                     reinterpret_cast<float*>(memory + layout.slab), kThreads);
    commit_copies();
  }
  Queries<kThreads, kDim, kDim == 0 ? kMaxGroup : 8> q;
  if (!p.early) q.load(p, row, head);
  if (threadIdx.x == 0) {
    init_arrival(shared_address(&arrivals.codes));
    init_arrival(shared_address(&arrivals.list));
    init_arrival(shared_address(&arrivals.results));
    publish_arrivals();
  }
  if (n_blocks > 1) cluster_begin();
  const float inv_unit = p.codes.lengths != nullptr ? p.projection.inv_units[head] : 0.0f;
  const int n_kv = p.n_kv != nullptr ? p.n_kv[row] : p.max_n_kv;
  constexpr int kStages = n_stages(kDim > 0, 32 * kWords);
  Chooser<kWarps, Query, kStages> chooser(p, memory, codes, scratch, n_blocks, row, head, n_kv);
  const auto begin_codes = [&](int first, int last) {
#pragma unroll 1
    for (int stage = first; stage < last; ++stage) {
      chooser.begin_piece(stage * decltype(chooser)::kStageBytes);
    }
  };
  if (p.early) {
    begin_codes(0, kSoon);
    wait_for_previous();
    q.load(p, row, head);
  }
  const uint32_t key = chooser.template load_last_key<kDim == 0>();
#pragma unroll 1
  for (int i = threadIdx.x; i < n_bins(Query::kSquares, p.group, p.rbit) / 4; i += kThreads) {
    const int4 zeros = make_int4(0, 0, 0, 0);
    reinterpret_cast<int4*>(chooser.hist())[i] = zeros;
    reinterpret_cast<int4*>(chooser.sample())[i] = zeros;
  }
  if (threadIdx.x == 0) scratch.overflowed = 0;
  q.store(p, chooser.vector(0), vector_stride(p.head_dim));
  chooser.template store_last_key<kDim == 0>(key);
  if (p.early) {
    wait_copies<kSoon>();
  } else {
    wait_copies<0>();
    begin_codes(0, kSoon);
  }
  const int n_vectors = p.group + (chooser.last_code >= 0 ? 1 : 0);
  const int code_parts = max(kWords, n_blocks);
  if (threadIdx.x == 0) {
    expect_bytes(shared_address(&arrivals.codes), n_vectors * code_parts * 4);
    if constexpr (kDim > 0) {
      expect_bytes(shared_address(&arrivals.results), p.group * (kDim + 2 * n_blocks) * 4);
    }
  }
  chooser.fill_lengths();
  // What is sent to another block needs it to have begun.
  if (n_blocks > 1) cluster_wait();
  __syncthreads();
  stamp(p, Part::kInputs);
  chooser.template encode<kDim>(inv_unit, shared_address(&arrivals.codes));
  stamp(p, Part::kEncode);
  if (kWarps == kStepWarps) begin_codes(kSoon, kStages);
  receive(shared_address(&arrivals.codes), n_blocks == 1);
  if (kWarps == kHalfWarps) begin_codes(kSoon, kStages);  // they come where W was
  finish_codes<!Query::kSquares>(codes, n_vectors, p.group, 32 * kWords >> log2_of(code_parts));
  __syncthreads();
  chooser.store_last_code();
  stamp(p, Part::kExchange);

  const int64_t pair = static_cast<int64_t>(row) * p.n_kv_heads + head;
  Lists lists{p.selected != nullptr ? p.selected + pair * p.selected_stride : nullptr,
              shared_address(memory + layout.list),
              shared_address(&arrivals.list),
              kDim > 0 ? scratch.keys_each : 0,
              n_blocks,
              scratch.inverse};
  const int chosen = chooser.choose(lists);
  if (p.n_selected != nullptr && chooser.rank == 0 && threadIdx.x == 0) p.n_selected[pair] = chosen;
  let_next_start();
  if constexpr (kDim > 0) {
    attend_list<kWarps, T, kDim, kHeadTiles>(p, memory, arrivals, chooser.cells, row, head,
                                             chooser.rank, n_blocks,
                                             lists.n_keys(chooser.rank, chosen));
  }
  // None leaves while others read its histogram. What they have sent of an attention says that they
  // are done with it, but racecheck does not know that order.
  if (kDim == 0 || kPlainBarriers) cluster_barrier(n_blocks);
  stamp(p, Part::kFinish);
}

}  // namespace hata::cuda
