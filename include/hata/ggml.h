/* The llama.cpp host, libhata-ggml.so: makes the ggml that a program has loaded use hash-aware
 * top-k attention. Two ways to use it:
 *
 *   preloaded   LD_PRELOAD=libhata-ggml.so HATA_OPTIONS="budget=512 stats=1" llama-server ...
 *   linked      before libggml and libllama, and set up by the functions below
 *
 * Layers whose cache lies on a CUDA device choose and attend there where libhata-cuda.so lies
 * beside this library, or HATA_CUDA_LIB names it (docs/cuda-llama.md); otherwise they stay dense,
 * and a line says so.
 *
 * Options are one text of `key=value` words, separated by blanks. Keys and their defaults:
 *
 *   method=hata          a method and its parameters, as in quest:page=32 (docs/methods.md lists
 *                        them; dense: our exact attention), or ggml (hands off)
 *   budget=512           keys a row attends to: a number, a part of its valid keys (1.56%), or
 *                        auto:0.99, as many as keep so much of the attention, by trained weights
 *                        (auto:0.99:1024: at most 1024; by default at most 12.5 %)
 *   dense-layers=2       layers that attend to all keys: so many of the first ones, with + further
 *                        ones (0+5+7: layers 5 and 7), or auto: those that trained weights name
 *   min-ctx=1024         rows with fewer valid keys attend to all of them
 *   sink=1 recent=-1     first and last tokens always kept, inside the budget; recent=0.75k is a
 *                        part of it, recent=-1 what trained weights say of a layer, else
 *                        min(32, budget / 2)
 *   lengths=on           key lengths in the score
 *   score=sum            of the distances of a group's heads, or squares: of each head's agreement
 *                        beyond chance (docs/methods.md)
 *   rerank=0             2 to 16: so many times the budget are ranked again by 4-bit keys, which
 *                        are then kept beside the codes (72 bytes for a key of 128 elements)
 *   weights=auto         trained codes: a file that lies beside the model (hata-<its name>*.gguf),
 *                        off, or a file (a blank in its name is written as \ and a blank)
 *   rbit=128 seed=1      bits of a random code, and the seed of the random projection
 *   max-rows=8           batches with more rows of one sequence stream are prefill: all keys
 *   prefill=on           our dense attention for them, too; off: they are left to ggml
 *   huge-pages=on        a cache that a sparse step reads is moved to huge pages first
 *   observe=off          sum what the rows of a prefill look at: methods that evict (h2o, snapkv)
 *                        need it, and it about doubles the attention of a prefill
 *   verify=off           check every code at every sparse step (slow)
 *   stats=off            print statistics at exit and on SIGUSR1
 *   quiet=off            no notes on what stays dense, and why
 *   probe=off            preloaded: run the self-test instead of the program, print its result and
 *                        exit (0 passed, 1 failed, 2 the program has not loaded ggml by then)
 */
#ifndef HATA_GGML_H
#define HATA_GGML_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HATA_GGML_API __attribute__((visibility("default")))

/* Sets the options, from the next graph on; replaces HATA_OPTIONS. Keys that are not named get
 * their defaults. May be called again at any time: what is kept of the caches is rebuilt as it is
 * needed. NULL on success; otherwise what is wrong, and nothing changes. The text belongs to the
 * calling thread and lasts until its next call. */
HATA_GGML_API const char* hata_ggml_configure(const char* options);

/* Runs the self-test (once a process; later calls repeat its result). 1: the loaded ggml can be
 * used. 0: it cannot, and `reason` (up to n bytes, may be NULL) says why. -1: no ggml is loaded. */
HATA_GGML_API int hata_ggml_self_test(char* reason, size_t n);

/* 1: at work. 0: off, and `reason` (up to n bytes, may be NULL) says why: the method is ggml, the
 * options are wrong, the self-test failed, or no graph has been computed yet. */
HATA_GGML_API int hata_ggml_status(char* reason, size_t n);

/* Statistics since the last reset, as JSON; free() the text. NULL: out of memory. */
HATA_GGML_API char* hata_ggml_stats_json(void);
HATA_GGML_API void hata_ggml_reset_stats(void);

/* Says that keys in these bytes of a cache were written past ggml's functions. */
HATA_GGML_API void hata_ggml_invalidate(const void* begin, size_t bytes);

/* For evaluation: `fn` is called after every attention step with a sparse row, with that step (a
 * hata::Inspection of the same build, hata/inspect.h) and `user`. NULL: nobody looks, which is the
 * default and costs nothing. Not while a graph is computed. */
HATA_GGML_API void hata_ggml_set_inspector(void (*fn)(const void* step, void* user), void* user);

/* The same for every batch of more than max-rows rows (a hata::PrefillInspection), for training:
 * on the CPU, where it needs prefill=on, and on CUDA devices. */
HATA_GGML_API void hata_ggml_set_prefill_inspector(void (*fn)(const void* step, void* user),
                                                   void* user);

#ifdef __cplusplus
}
#endif

#endif
