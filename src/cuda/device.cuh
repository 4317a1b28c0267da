// The instructions that CUDA C++ has no words for, and nothing else.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <climits>
#include <cstdint>

namespace hata::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define HATA_CLUSTERS 0  // clusters are of one block: a peer is the block itself
#else
#define HATA_CLUSTERS 1
#endif

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

/// The warp of this thread in its block, as a number that the compiler knows all its lanes to
/// share.
__device__ __forceinline__ int warp_index() {
  return __shfl_sync(kAll, static_cast<int>(threadIdx.x) / kWarp, 0);
}

/// Of a power of two.
__device__ __forceinline__ int log2_of(int n) { return __ffs(n) - 1; }

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// --- copies from global to shared memory
// ---------------------------------------------------------- `ok` false: zeros, and nothing is
// read.

template <int kBytes>
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool ok) {
  const int bytes = ok ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(kBytes),
                 "r"(bytes)
                 : "memory");
  }
}
/// By a predicate: where there is nothing to copy, nothing is done.
__device__ __forceinline__ void copy_if(bool ok, uint32_t to, const void* from) {
  asm volatile(
      "{\n.reg .pred ok;\nsetp.ne.u32 ok, %2, 0;\n"
      "@ok cp.async.cg.shared.global [%0], [%1], 16;\n}" ::"r"(to),
      "l"(from), "r"(static_cast<uint32_t>(ok))
      : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Until at most n of this thread's groups are under way.
template <int n>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

// --- the copy engine
// ------------------------------------------------------------------------------ Copies that no
// thread waits at: cp.async stalls its warp once an SM has too many under way. A barrier in shared
// memory counts the bytes that have come; its phases alternate in parity.

__device__ __forceinline__ void init_arrival(uint32_t barrier) {
#if HATA_CLUSTERS
  asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier) : "memory");
#endif
}
/// After init_arrival, by the thread that begins the copies.
__device__ __forceinline__ void publish_arrivals() {
#if HATA_CLUSTERS
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ __forceinline__ void expect_bytes(uint32_t barrier, int bytes) {
#if HATA_CLUSTERS
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
#endif
}
/// 16 bytes or a multiple, both addresses aligned so.
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, int bytes,
                                          uint32_t barrier) {
#if HATA_CLUSTERS
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
#endif
}
/// This thread's writes to shared memory come before bulk copies that are begun later.
__device__ __forceinline__ void writes_before_copies() {
#if HATA_CLUSTERS
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_arrival(uint32_t barrier, int parity) {
#if HATA_CLUSTERS
  asm volatile(
      "{\n.reg .pred done;\nAGAIN_%=:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@!done bra AGAIN_%=;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
#endif
}
/// To shared memory, by predicates and not by branches.
__device__ __forceinline__ void store_if(bool ok, uint32_t to, uint32_t v) {
  asm volatile(
      "{\n.reg .pred ok;\nsetp.ne.u32 ok, %2, 0;\n@ok st.shared.u32 [%0], %1;\n}" ::"r"(to), "r"(v),
      "r"(static_cast<uint32_t>(ok))
      : "memory");
}
__device__ __forceinline__ void zero_if(bool ok, uint32_t to) {
  asm volatile(
      "{\n.reg .pred ok;\nsetp.ne.u32 ok, %1, 0;\n@ok st.shared.v4.u32 [%0], {%2, %2, %2, "
      "%2};\n}" ::"r"(to),
      "r"(static_cast<uint32_t>(ok)), "r"(0)
      : "memory");
}
__device__ __forceinline__ void or_if(bool ok, uint32_t to, uint32_t bits) {
  asm volatile(
      "{\n.reg .pred ok;\nsetp.ne.u32 ok, %2, 0;\n@ok red.shared.or.b32 [%0], %1;\n}" ::"r"(to),
      "r"(bits), "r"(static_cast<uint32_t>(ok))
      : "memory");
}
__device__ __forceinline__ void store_at_least(int v, int least, uint32_t to, uint32_t word) {
  asm volatile(
      "{\n.reg .pred ok;\nsetp.ge.s32 ok, %2, %3;\n@ok st.shared.u32 [%0], %1;\n}" ::"r"(to),
      "r"(word), "r"(v), "r"(least)
      : "memory");
}
__device__ __forceinline__ void count_at_least(int v, int least, uint32_t to) {
  asm volatile(
      "{\n.reg .pred ok;\nsetp.ge.s32 ok, %1, %2;\n@ok red.shared.add.u32 [%0], 1;\n}" ::"r"(to),
      "r"(v), "r"(least)
      : "memory");
}
__device__ __forceinline__ void store_zeros(uint32_t to) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
}

__device__ __forceinline__ uint32_t load_shared(uint32_t from) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
  return v;
}
__device__ __forceinline__ void store_shared(uint32_t to, uint16_t v) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(v) : "memory");
}
__device__ __forceinline__ void store_shared(uint32_t to, const uint4& v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}

// --- matrix tiles of 16-bit elements
// --------------------------------------------------------------

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ uint32_t transpose(uint32_t a) {
  uint32_t r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(a));
  return r;
}

template <class T>
struct Half;  // what differs between f16 and bf16

template <>
struct Half<__half> {
  static __device__ __forceinline__ float wide(__half x) { return __half2float(x); }
  static __device__ __forceinline__ uint32_t pack(float a, float b) {
    const __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&h);
  }
  static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

template <>
struct Half<__nv_bfloat16> {
  static __device__ __forceinline__ float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
  static __device__ __forceinline__ uint32_t pack(float a, float b) {
    const __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&h);
  }
  static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

// --- the kernels before and after ours on the stream
// ----------------------------------------------

/// Until the kernels before this one have ended; no wait where it was launched after them anyway.
__device__ __forceinline__ void wait_for_previous() {
#if HATA_CLUSTERS
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The next kernel may start, if it was launched to allow that.
__device__ __forceinline__ void let_next_start() {
#if HATA_CLUSTERS
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// --- part of a block waits for the rest
// ---------------------------------------------------------- Barriers 1 to 15, of kThreads threads:
// those that arrive do not wait.

#ifdef HATA_CUDA_PLAIN_BARRIERS
// compute-sanitizer's racecheck takes an arrival for no order at all, and what follows for races.
constexpr bool kPlainBarriers = true;
template <int kThreads>
__device__ __forceinline__ void named_arrive(int) {
  __syncthreads();
}
template <int kThreads>
__device__ __forceinline__ void named_wait(int) {
  __syncthreads();
}
#else
constexpr bool kPlainBarriers = false;
template <int kThreads>
__device__ __forceinline__ void named_arrive(int barrier) {
  asm volatile("barrier.cta.arrive %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory");
}
template <int kThreads>
__device__ __forceinline__ void named_wait(int barrier) {
  asm volatile("barrier.cta.sync %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory");
}
#endif

// --- the blocks of a cluster
// ----------------------------------------------------------------------

__device__ __forceinline__ int cluster_rank() {
#if HATA_CLUSTERS
  uint32_t r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return static_cast<int>(r);
#else
  return 0;
#endif
}
/// A block has begun, and the others may send to it: nothing that was written is there for them
/// yet.
__device__ __forceinline__ void cluster_begin() {
#if HATA_CLUSTERS
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
/// What this thread wrote to its own block's shared memory is there for the others. What it wrote
/// to theirs need not be: for that there is send(). (The barrier that has this order as well is
/// preceded by a fence of the whole device, which waits for all loads under way.)
__device__ __forceinline__ void cluster_arrive() {
#if HATA_CLUSTERS
  asm volatile("fence.acq_rel.cta;\nbarrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if HATA_CLUSTERS
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
  __syncthreads();
#endif
}
/// All threads of all blocks; a block alone needs no more than its own barrier.
__device__ __forceinline__ void cluster_barrier(int size) {
  if (size == 1) {
    __syncthreads();
  } else {
    cluster_arrive();
    cluster_wait();
  }
}

/// What `address` of shared memory is in block `rank` of the cluster.
__device__ __forceinline__ uint32_t peer_address(uint32_t address, int rank) {
#if HATA_CLUSTERS
  uint32_t r;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(address), "r"(rank));
  return r;
#else
  return address;
#endif
}
#if HATA_CLUSTERS
#define HATA_PEER "shared::cluster"
#else
#define HATA_PEER "shared"
#endif
__device__ __forceinline__ uint4 load_peer4(uint32_t address) {
  uint4 v;
  asm volatile("ld." HATA_PEER ".v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
__device__ __forceinline__ uint32_t load_peer(uint32_t address) {
  uint32_t v;
  asm volatile("ld." HATA_PEER ".u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}
/// Where `ok`, stores a word in a block's shared memory, and tells a barrier there that 4 bytes
/// have come. Both addresses are peer_address(). A block without a cluster (`alone`) stores for
/// itself. Predicates, not branches.
__device__ __forceinline__ void send(bool ok, uint32_t address, uint32_t v,
                                     [[maybe_unused]] uint32_t arrival, bool alone) {
#if HATA_CLUSTERS
  asm volatile(
      "{\n.reg .pred ok;\nsetp.ne.u32 ok, %3, 0;\n"
      "@ok st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];\n}" ::"r"(
          address),
      "r"(v), "r"(arrival), "r"(static_cast<uint32_t>(ok && !alone))
      : "memory");
#endif
  if (!HATA_CLUSTERS || alone) store_if(ok, address, v);
}
/// Until all that was sent to this block has come, as much as expect_bytes() said. All threads.
__device__ __forceinline__ void receive([[maybe_unused]] uint32_t arrival, bool alone) {
  if (!HATA_CLUSTERS || alone) {
    __syncthreads();
  } else {
    wait_arrival(arrival, 0);
  }
}

}  // namespace hata::cuda
