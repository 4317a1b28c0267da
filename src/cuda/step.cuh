// The decode step as one kernel: encode, score, select, attend. A cluster of blocks serves one row
// and KV head; blocks exchange histograms, chosen cells and partial results through each other's
// shared memory. Without `p.attend` it ends with the chosen cells in p.selected.
//
// Measured, 2026-11 (docs/cuda.md): what runs once costs its instructions' way from memory, so it
// is short or out of line. Codes asked for before W and the queries keep these waiting for 7 us.
// 256 blocks in clusters of 4 do not fit a Hopper at once, 128 of 16 warps in clusters of 2 do;
// blocks of 8 warps, two a multiprocessor, are better only where clusters are not needed.
#pragma once

#include "attend.cuh"
#include "select.cuh"

namespace hata::cuda {

/// Shared memory of a block, by offset. `kWords`: of a code.
struct StepLayout {
  int ring;    ///< [warp][gather_bytes]: codes under way, then keys and values
  int shared;  ///< W's slab, then the candidates, then the other blocks' partial results
  int sample, hist, totals, before;  ///< [n_bins]
  int vectors;  ///< [group + 2][head_dim] f32: queries, the last key, and that less the mean
  int list;     ///< [list_limit]
  int bytes;

  __host__ __device__ StepLayout(const StepParams& p, int n_blocks) {
    const int bins = 4 * n_bins(p.group, p.rbit);
    const int slab = p.head_dim * p.slab_columns * 4;
    const int candidates = kStepWarps * p.candidate_limit * 4;
    const int results = n_blocks * (slice(p, n_blocks) + 2 * p.group) * 4;
    const auto larger = [](int a, int b) { return a > b ? a : b; };
    int at = 0;
    const auto take = [&](int size) {
      const int begin = at;
      at += (size + 15) / 16 * 16;
      return begin;
    };
    ring = take(kStepWarps * p.gather_bytes);
    shared = take(larger(slab, larger(candidates, p.attend ? results : 0)));
    sample = take(bins);
    hist = take(bins);
    totals = take(bins);
    before = take(bins);
    vectors = take((p.group + 2) * p.head_dim * 4);
    list = take(p.list_limit * 4);
    bytes = at;
  }
  /// Elements of the result that each block of the cluster finishes.
  static __host__ __device__ int slice(const StepParams& p, int n_blocks) {
    return (p.group * p.head_dim + n_blocks - 1) / n_blocks;
  }
};

/// Chosen cells in lists of the blocks that attend to them, keys_each a block.
struct Lists {
  int32_t* selected;  ///< of the row and KV head, or nullptr
  uint32_t list;      ///< address in shared memory
  int keys_each;      ///< 0: not attended to here
  int n_blocks;

  __device__ __forceinline__ void operator()(int position, int cell) const {
    if (selected != nullptr) selected[position] = cell;
    if (keys_each == 0) return;
    int owner = 0, end = keys_each;
#pragma unroll 1
    for (; position >= end; end += keys_each) ++owner;  // few blocks: sooner than a division
    store_peer(peer_address(list + 4 * (position - end + keys_each), owner),
               static_cast<uint32_t>(cell));
  }
};

// The slow ways, out of line below.
template <int kWords, int kPlanes>
__device__ __noinline__ void count_all(const StepParams& p, std::byte* memory, Codes<kWords>& codes,
                                       SelectScratch& s, int n_blocks, int row, int head, int n_kv);
template <int kWords, int kPlanes>
__device__ __noinline__ void put_from_codes(const StepParams& p, std::byte* memory,
                                            Codes<kWords>& codes, SelectScratch& s, int n_blocks,
                                            int row, int head, int n_kv, Threshold t, int own_ties,
                                            Lists put);

/// One block's part of a step, as far as the choice of keys.
template <int kWords, int kPlanes, int kStages>
struct Chooser {
  static constexpr int kCodeBytes = kWords * 4;
  static constexpr int kPieceBytes = kPiece * kCodeBytes + kPiece / 2;
  static constexpr int kRows = kPiece / kWarp;  ///< keys of a lane in a piece

  const StepParams& p;
  std::byte* const memory;
  const StepLayout layout;
  Codes<kWords>& codes;
  SelectScratch& s;
  const int n_blocks, rank, row, head;
  const int warp, lane;
  int n_kv, budget;
  const Pieces pieces;
  const Cells cells;
  const int last_code;         ///< the cell whose code this step makes, or -1
  int plain_begin, plain_end;  ///< cells that are valid, not forced, and have their codes
  Cursor coming;               ///< the next piece to be asked for
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
        layout(params, size),
        codes(c),
        s(scratch),
        n_blocks(size),
        rank(size == 1 ? 0 : cluster_rank()),
        row(row_),
        head(head_),
        warp(warp_index()),
        lane(threadIdx.x % kWarp),
        n_kv(n_kv_),
        budget(params.budgets != nullptr ? max(1, min(params.budgets[row_], params.budget))
                                         : params.budget),
        pieces(n_kv_, rank, size),
        cells(params, params.sequences != nullptr ? params.sequences[row_] : row_, head_),
        last_code(params.encode_last ? n_kv_ - 1 : -1),
        coming(pieces, warp) {
    ring = shared_address(memory + layout.ring + warp * p.gather_bytes);
    // The 16 words of lengths lie so that a lane finds its four side by side.
    ring_lengths = ring + kPiece * kCodeBytes + (lane % 4 * 4 + lane / 4) * 4;
    ring += lane * kCodeBytes;
    const int64_t first = cells.first_slot + static_cast<int64_t>(pieces.first) * kPiece;
    lane_codes = reinterpret_cast<const std::byte*>(p.codes.codes) + (first + lane) * kCodeBytes;
    const bool has_length = p.codes.lengths != nullptr && lane < kPiece / 8;
    lane_lengths = has_length
                       ? reinterpret_cast<const std::byte*>(p.codes.lengths) + first / 2 + lane * 4
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
  __device__ __forceinline__ Threshold find(const int* in, int lowest, int wanted,
                                            bool shares) const {
    return find_threshold(in, at<int>(layout.totals), at<int>(layout.before),
                          n_bins(p.group, p.rbit), lowest, wanted, rank, n_blocks, shares, s);
  }
  __device__ __forceinline__ uint32_t* candidates() const {
    return at<uint32_t>(layout.shared) + warp * p.candidate_limit;
  }

  // --- codes under way ----------------------------------------------------------------------

  /// Begins to copy the warp's next piece; always commits one group of copies.
  __device__ __forceinline__ void begin_piece(int slot) {
    if (coming.has(pieces)) {
      const uint32_t to = ring + slot * kPieceBytes, to_length = ring_lengths + slot * kPieceBytes;
      if (cells.table == nullptr) {
        // A sequence's capacity is whole pieces, so nothing is read that is not there.
        const std::byte* from =
            lane_codes + static_cast<int64_t>(coming.piece) * kPiece * kCodeBytes;
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          copy_code(to + i * kWarp * kCodeBytes, from + i * kWarp * kCodeBytes, true);
        }
        if (lane_lengths != nullptr)
          copy_async<4>(to_length, lane_lengths + coming.piece * (kPiece / 2), true);
      } else {
        const int first = (pieces.first + coming.piece) * kPiece;
#pragma unroll 1
        for (int i = 0; i < kRows; ++i) {
          const int cell = first + i * kWarp + lane;
          const bool ok = cell < n_kv;
          copy_code(to + i * kWarp * kCodeBytes, p.codes.codes + cells.slot(ok ? cell : 0) * kWords,
                    ok);
        }
        const int cell = first + lane * 8;
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

  /// The last key's element of this thread (head_dim is at most a thread each).
  __device__ __forceinline__ float load_last_key() const {
    if (last_code < 0 || static_cast<int>(threadIdx.x) >= p.head_dim) return 0.0f;
    return element(cells.key(last_code), p.cache.type, threadIdx.x);
  }
  __device__ __forceinline__ void store_last_key(float v) const {
    if (last_code < 0 || static_cast<int>(threadIdx.x) >= p.head_dim) return;
    const float* mean = p.projection.key_means;
    float* x = at<float>(layout.vectors) + p.group * p.head_dim + threadIdx.x;
    x[p.head_dim] = v;
    x[0] = mean != nullptr ? __fsub_rn(v, mean[head * p.head_dim + threadIdx.x]) : v;
  }

  /// Columns that this block encodes for the whole cluster.
  __device__ __forceinline__ int own_columns() const { return p.rbit / n_blocks; }
  __device__ __forceinline__ const float* projection(const float* w) const {
    return w + static_cast<int64_t>(head) * p.head_dim * p.rbit;
  }
  __device__ __forceinline__ const float* query_projection() const {
    return projection(p.projection.queries != nullptr ? p.projection.queries : p.projection.keys);
  }
  __device__ __forceinline__ void begin_first_slab() const {
    begin_slab(query_projection(), p.head_dim, p.rbit, rank * own_columns(),
               min(own_columns(), p.slab_columns), at<float>(layout.shared), kStepThreads);
  }

  /// Encodes the queries and the last key. The first slab of W is in shared memory.
  __device__ __forceinline__ void encode() {
    const bool with_key = last_code >= 0;
    const bool apart = p.projection.queries != nullptr;
    encode_vectors(query_projection(), 0, p.group + (with_key && !apart ? 1 : 0), true);
    if (with_key && apart) {
      __syncthreads();
      encode_vectors(projection(p.projection.keys), p.group, 1, false);
    }
    if (with_key && p.codes.lengths != nullptr &&
        warp == kStepWarps - 1) {  // it has no other work here
      const float* key = at<float>(layout.vectors) + (p.group + 1) * p.head_dim;
      const float norm2 = norm2_of(p.head_dim, lane % 16, [&](int i) { return key[i]; });
      if (lane == 0) codes.new_length = length_of(norm2, p.projection.inv_units[head]);
    }
  }
  __device__ __forceinline__ void encode_vectors(const float* w, int first, int count, bool begun) {
    auto* slab = at<float>(layout.shared);
    const int own = own_columns(), step = min(own, p.slab_columns);
    for (int column = 0; column < own; column += step) {
      if (column > 0 || !begun) {
        __syncthreads();
        begin_slab(w, p.head_dim, p.rbit, rank * own + column, step, slab, kStepThreads);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
      }
      encode_slab(slab, p.head_dim, rank * own + column, step,
                  at<float>(layout.vectors) + first * p.head_dim, count,
                  shared_address(&codes.vectors[first][0]), kCodeBytes, n_blocks, kStepThreads);
    }
  }
  __device__ __forceinline__ void store_last_code() const {
    if (last_code < 0 || rank != 0) return;
    const int64_t slot = cells.slot(last_code);
    if (threadIdx.x < kWords) {
      p.codes.codes[slot * kWords + threadIdx.x] = codes.vectors[p.group][threadIdx.x];
    }
    if (threadIdx.x == 0 && p.codes.lengths != nullptr) {
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
  __device__ __forceinline__ bool is_plain_by_bits(int first) const {
    const int64_t word = row * p.bit_stride + first / 32 + lane % (kPiece / 32);
    const bool free = p.forced != nullptr ? first + kPiece <= n_kv && p.forced[word] == 0u
                                          : first >= p.sink && first + kPiece <= n_kv - p.recent;
    const bool known = last_code < first || last_code >= first + kPiece;
    return __all_sync(kAll, free && known && p.valid[word] == 0xffffffffu);
  }
  /// The code that this step makes, as a bin.
  __device__ __forceinline__ int last_bin(const Query<kWords, kPlanes>& query) const {
    uint32_t code[kWords];
#pragma unroll
    for (int w = 0; w < kWords; ++w) code[w] = codes.vectors[p.group][w];
    const int length = p.codes.lengths != nullptr ? static_cast<int>(codes.new_length) : 8;
    int bin, same;
    query.bins(code, code, length, length, bin, same);
    return bin;
  }
  /// What the bin of a cell's code is in the choice; -1: it may not be chosen.
  __device__ __forceinline__ int final_bin(int bin, int cell, int last) const {
    if (cell == last_code) bin = last;
    if (is_forced(cell)) bin = forced_bin(p.group, p.rbit);
    return is_valid(cell) ? bin : -1;
  }

  /// Bins of the keys that the lane has of a piece, which lies in `slot`.
  __device__ __forceinline__ void score_piece(const Query<kWords, kPlanes>& query, int last,
                                              const Cursor& at, int slot,
                                              int (&bins)[kRows]) const {
    if (!at.has(pieces)) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) bins[i] = -1;
      return;
    }
    const std::byte* piece = memory + layout.ring + warp * p.gather_bytes + slot * kPieceBytes;
    uint4 words = make_uint4(0x88888888u, 0x88888888u, 0x88888888u, 0x88888888u);
    if (p.codes.lengths != nullptr) {
      words = reinterpret_cast<const uint4*>(piece + kPiece * kCodeBytes)[lane / 8];
    }
    const uint32_t lengths[kRows] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < kRows; i += 2) {
      uint32_t x[kWords], y[kWords];
      load_code(piece + (i * kWarp + lane) * kCodeBytes, x);
      load_code(piece + ((i + 1) * kWarp + lane) * kCodeBytes, y);
      query.bins(x, y, static_cast<int>(lengths[i] >> (lane % 8 * 4) & 15),
                 static_cast<int>(lengths[i + 1] >> (lane % 8 * 4) & 15), bins[i], bins[i + 1]);
    }
    const int first = (pieces.first + at.piece) * kPiece;
    if (first >= plain_begin && first + kPiece <= plain_end) return;
    if (p.valid != nullptr && is_plain_by_bits(first)) return;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      bins[i] = final_bin(bins[i], first + i * kWarp + lane, last);
    }
  }

  /// Keeps the piece's keys at or above the cut; returns how many the warp has then.
  __device__ __forceinline__ int keep(const Cursor& at, const int (&bins)[kRows], int cut,
                                      int count) const {
    unsigned hits[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) hits[i] = __ballot_sync(kAll, bins[i] >= cut);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (hits[i] == 0) continue;
      if (bins[i] >= cut) {
        const int to = count + __popc(hits[i] & ((1u << lane) - 1));
        if (to < p.candidate_limit) {
          candidates()[to] = static_cast<uint32_t>(bins[i]) << kIndexBits |
                             static_cast<uint32_t>(at.piece * kPiece + i * kWarp + lane);
        }
        atomicAdd(hist() + bins[i], 1);
      }
      count += __popc(hits[i]);
    }
    return count;
  }

  /// The warp's candidates are about to exceed their room. Where this block alone has counted
  /// enough keys above a higher bin, no lower one can be chosen: the cut rises for this warp.
  __device__ __forceinline__ int prune(int count, int& cut) const {
    const int n_groups = n_bins(p.group, p.rbit) / 4;
    int above = 0, rise = cut;
    for (int first = 0; first < n_groups; first += kWarp) {
      const int group = n_groups - 1 - first - lane;
      int4 v = make_int4(0, 0, 0, 0);
      if (group >= 0) v = reinterpret_cast<const int4*>(hist())[group];
      int sum = v.x + v.y + v.z + v.w;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(kAll, sum, step);
        if (lane >= step) sum += lower;
      }
      const unsigned enough = __ballot_sync(kAll, above + sum >= budget);
      if (enough != 0) {
        rise = max(cut, 4 * (n_groups - first - __ffs(enough)));
        break;
      }
      above += __shfl_sync(kAll, sum, kWarp - 1);
    }
    if (rise == cut || count > p.candidate_limit) return count;
    cut = rise;
    int kept = 0;
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

  /// Calls put(position, cell) for each key of this block that is chosen; positions count over the
  /// cluster. Returns how many are chosen in all.
  __device__ __forceinline__ int choose(const Lists& put) {
    const Query<kWords, kPlanes> query(codes, p.group, p.rbit);
    const int n_pieces = (n_kv + kPiece - 1) / kPiece;
    // Every block has at least as many pieces as all / n_blocks, rounded down, says.
    const bool sample_is_all = (n_pieces + n_blocks - 1) / n_blocks <= kStepWarps;

    const int last = last_bin(query), average = max_score(p.group, p.rbit) / 4 * 4;
    Threshold t{0, 0, 0};
    int cut = 0, count = 0, slot = 0;
    const int rounds = max(1, pieces.rounds);
    Cursor at(pieces, warp);
#pragma unroll 1
    for (int round = 0; round < rounds; ++round, at.next(pieces)) {
      int bins[kRows];
      wait_copies<kStages - 1>();
      __syncwarp();
      score_piece(query, last, at, slot, bins);
      __syncwarp();
      begin_piece(slot);
      slot = (slot + 1) % kStages;
      if (round == 0) {
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          // Half of the bins are for keys worse than the average: seldom needed.
          if (bins[i] >= average) atomicAdd(sample() + bins[i], 1);
        }
        cluster_barrier(n_blocks);
        int wanted = budget;
        if (!sample_is_all) {
          const float expected = static_cast<float>(budget) *
                                 static_cast<float>(Pieces::sampled(n_pieces, n_blocks)) /
                                 static_cast<float>(n_pieces);
          wanted = static_cast<int>(expected + 4.0f * sqrtf(expected)) + 8;
        }
        t = find(sample(), average, wanted, sample_is_all);
        if (s.all < wanted) {  // the same in all blocks
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            if (bins[i] >= 0 && bins[i] < average) atomicAdd(sample() + bins[i], 1);
          }
          cluster_barrier(n_blocks);
          t = find(sample(), 0, wanted, sample_is_all);
        }
        cut = t.bin;
      }
      if (count + kPiece > p.candidate_limit) count = prune(count, cut);
      count = keep(at, bins, cut, count);
    }
    if (!sample_is_all) {
      cluster_barrier(n_blocks);
      t = find(hist(), cut, budget, true);
    }
    wait_copies<0>();
    bool again = count > p.candidate_limit;
    if (!sample_is_all && cut > 0 && s.all < budget) {  // the same in all blocks
      count_all<kWords, kPlanes>(p, memory, codes, s, n_blocks, row, head, n_kv);
      t = find(sample(), 0, budget, true);
      again = true;
    }
    const int chosen = min(budget, s.all);
    const int ties_wanted = chosen - t.above;  // of all blocks
    const int own_ties = min(max(ties_wanted - s.before_at, 0), s.own_at);
    again = __syncthreads_or(again);
    if (again) {
      put_from_codes<kWords, kPlanes>(p, memory, codes, s, n_blocks, row, head, n_kv, t, own_ties,
                                      put);
    } else {
      put_from_candidates(count, t, own_ties, put);
    }
    return chosen;
  }

  /// The bin of a cell, its code read from memory again. Whole warps.
  __device__ __forceinline__ int bin_in_memory(const Query<kWords, kPlanes>& query, int last,
                                               int cell) const {
    const int64_t slot = cells.slot(cell < n_kv ? cell : 0);
    uint32_t code[kWords];
    load_code(p.codes.codes + slot * kWords, code);
    const int length =
        p.codes.lengths != nullptr ? p.codes.lengths[slot / 2] >> (slot % 2 * 4) & 15 : 8;
    int bin, same;
    query.bins(code, code, length, length, bin, same);
    return final_bin(bin, cell, last);
  }

  __device__ __forceinline__ void put_from_candidates(int count, const Threshold& t, int own_ties,
                                                      const Lists& put) {
    const uint32_t* mine = candidates();
    const uint32_t above_from = static_cast<uint32_t>(t.bin + 1) << kIndexBits;
    const uint32_t at_from = static_cast<uint32_t>(t.bin) << kIndexBits;
    constexpr uint32_t kIndex = (1u << kIndexBits) - 1;
    int above = 0, ties = 0;
#pragma unroll 1
    for (int i = lane; i < count; i += kWarp) {
      above += mine[i] >= above_from;
      ties += mine[i] >= at_from && mine[i] < above_from;
    }
    int both = above << 16 | ties;  // neither exceeds candidate_limit
#pragma unroll
    for (int step = 16; step > 0; step /= 2) both += __shfl_xor_sync(kAll, both, step);
    if (lane == 0) s.warp_above[warp] = both >> 16, s.warp_at[warp] = both & 0xffff;
    __syncthreads();
    above = s.before_above, ties = 0;
#pragma unroll
    for (int w = 0; w < kStepWarps; ++w) {
      if (w < warp) above += s.warp_above[w], ties += s.warp_at[w];
    }
    const bool all_ties = own_ties == s.own_at && own_ties > 0;
    auto* tied = at<uint32_t>(layout.ring);
    const int first_cell = pieces.first * kPiece;
#pragma unroll 1
    for (int first = 0; first < count; first += kWarp) {
      const uint32_t entry = first + lane < count ? mine[first + lane] : 0;
      const bool is_above = entry >= above_from;
      const bool is_at = first + lane < count && !is_above && entry >= at_from;
      const unsigned below = (1u << lane) - 1;
      const unsigned aboves = __ballot_sync(kAll, is_above), ats = __ballot_sync(kAll, is_at);
      const int tie = ties + __popc(ats & below);
      if (is_above || (is_at && all_ties)) {
        const int position =
            is_above ? above + __popc(aboves & below) : t.above + s.before_at + tie;
        put(position, first_cell + static_cast<int>(entry & kIndex));
      } else if (is_at && own_ties > 0) {
        tied[tie] = entry & kIndex;
      }
      above += __popc(aboves), ties += __popc(ats);
    }
    if (all_ties || own_ties == 0) return;  // the same in all threads
    __syncthreads();
    int* first = reinterpret_cast<int*>(tied + (s.own_at + 3) / 4 * 4);
    int* start = first + pieces.count;
    rank_ties(tied, s.own_at, first, start, pieces.count, s);
#pragma unroll 1
    for (int j = threadIdx.x; j < s.own_at; j += kStepThreads) {
      const int cell = static_cast<int>(tied[j]), piece = cell / kPiece;
      const int rank_of = start[piece] + j - first[piece];
      if (rank_of < own_ties) put(t.above + s.before_at + rank_of, first_cell + cell);
    }
  }
};

/// The cut was too high: counts all keys, from memory, in the place of the sample.
template <int kWords, int kPlanes>
__device__ __noinline__ void count_all(const StepParams& p, std::byte* memory, Codes<kWords>& codes,
                                       SelectScratch& s, int n_blocks, int row, int head,
                                       int n_kv) {
  const Chooser<kWords, kPlanes, 1> c(p, memory, codes, s, n_blocks, row, head, n_kv);
  const Query<kWords, kPlanes> query(codes, p.group, p.rbit);
  const int last = c.last_bin(query);
  for (int i = threadIdx.x; i < n_bins(p.group, p.rbit); i += kStepThreads) c.sample()[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < c.pieces.count * kPiece; i += kStepThreads) {
    const int bin = c.bin_in_memory(query, last, c.pieces.first * kPiece + i);
    if (bin >= 0) atomicAdd(c.sample() + bin, 1);
  }
  cluster_barrier(n_blocks);
}

/// The slow way, in the order of cells.
template <int kWords, int kPlanes>
__device__ __noinline__ void put_from_codes(const StepParams& p, std::byte* memory,
                                            Codes<kWords>& codes, SelectScratch& s, int n_blocks,
                                            int row, int head, int n_kv, Threshold t, int own_ties,
                                            Lists put) {
  const Chooser<kWords, kPlanes, 1> c(p, memory, codes, s, n_blocks, row, head, n_kv);
  const Query<kWords, kPlanes> query(codes, p.group, p.rbit);
  const int last = c.last_bin(query);
  int above = s.before_above, ties = 0;
  for (int first = 0; first < c.pieces.count * kPiece; first += kStepThreads) {
    const int i = first + threadIdx.x;
    const int cell = c.pieces.first * kPiece + i;
    const int found = c.bin_in_memory(query, last, cell);
    const int bin = i < c.pieces.count * kPiece ? found : -1;
    const unsigned is_above = __ballot_sync(kAll, bin > t.bin);
    const unsigned is_at = __ballot_sync(kAll, bin == t.bin);
    __syncthreads();
    if (c.lane == 0) s.warp_above[c.warp] = __popc(is_above), s.warp_at[c.warp] = __popc(is_at);
    __syncthreads();
    int my_above = above, my_ties = ties;
#pragma unroll
    for (int w = 0; w < kStepWarps; ++w) {
      if (w < c.warp) my_above += s.warp_above[w], my_ties += s.warp_at[w];
      above += s.warp_above[w], ties += s.warp_at[w];
    }
    const unsigned below = (1u << c.lane) - 1;
    my_ties += __popc(is_at & below);
    if (bin > t.bin) put(my_above + __popc(is_above & below), cell);
    if (bin == t.bin && my_ties < own_ties) put(t.above + s.before_at + my_ties, cell);
  }
}

template <class T, int kDim, int kHeadTiles>
__device__ __forceinline__ void attend_list(const StepParams& p, std::byte* memory,
                                            const StepLayout& layout, const Cells& cells, int row,
                                            int head, int rank, int n_blocks, int n_keys) {
  const int warp = warp_index();
  const auto* list = reinterpret_cast<const int32_t*>(memory + layout.list);
  std::byte* buffer = memory + layout.ring + warp * p.gather_bytes;
  __shared__ float2 ml[kStepWarps][8 * kHeadTiles];
  __shared__ float scales[kStepWarps][8 * kHeadTiles];
  __shared__ Common common[8 * kHeadTiles];
  {
    using Copies = TileCopies<kDim, 1, false>;
    __shared__ uint64_t arrivals[kStepWarps][Copies::kArrivals];
    const Copies copies{cells, shared_address(buffer), shared_address(&arrivals[warp][0])};
    const int n_tiles = (n_keys + kTileKeys - 1) / kTileKeys;
    const auto cell_at = [&](int i) { return i < n_keys ? list[i] : -1; };
    copies.init();
    copies.begin_all(warp, kStepWarps, n_tiles, cell_at);
    Attention<T, kDim, kHeadTiles> attention;
    attention.begin(reinterpret_cast<const float*>(memory + layout.vectors), p.group);
    attention.run(p, copies, row, head, warp, kStepWarps, n_tiles, cell_at);
    attention.put(p.group, reinterpret_cast<float*>(buffer), &ml[warp][0].x);
  }
  __syncthreads();
  for (int g = warp; g < p.group; g += kStepWarps) {
    const Common c = common_of(kStepWarps, [&](int w) { return ml[w][g]; });
    const int lane = threadIdx.x % kWarp;
    const float base = c.max == -INFINITY ? 0.0f : c.max;
    if (lane < kStepWarps) scales[lane][g] = exp2f(ml[lane][g].x - base);
    if (lane == 0) common[g] = c;
  }
  __syncthreads();
  // The block's result goes to the blocks that finish it, a slice each.
  const int slice = StepLayout::slice(p, n_blocks);
  const uint32_t results = shared_address(memory + layout.shared);
  const auto sum_of = [&](int i) {
    const int g = i / kDim, at = g * kHeadStride<kDim> + i % kDim;
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kStepWarps; ++w) {
      sum += scales[w][g] *
             reinterpret_cast<const float*>(memory + layout.ring + w * p.gather_bytes)[at];
    }
    return sum;
  };
  if (n_blocks == 1) {
#pragma unroll 1
    for (int i = threadIdx.x; i < p.group * kDim; i += kStepThreads) {
      const int q_head = head * p.group + i / kDim;
      store_out(p, row, q_head, i % kDim, sum_of(i) * normaliser(p, q_head, common[i / kDim]));
    }
    return;
  }
  const uint32_t mls = results + n_blocks * slice * 4;  // behind the slices of all blocks
#pragma unroll 1
  for (int i = threadIdx.x; i < p.group * kDim; i += kStepThreads) {
    const int owner = i / slice;
    store_peer(peer_address(results + (rank * slice + i - owner * slice) * 4, owner), sum_of(i));
  }
#pragma unroll 1
  for (int i = threadIdx.x; i < p.group * n_blocks; i += kStepThreads) {
    const int g = i % p.group, owner = i / p.group;
    const uint32_t to = peer_address(mls + (rank * p.group + g) * 8, owner);
    store_peer(to, common[g].max);
    store_peer(to + 4, common[g].sum);
  }
  cluster_barrier(n_blocks);
  // Every block finishes its slice.
  const auto* parts = reinterpret_cast<const float*>(memory + layout.shared);
  const auto* part_ml = reinterpret_cast<const float2*>(parts + n_blocks * slice);
  __shared__ float factors[16][8 * kHeadTiles];
  const int first_head = rank * slice / kDim;
  const int last_head = min(p.group, (rank * slice + slice - 1) / kDim + 1);
  for (int g = first_head + warp; g < last_head; g += kStepWarps) {
    const Common c = common_of(n_blocks, [&](int b) { return part_ml[b * p.group + g]; });
    const int lane = threadIdx.x % kWarp;
    const float base = c.max == -INFINITY ? 0.0f : c.max;
    const float scale = normaliser(p, head * p.group + g, c);
    if (lane < n_blocks) factors[lane][g] = scale * exp2f(part_ml[lane * p.group + g].x - base);
  }
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < slice && rank * slice + i < p.group * kDim; i += kStepThreads) {
    const int g = (rank * slice + i) / kDim;
    float sum = 0.0f;
#pragma unroll 4
    for (int b = 0; b < n_blocks; ++b) sum += factors[b][g] * parts[b * slice + i];
    store_out(p, row, head * p.group + g, (rank * slice + i) % kDim, sum);
  }
}

/// grid: (blocks of a cluster, n_rows * n_kv_heads). kDim 0: without attention.
template <class T, int kDim, int kHeadTiles, int kWords, int kPlanes>
__global__ void __launch_bounds__(kStepThreads, 1)
    step_kernel(const __grid_constant__ StepParams p) {
  extern __shared__ __align__(128) std::byte memory[];
  __shared__ Codes<kWords> codes;
  __shared__ SelectScratch scratch;
  const int n_blocks = gridDim.x;
  const int row = blockIdx.y / p.n_kv_heads, head = blockIdx.y % p.n_kv_heads;
  if (!p.early) wait_for_previous();
  const int n_kv = p.n_kv != nullptr ? p.n_kv[row] : p.max_n_kv;
  constexpr int kStages = n_stages(kDim > 0, 32 * kWords);
  Chooser<kWords, kPlanes, kStages> chooser(p, memory, codes, scratch, n_blocks, row, head, n_kv);
  const StepLayout& layout = chooser.layout;

  // What a kernel is given comes from memory line by line: all warps ask at once.
  asm volatile("" ::"r"(reinterpret_cast<const int*>(&p)[warp_index() * 16 % (sizeof(p) / 4)]));
  // W and the queries come before the codes, which would keep them waiting in the memory's queues;
  // and a warp that asks for too many codes is itself kept waiting, so most are asked for after
  // its part in encoding.
  constexpr int kSoon = 1;
  if (n_blocks > 1) cluster_arrive();  // this block has begun: others may write into its memory
  Queries<kStepThreads, kDim, kDim == 0 ? kMaxGroup : 8> q;
  chooser.begin_first_slab();
  commit_copies();
  const auto begin_codes = [&](int first, int last) {
#pragma unroll 1
    for (int stage = first; stage < last; ++stage) chooser.begin_piece(stage);
  };
  if (p.early) {
    begin_codes(0, kSoon);
    wait_for_previous();
  }
  q.load(p, row, head);
  const float key = chooser.load_last_key();
#pragma unroll 1
  for (int i = threadIdx.x; i < n_bins(p.group, p.rbit); i += kStepThreads) {
    chooser.hist()[i] = chooser.sample()[i] = 0;
  }
  if (threadIdx.x == 0) codes.max_product = p.group * p.rbit;
  q.store(p, chooser.template at<float>(layout.vectors));
  chooser.store_last_key(key);
  if (p.early) {
    wait_copies<kSoon>();
  } else {
    wait_copies<0>();
    begin_codes(0, kSoon);
  }
  // Other blocks write into this one's codes: they must have begun.
  if (n_blocks > 1) cluster_wait();
  __syncthreads();
  chooser.encode();
  if (n_blocks > 1) cluster_arrive();
  begin_codes(kSoon, kStages);
  if (n_blocks > 1) cluster_wait();
  __syncthreads();
  make_planes(codes, p.group, p.rbit);
  __syncthreads();
  chooser.store_last_code();

  const int64_t pair = static_cast<int64_t>(row) * p.n_kv_heads + head;
  const int valid_budget = min(chooser.budget, max(n_kv, 0));
  Lists lists{p.selected != nullptr ? p.selected + pair * p.selected_stride : nullptr,
              shared_address(memory + layout.list), 0, n_blocks};
  if constexpr (kDim > 0) {
    const int each = (valid_budget + n_blocks - 1) / n_blocks;
    lists.keys_each = max(kTileKeys, (each + kTileKeys - 1) / kTileKeys * kTileKeys);
  }
  const int chosen = chooser.choose(lists);
  if (p.n_selected != nullptr && chooser.rank == 0 && threadIdx.x == 0) p.n_selected[pair] = chosen;
  let_next_start();
  if constexpr (kDim > 0) {
    cluster_barrier(n_blocks);
    const int n_keys = min(max(chosen - chooser.rank * lists.keys_each, 0), lists.keys_each);
    attend_list<T, kDim, kHeadTiles>(p, memory, layout, chooser.cells, row, head, chooser.rank,
                                     n_blocks, n_keys);
  } else {
    cluster_barrier(n_blocks);  // none leaves while others read its histogram
  }
}

}  // namespace hata::cuda
