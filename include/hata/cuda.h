// HATA on NVIDIA GPUs, for any engine: one decode step of one attention layer, enqueued on a
// stream. C and C++; all pointers are device memory unless they say "host". Nothing here allocates
// or waits, so every call can be captured in a CUDA graph. Link hata::cuda (libhata-cuda).
//
//   encode (paper, section 3.1)  ->  score (3.2)  ->  select  ->  attend
//
// Codes, scores and selected sets are those of the scalar reference (include/hata/{encode,score,
// select}.h) bit for bit; attention is within 2e-3 of it (relative, f16; 3e-3 with q8_0, whose keys
// and values become f16 on the way; 1e-2 with bf16).
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/// A cudaStream_t.
typedef struct CUstream_st* hata_cuda_stream;

typedef enum {
  HATA_CUDA_F32 = 0,
  HATA_CUDA_F16 = 1,
  HATA_CUDA_BF16 = 2,
  /// Of a cache alone: ggml's block_q8_0, 32 elements in 34 bytes: a scale d (f16), then 32 int8 q.
  /// An element is d * q, in f32 (exact); so codes and lengths see it, while attention rounds it to
  /// f16 (beyond 65504: infinite). A row is head_dim / 32 blocks, one behind the other.
  HATA_CUDA_Q8_0 = 3
} hata_cuda_type;

typedef enum {
  HATA_CUDA_OK = 0,
  HATA_CUDA_BAD_ARGUMENT = 1,  ///< hata_cuda_error() names the field, its value and the way out
  HATA_CUDA_NO_DEVICE = 2,     ///< no device that the library has kernels for
  HATA_CUDA_FAILED = 3         ///< a CUDA call failed; hata_cuda_error() has its words
} hata_cuda_status;

/// Why the last call of this thread failed (host text, never NULL).
const char* hata_cuda_error(void);

/// Whether the current device has kernels here; otherwise hata_cuda_error() says why not.
hata_cuda_status hata_cuda_available(void);

/// One attention layer. Query head h reads KV head h / (n_q_heads / n_kv_heads).
typedef struct {
  int n_q_heads;
  int n_kv_heads;
  int head_dim;     ///< 64, 80, 96, 128 or 256; with q8_0 not 80
  int rbit;         ///< bits of a code: 64, 128 or 256
} hata_cuda_shape;  // n_q_heads / n_kv_heads is at most 16

/// Keys and values of all sequences, both laid out alike; addresses and strides in bytes, multiples
/// of 16. With q8_0 multiples of 2 will do, and of head_dim / 16 are faster (as whole rows are, of
/// head_dim / 32 * 34 bytes, but for head_dim 96).
/// The row (head_dim elements) of cell c of sequence s and KV head h starts at
///   contiguous:  s * seq_stride + c * cell_stride + h * head_stride
///   paged:       block_table[s * table_stride + c / page_size] * page_stride
///                + (c % page_size) * cell_stride + h * head_stride
typedef struct {
  const void* keys;
  const void* values;
  hata_cuda_type type;  ///< f16, bf16 or q8_0, of keys and values
  int64_t seq_stride;
  int64_t cell_stride;
  int64_t head_stride;
  const int32_t* block_table;  ///< [sequence][table_stride] pages; NULL: contiguous
  int64_t table_stride;
  int page_size;  ///< cells: a power of two, 16 to 256
  int64_t page_stride;
} hata_cuda_cache;

/// What is kept beside the keys, by cell like them:
///   contiguous:  codes [sequence][KV head][capacity][rbit / 32], lengths [..][capacity / 2]
///   paged:       codes [page][KV head][page_size][rbit / 32], lengths [..][page_size / 2]
/// Bit j of a code is bit j % 32 of its word j / 32; the length (4 bits) of an even cell is the low
/// half of a byte. Both start on 16 bytes.
typedef struct {
  uint32_t* codes;
  uint8_t* lengths;  ///< NULL: the paper's order, without lengths
  int64_t capacity;  ///< cells of a contiguous sequence, a multiple of 128
} hata_cuda_codes;

/// The projections of one layer, as f32 (weights files: `blk.N.attn_hash_k.weight`).
typedef struct {
  const float* keys;       ///< [n_kv_heads][head_dim][rbit]
  const float* queries;    ///< of queries where they differ; NULL: `keys` serves both
  const float* inv_units;  ///< [n_kv_heads] 8 / mean |key|; needed with lengths
  const float* key_means;  ///< [n_kv_heads][head_dim], subtracted from keys before; NULL: nothing
} hata_cuda_projection;

/// Encodes keys that lie in the cache: after a prefill, a restore, a context shift.
typedef struct {
  hata_cuda_shape shape;
  hata_cuda_cache cache;
  hata_cuda_codes codes;
  hata_cuda_projection projection;
  /// Cells [first, first + count) of sequence `sequence`; or, where `cells` is not NULL, the
  /// `count` cells that it names (any order, no cell twice, negative ones are passed over).
  int sequence;
  int64_t first;
  int64_t count;
  const int64_t* cells;
} hata_cuda_encode;

hata_cuda_status hata_cuda_encode_keys(const hata_cuda_encode* encode, hata_cuda_stream stream);

typedef enum {
  HATA_CUDA_AUTO = 0,    ///< sparse where it is faster than dense, as measured (docs/cuda.md)
  HATA_CUDA_SPARSE = 1,  ///< always attend to the chosen keys
  HATA_CUDA_DENSE = 2    ///< always attend to all valid keys
} hata_cuda_mode;

/// How the distances of a group's query heads become one score (include/hata/score.h).
typedef enum {
  HATA_CUDA_SUM = 0,     ///< score(): their sum
  HATA_CUDA_SQUARES = 1  ///< score_squares(): the squares of each head's agreement beyond chance
} hata_cuda_score;

/// One decode step: n_rows query rows, each over the cells 0 .. n_kv - 1 of its sequence.
typedef struct {
  hata_cuda_shape shape;
  hata_cuda_cache cache;
  hata_cuda_codes codes;
  hata_cuda_projection projection;
  hata_cuda_mode mode;

  // --- rows -------------------------------------------------------------------------------
  int n_rows;
  const void* q;  ///< element i of head h of row r: q[r * q_row_stride + h * q_head_stride + i]
  hata_cuda_type q_type;
  int64_t q_row_stride, q_head_stride;  ///< in elements
  void* out;                            ///< laid out likewise, its own strides
  hata_cuda_type out_type;
  int64_t out_row_stride, out_head_stride;
  const int32_t* sequences;  ///< [n_rows] the row's sequence; NULL: row r reads sequence r
  const int32_t* n_kv;       ///< [n_rows] cells of the row; NULL: max_n_kv of them
  int max_n_kv;              ///< at least as many as any row has (host): sizes the launch

  // --- which keys -------------------------------------------------------------------------
  hata_cuda_score score;  ///< the rule; 0: the sum
  const int32_t*
      budgets;       ///< [n_rows] keys of each KV head, forced ones counted in; NULL: `budget`
  int budget;        ///< 1 or more; with `budgets`: none exceeds it
  int sink, recent;  ///< always chosen: the first `sink` and last `recent` cells of a row
  /// [n_rows][bit_stride] words, bit per cell: which cells may be chosen, and which always are, in
  /// place of `sink` and `recent`. NULL: all of n_kv; sink and recent.
  const uint32_t* valid;
  const uint32_t* forced;
  int64_t bit_stride;
  /// Not 0: the step encodes the key of each row's last cell (n_kv - 1) and stores its code, dense
  /// steps do so, too. Rows of one step must then be of different sequences. 0: all are encoded.
  int encode_last;

  // --- softmax ----------------------------------------------------------------------------
  float scale;
  float softcap;         ///< > 0: logit = softcap * tanh(scale * q.k / softcap)
  const float* sinks;    ///< [n_q_heads] an extra logit without a value; NULL: none
  const float* slopes;   ///< [n_q_heads] ALiBi slopes that multiply `bias`
  const uint16_t* bias;  ///< f16 [n_rows][bias_stride] per cell, needs slopes; NULL: none
  int64_t bias_stride;

  // --- optional ---------------------------------------------------------------------------
  int32_t* selected;    ///< [n_rows][n_kv_heads][budget] the chosen cells, in no order; NULL
  int32_t* n_selected;  ///< [n_rows][n_kv_heads]; NULL
  /// Not 0: the kernel before this one on the stream wrote no codes, lengths, n_kv, sequences or
  /// budgets of this step (it made q, say). They are then read before that kernel has ended.
  int early;
} hata_cuda_step;

/// Bytes of workspace that the step needs, whatever the device values are. 0 with an error.
size_t hata_cuda_workspace_size(const hata_cuda_step* step);

/// Enqueues the step. `workspace` is set to zero once, before its first use, and left to the
/// library after that; steps that may overlap need one each.
hata_cuda_status hata_cuda_decode(const hata_cuda_step* step, void* workspace,
                                  size_t workspace_size, hata_cuda_stream stream);

/// Whether this step (its shape, n_rows, max_n_kv, budget) would run dense: in mode AUTO the
/// measured crossover decides.
int hata_cuda_runs_dense(const hata_cuda_step* step);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
