// The decode step as one kernel: encode, score, select, attend. A cluster of blocks serves one row
// and KV head; blocks exchange histograms, chosen cells and partial results through each other's
// shared memory. Without `p.attend` it ends with the chosen cells in p.selected.
//
// Measured (docs/cuda.md): two blocks a multiprocessor, so that one's bytes flow while the other
// selects; codes are under way while queries are encoded; scores are never written.
#pragma once

#include "attend.cuh"
#include "select.cuh"

namespace hata::cuda {

/// Shared memory of a block, by offset. `kWords`: of a code.
struct StepLayout {
  int ring;        ///< [warp][gather_bytes]: codes under way, then keys and values
  int shared;      ///< W's slab, then the candidates, then the other blocks' partial results
  int sample, hist, totals;  ///< [n_bins]
  int vectors;     ///< [group + 1][head_dim] f32
  int list;        ///< [list_limit]
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
    vectors = take((p.group + 1) * p.head_dim * 4);
    list = take(p.list_limit * 4);
    bytes = at;
  }
  /// Elements of the result that each block of the cluster finishes.
  static __host__ __device__ int slice(const StepParams& p, int n_blocks) {
    return (p.group * p.head_dim + n_blocks - 1) / n_blocks;
  }
};

/// One block's part of a step, as far as the choice of keys.
template <int kWords, int kPlanes>
struct Chooser {
  static constexpr int kCodeBytes = kWords * 4;
  static constexpr int kPieceBytes = kPiece * kCodeBytes + kPiece / 2;

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
  const int last_code;  ///< the cell whose code this step makes, or -1

  __device__ __forceinline__ Chooser(const StepParams& params, std::byte* smem, Codes<kWords>& c,
                                     SelectScratch& scratch, int size, int row_, int head_,
                                     int sequence, int n_kv_)
      : p(params),
        memory(smem),
        layout(params, size),
        codes(c),
        s(scratch),
        n_blocks(size),
        rank(size == 1 ? 0 : cluster_rank()),
        row(row_),
        head(head_),
        warp(threadIdx.x / kWarp),
        lane(threadIdx.x % kWarp),
        n_kv(n_kv_),
        budget(params.budgets != nullptr ? max(1, min(params.budgets[row_], params.budget))
                                         : params.budget),
        pieces(n_kv_, rank, size),
        cells(params, sequence, head_),
        last_code(params.encode_last ? n_kv_ - 1 : -1) {}

  template <class T>
  __device__ __forceinline__ T* at(int offset) const {
    return reinterpret_cast<T*>(memory + offset);
  }
  __device__ __forceinline__ int* hist() const { return at<int>(layout.hist); }
  __device__ __forceinline__ int* sample() const { return at<int>(layout.sample); }
  __device__ __forceinline__ int* totals() const { return at<int>(layout.totals); }
  __device__ __forceinline__ uint32_t* candidates() const {
    return at<uint32_t>(layout.shared) + warp * p.candidate_limit;
  }

  // --- codes under way ----------------------------------------------------------------------

  /// Begins to copy the warp's piece of a round; always commits one group of copies.
  __device__ __forceinline__ void begin_piece(int round, int slot) const {
    const int offset = pieces.of(round, warp);
    if (offset < pieces.count) {
      const uint32_t to = shared_address(memory + layout.ring + warp * p.gather_bytes) +
                          slot * kPieceBytes;
      const int first = (pieces.first + offset) * kPiece;
#pragma unroll
      for (int i = 0; i < kPiece / kWarp; ++i) {
        const int cell = first + i * kWarp + lane;
        const bool ok = cell < n_kv;
        const auto* from = p.codes.codes + cells.slot(ok ? cell : 0) * kWords;
        const uint32_t dst = to + (i * kWarp + lane) * kCodeBytes;
        if constexpr (kCodeBytes < 16) {
          copy_async<8>(dst, from, ok);
        } else {
#pragma unroll
          for (int part = 0; part < kCodeBytes / 16; ++part) {
            copy_async<16>(dst + part * 16, from + part * 4, ok);
          }
        }
      }
      if (p.codes.lengths != nullptr && lane < kPiece / 8) {
        const int cell = first + lane * 8;
        const bool ok = cell < n_kv;
        copy_async<4>(to + kPiece * kCodeBytes + lane * 4,
                      p.codes.lengths + cells.slot(ok ? cell : 0) / 2, ok);
      }
    }
    commit_copies();
  }

  // --- encode -------------------------------------------------------------------------------

  __device__ __forceinline__ void load_vectors() const {
    auto* x = at<float>(layout.vectors);
    const int d = p.head_dim;
    const int n = p.group * d;
    for (int i = threadIdx.x; i < n; i += kStepThreads) {
      const int g = i / d;
      x[i] = element(p.q, p.q_type,
                     row * p.q_row_stride + (head * p.group + g) * p.q_head_stride + i - g * d);
    }
    if (last_code < 0) return;
    const void* key = cells.key(last_code);
    const float* mean = p.projection.key_means;
    for (int i = threadIdx.x; i < d; i += kStepThreads) {
      float v = element(key, p.cache.type, i);
      if (mean != nullptr) v = __fsub_rn(v, mean[head * d + i]);
      x[n + i] = v;
    }
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
    if (with_key && p.codes.lengths != nullptr && warp == 0) {
      const void* key = cells.key(last_code);
      const float norm2 = norm2_of(p.head_dim, lane % 16,
                                   [&](int i) { return element(key, p.cache.type, i); });
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
      encode_slab<kWords>(slab, p.head_dim, rank * own + column, step, at<float>(layout.vectors),
                          first, count, codes, n_blocks, kStepThreads);
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

  /// The bin of a cell, -1 where it may not be chosen.
  __device__ __forceinline__ int bin_of(const Query<kWords, kPlanes>& query, int cell,
                                        uint32_t (&code)[kWords], int length) const {
    if (!is_valid(cell)) return -1;
    if (is_forced(cell)) return forced_bin(p.group, p.rbit);
    if (cell == last_code) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) code[w] = codes.vectors[p.group][w];
      if (p.codes.lengths != nullptr) length = static_cast<int>(codes.new_length);
    }
    return query.bin(code, length);
  }

  /// Bins of the four keys that the lane has of the piece in `slot`.
  __device__ __forceinline__ void score_piece(const Query<kWords, kPlanes>& query, int round,
                                              int slot, int (&bins)[kPiece / kWarp]) const {
    const int offset = pieces.of(round, warp);
    if (offset >= pieces.count) {
#pragma unroll
      for (int i = 0; i < kPiece / kWarp; ++i) bins[i] = -1;
      return;
    }
    const std::byte* piece = memory + layout.ring + warp * p.gather_bytes + slot * kPieceBytes;
    const int first = (pieces.first + offset) * kPiece;
#pragma unroll
    for (int i = 0; i < kPiece / kWarp; ++i) {
      uint32_t code[kWords];
      load_code(piece + (i * kWarp + lane) * kCodeBytes, code);
      int length = 8;
      if (p.codes.lengths != nullptr) {
        const auto* words = reinterpret_cast<const uint32_t*>(piece + kPiece * kCodeBytes);
        length = words[i * 4 + lane / 8] >> (lane % 8 * 4) & 15;
      }
      bins[i] = bin_of(query, first + i * kWarp + lane, code, length);
    }
  }

  /// Keeps the piece's keys at or above the cut; returns how many the warp has then.
  __device__ __forceinline__ int keep(int round, const int (&bins)[kPiece / kWarp], int cut,
                                      int count) const {
    const int first = pieces.of(round, warp) * kPiece;
#pragma unroll
    for (int i = 0; i < kPiece / kWarp; ++i) {
      const bool hit = bins[i] >= cut;
      const unsigned hits = __ballot_sync(kAll, hit);
      if (hits == 0) continue;
      if (hit) {
        const int to = count + __popc(hits & ((1u << lane) - 1));
        if (to < p.candidate_limit) {
          candidates()[to] = static_cast<uint32_t>(bins[i]) << kIndexBits |
                             static_cast<uint32_t>(first + i * kWarp + lane);
        }
        atomicAdd(hist() + bins[i], 1);
      }
      count += __popc(hits);
    }
    return count;
  }

  // --- choose -------------------------------------------------------------------------------

  /// Calls put(position, cell) for each key of this block that is chosen; positions count over the
  /// cluster. Returns how many are chosen in all.
  template <class Put>
  __device__ __forceinline__ int choose(Put put) {
    const Query<kWords, kPlanes> query(codes, p.group, p.rbit);
    const int bins_all = n_bins(p.group, p.rbit);
    const int n_pieces = (n_kv + kPiece - 1) / kPiece;
    // Every block has at least as many pieces as all / n_blocks, rounded down, says.
    const bool sample_is_all = (n_pieces + n_blocks - 1) / n_blocks <= kStepWarps;

    int bins[kPiece / kWarp];
    wait_for_piece();
    score_piece(query, 0, 0, bins);
    __syncwarp();
    begin_piece(p.stages, 0);
#pragma unroll
    for (int i = 0; i < kPiece / kWarp; ++i) {
      if (bins[i] >= 0) atomicAdd(sample() + bins[i], 1);
    }
    cluster_barrier(n_blocks);
    int wanted = budget;
    if (!sample_is_all) {
      const float expected = static_cast<float>(budget) *
                             static_cast<float>(Pieces::sampled(n_pieces, n_blocks)) /
                             static_cast<float>(n_pieces);
      wanted = static_cast<int>(expected + 4.0f * sqrtf(expected)) + 8;
    }
    Threshold t = find_threshold(sample(), totals(), bins_all, 0, wanted, n_blocks, s);
    const int cut = t.bin;
    int count = 0;
    const int* final_hist = sample();
    if (sample_is_all) {
      count = keep_all(bins, cut);
    } else {
      count = keep(0, bins, cut, count);
      int slot = 1 % p.stages;
      for (int round = 1; round < pieces.rounds; ++round) {
        wait_for_piece();
        score_piece(query, round, slot, bins);
        __syncwarp();
        begin_piece(round + p.stages, slot);
        count = keep(round, bins, cut, count);
        slot = slot + 1 == p.stages ? 0 : slot + 1;
      }
      final_hist = hist();
      cluster_barrier(n_blocks);
      t = find_threshold(hist(), totals(), bins_all, cut, budget, n_blocks, s);
    }
    wait_copies<0>();
    bool again = count > p.candidate_limit;
    if (!sample_is_all && cut > 0 && s.all < budget) {  // the same in all blocks
      t = count_all(query, bins_all);
      final_hist = sample();
      again = true;
    }
    count_shares(final_hist, bins_all, t, rank, s);
    const int chosen = min(budget, s.all);
    const int ties_wanted = chosen - t.above;  // of all blocks
    const int own_ties = min(max(ties_wanted - s.before_at, 0), s.own_at);
    again = __syncthreads_or(again || (own_ties < s.own_at && own_ties > 0 && s.own_at > kMaxTies));
    if (again) {
      put_from_codes(query, t, own_ties, put);
    } else {
      put_from_candidates(count, t, own_ties, put);
    }
    return chosen;
  }

  __device__ __forceinline__ void wait_for_piece() const {
    // Rings have 2 to 4 stages; what is waited for must be known when this is compiled.
    switch (p.stages) {
      case 2: wait_copies<1>(); break;
      case 3: wait_copies<2>(); break;
      default: wait_copies<3>();
    }
    __syncwarp();
  }

  /// As keep(), where the histogram is made already.
  __device__ __forceinline__ int keep_all(const int (&bins)[kPiece / kWarp], int cut) const {
    const int first = pieces.of(0, warp) * kPiece;
    int count = 0;
#pragma unroll
    for (int i = 0; i < kPiece / kWarp; ++i) {
      const bool hit = bins[i] >= cut;
      const unsigned hits = __ballot_sync(kAll, hit);
      const int to = count + __popc(hits & ((1u << lane) - 1));
      if (hit && to < p.candidate_limit) {
        candidates()[to] = static_cast<uint32_t>(bins[i]) << kIndexBits |
                           static_cast<uint32_t>(first + i * kWarp + lane);
      }
      count += __popc(hits);
    }
    return count;
  }

  /// The cut was too high: counts all keys, from memory.
  __device__ __forceinline__ Threshold count_all(const Query<kWords, kPlanes>& query,
                                                 int bins_all) {
    for (int i = threadIdx.x; i < bins_all; i += kStepThreads) sample()[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < pieces.count * kPiece; i += kStepThreads) {
      const int bin = bin_in_memory(query, pieces.first * kPiece + i);
      if (bin >= 0) atomicAdd(sample() + bin, 1);
    }
    cluster_barrier(n_blocks);
    return find_threshold(sample(), totals(), bins_all, 0, budget, n_blocks, s);
  }

  __device__ __forceinline__ int bin_in_memory(const Query<kWords, kPlanes>& query,
                                               int cell) const {
    if (!is_valid(cell)) return -1;
    const int64_t slot = cells.slot(cell);
    uint32_t code[kWords];
    load_code(p.codes.codes + slot * kWords, code);
    const int length =
        p.codes.lengths != nullptr ? p.codes.lengths[slot / 2] >> (slot % 2 * 4) & 15 : 8;
    return bin_of(query, cell, code, length);
  }

  /// The slow way, in the order of cells.
  template <class Put>
  __device__ __forceinline__ void put_from_codes(const Query<kWords, kPlanes>& query,
                                                 const Threshold& t, int own_ties, Put put) {
    int above = s.before_above, ties = 0;
    for (int first = 0; first < pieces.count * kPiece; first += kStepThreads) {
      const int i = first + threadIdx.x;
      const int cell = pieces.first * kPiece + i;
      const int bin = i < pieces.count * kPiece ? bin_in_memory(query, cell) : -1;
      const unsigned is_above = __ballot_sync(kAll, bin > t.bin);
      const unsigned is_at = __ballot_sync(kAll, bin == t.bin);
      __syncthreads();
      if (lane == 0) s.warp_above[warp] = __popc(is_above), s.warp_at[warp] = __popc(is_at);
      __syncthreads();
      int my_above = above, my_ties = ties;
#pragma unroll
      for (int w = 0; w < kStepWarps; ++w) {
        if (w < warp) my_above += s.warp_above[w], my_ties += s.warp_at[w];
        above += s.warp_above[w], ties += s.warp_at[w];
      }
      const unsigned below = (1u << lane) - 1;
      my_ties += __popc(is_at & below);
      if (bin > t.bin) put(my_above + __popc(is_above & below), cell);
      if (bin == t.bin && my_ties < own_ties) put(t.above + s.before_at + my_ties, cell);
    }
  }

  template <class Put>
  __device__ __forceinline__ void put_from_candidates(int count, const Threshold& t, int own_ties,
                                                      Put put) {
    const uint32_t* mine = candidates();
    const uint32_t above_from = static_cast<uint32_t>(t.bin + 1) << kIndexBits;
    const uint32_t at_from = static_cast<uint32_t>(t.bin) << kIndexBits;
    constexpr uint32_t kIndex = (1u << kIndexBits) - 1;
    int above = 0, ties = 0;
    for (int i = lane; i < count; i += kWarp) {
      above += mine[i] >= above_from;
      ties += mine[i] >= at_from && mine[i] < above_from;
    }
    int both = above << 16 | ties;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) both += __shfl_xor_sync(kAll, both, step);
    if (lane == 0) s.warp_above[warp] = both >> 16, s.warp_at[warp] = both & 0xffff;
    __syncthreads();
    above = s.before_above, ties = 0;
#pragma unroll
    for (int w = 0; w < kStepWarps; ++w) {
      if (w < warp) above += s.warp_above[w], ties += s.warp_at[w];
    }
    const bool all_ties = own_ties == s.own_at;
    auto* tied = at<uint32_t>(layout.ring);
    const int first_cell = pieces.first * kPiece;
    for (int first = 0; first < count; first += kWarp) {
      const uint32_t entry = first + lane < count ? mine[first + lane] : 0;
      const bool is_above = entry >= above_from;
      const bool is_at = first + lane < count && !is_above && entry >= at_from;
      const unsigned below = (1u << lane) - 1;
      const unsigned aboves = __ballot_sync(kAll, is_above), ats = __ballot_sync(kAll, is_at);
      const int cell = first_cell + static_cast<int>(entry & kIndex);
      if (is_above) put(above + __popc(aboves & below), cell);
      const int tie = ties + __popc(ats & below);
      if (is_at && own_ties > 0) {
        if (all_ties) {
          put(t.above + s.before_at + tie, cell);
        } else {
          tied[tie] = entry & kIndex;
        }
      }
      above += __popc(aboves), ties += __popc(ats);
    }
    if (all_ties || own_ties == 0) return;  // the same in all threads
    __syncthreads();
    for (int i = threadIdx.x; i < s.own_at; i += kStepThreads) {
      const uint32_t cell = tied[i];
      int lower = 0;
      for (int j = 0; j < s.own_at; ++j) lower += tied[j] < cell;
      if (lower < own_ties) put(t.above + s.before_at + lower, first_cell + static_cast<int>(cell));
    }
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
    const int owner = n_blocks == 1 ? 0 : position / keys_each;
    store_peer(peer_address(list + 4 * (position - owner * keys_each), owner),
               static_cast<uint32_t>(cell));
  }
};

template <class T, int kDim, int kHeadTiles, int kWords, int kPlanes>
__device__ __forceinline__ void attend_list(const StepParams& p, std::byte* memory,
                                            const StepLayout& layout, const Cells& cells, int row,
                                            int head, int rank, int n_blocks, int n_keys) {
  const int warp = threadIdx.x / kWarp;
  const auto* list = reinterpret_cast<const int32_t*>(memory + layout.list);
  std::byte* buffer = memory + layout.ring + warp * p.gather_bytes;
  __shared__ float2 ml[kStepWarps][8 * kHeadTiles];
  __shared__ float scales[kStepWarps][8 * kHeadTiles];
  __shared__ Common common[8 * kHeadTiles];
  {
    Attention<T, kDim, kHeadTiles> attention;
    attention.begin(p, row, head);
    attention.template run<1>(p, cells, row, head, warp, kStepWarps,
                              (n_keys + kTileKeys - 1) / kTileKeys, shared_address(buffer),
                              [&](int i) { return i < n_keys ? list[i] : -1; });
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
    for (int i = threadIdx.x; i < p.group * kDim; i += kStepThreads) {
      const int q_head = head * p.group + i / kDim;
      store_out(p, row, q_head, i % kDim, sum_of(i) * normaliser(p, q_head, common[i / kDim]));
    }
    return;
  }
  const uint32_t mls = results + n_blocks * slice * 4;  // behind the slices of all blocks
  for (int i = threadIdx.x; i < p.group * kDim; i += kStepThreads) {
    const int owner = i / slice;
    store_peer(peer_address(results + (rank * slice + i - owner * slice) * 4, owner), sum_of(i));
  }
  for (int i = threadIdx.x; i < p.group * n_blocks; i += kStepThreads) {
    const int g = i % p.group, owner = i / p.group;
    const uint32_t to = peer_address(mls + (rank * p.group + g) * 8, owner);
    store_peer(to, common[g].max);
    store_peer(to + 4, common[g].sum);
  }
  cluster_barrier(n_blocks);
  const auto* parts = reinterpret_cast<const float*>(memory + layout.shared);
  const auto* part_ml = reinterpret_cast<const float2*>(parts + n_blocks * slice);
  for (int i = threadIdx.x; i < slice && rank * slice + i < p.group * kDim; i += kStepThreads) {
    const int g = (rank * slice + i) / kDim;
    Common c{-INFINITY, 0.0f};
    for (int b = 0; b < n_blocks; ++b) c.max = fmaxf(c.max, part_ml[b * p.group + g].x);
    const float base = c.max == -INFINITY ? 0.0f : c.max;
    float sum = 0.0f;
    for (int b = 0; b < n_blocks; ++b) {
      const float scale = exp2f(part_ml[b * p.group + g].x - base);
      c.sum += scale * part_ml[b * p.group + g].y;
      sum += scale * parts[b * slice + i];
    }
    const int q_head = head * p.group + g;
    store_out(p, row, q_head, (rank * slice + i) % kDim, sum * normaliser(p, q_head, c));
  }
}

/// grid: (blocks of a cluster, n_rows * n_kv_heads). kDim 0: without attention.
template <class T, int kDim, int kHeadTiles, int kWords, int kPlanes>
__global__ void __launch_bounds__(kStepThreads, 2) step_kernel(const __grid_constant__ StepParams p) {
  extern __shared__ __align__(128) std::byte memory[];
  __shared__ Codes<kWords> codes;
  __shared__ SelectScratch scratch;
  const int n_blocks = gridDim.x;
  const int row = blockIdx.y / p.n_kv_heads, head = blockIdx.y % p.n_kv_heads;
  if (!p.early) wait_for_previous();
  const int sequence = p.sequences != nullptr ? p.sequences[row] : row;
  const int n_kv = p.n_kv != nullptr ? p.n_kv[row] : p.max_n_kv;
  Chooser<kWords, kPlanes> chooser(p, memory, codes, scratch, n_blocks, row, head, sequence, n_kv);
  const StepLayout& layout = chooser.layout;

  chooser.begin_first_slab();
  commit_copies();
  for (int stage = 0; stage < p.stages; ++stage) chooser.begin_piece(stage, stage);
  for (int i = threadIdx.x; i < n_bins(p.group, p.rbit); i += kStepThreads) {
    chooser.hist()[i] = chooser.sample()[i] = 0;
  }
  if (threadIdx.x == 0) codes.max_product = p.group * p.rbit;
  if (p.early) wait_for_previous();
  chooser.load_vectors();
  switch (p.stages) {
    case 2: wait_copies<2>(); break;
    case 3: wait_copies<3>(); break;
    default: wait_copies<4>();
  }
  // Other blocks write into this one's codes: they must have begun.
  cluster_barrier(n_blocks);
  chooser.encode();
  cluster_barrier(n_blocks);
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
    attend_list<T, kDim, kHeadTiles, kWords, kPlanes>(p, memory, layout, chooser.cells, row, head,
                                                      chooser.rank, n_blocks, n_keys);
  } else {
    cluster_barrier(n_blocks);  // none leaves while others read its histogram
  }
}

}  // namespace hata::cuda
