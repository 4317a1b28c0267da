// ggml's own functions, found in the copy of ggml that the program has loaded.
#pragma once

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>
#include <gguf.h>

#include <string>

extern "C" {
/// Exported by ggml for its own libraries, in no public header.
bool ggml_backend_buffer_copy_tensor(const ggml_tensor* src, ggml_tensor* dst);
}

// clang-format off
/// The functions that this library defines in ggml's place and forwards.
#define HATA_HOOKED_FUNCTIONS(X)        \
  X(ggml_backend_graph_compute_async)   \
  X(ggml_backend_graph_plan_compute)    \
  X(ggml_backend_tensor_set)            \
  X(ggml_backend_tensor_set_async)      \
  X(ggml_backend_tensor_set_2d)         \
  X(ggml_backend_tensor_set_2d_async)   \
  X(ggml_backend_tensor_memset)         \
  X(ggml_backend_tensor_copy)           \
  X(ggml_backend_tensor_copy_async)     \
  X(ggml_backend_buffer_copy_tensor)    \
  X(ggml_backend_buffer_clear)          \
  X(ggml_backend_buffer_free)           \
  X(gguf_init_from_file)

/// Those that it uses.
#define HATA_USED_FUNCTIONS(X)          \
  X(ggml_version)                       \
  X(ggml_init)                          \
  X(ggml_free)                          \
  X(ggml_tensor_overhead)               \
  X(ggml_graph_overhead)                \
  X(ggml_nbytes)                        \
  X(ggml_op_name)                       \
  X(ggml_type_name)                     \
  X(ggml_set_name)                      \
  X(ggml_get_data)                      \
  X(ggml_get_name)                      \
  X(ggml_set_input)                     \
  X(ggml_new_tensor_4d)                 \
  X(ggml_view_4d)                       \
  X(ggml_reshape_2d)                    \
  X(ggml_permute)                       \
  X(ggml_transpose)                     \
  X(ggml_add)                           \
  X(ggml_cpy)                           \
  X(ggml_mul_mat)                       \
  X(ggml_set_rows)                      \
  X(ggml_rope_inplace)                  \
  X(ggml_flash_attn_ext)                \
  X(ggml_flash_attn_ext_add_sinks)      \
  X(ggml_flash_attn_ext_set_n_kv_max)   \
  X(ggml_custom_4d)                     \
  X(ggml_new_graph)                     \
  X(ggml_build_forward_expand)          \
  X(ggml_graph_n_nodes)                 \
  X(ggml_graph_nodes)                   \
  X(ggml_backend_get_device)            \
  X(ggml_backend_dev_backend_reg)       \
  X(ggml_backend_reg_get_proc_address)  \
  X(ggml_backend_dev_type)              \
  X(ggml_backend_dev_name)              \
  X(ggml_backend_dev_init)              \
  X(ggml_backend_free)                  \
  X(ggml_backend_alloc_ctx_tensors)     \
  X(ggml_backend_buffer_get_base)       \
  X(ggml_backend_buffer_get_size)       \
  X(ggml_backend_buffer_is_host)        \
  X(ggml_backend_sched_new)             \
  X(ggml_backend_sched_free)            \
  X(ggml_backend_sched_graph_compute)

/// Those that attention on a device needs besides.
#define HATA_DEVICE_FUNCTIONS(X)        \
  X(ggml_nelements)                     \
  X(ggml_backend_reg_name)              \
  X(ggml_backend_buffer_get_usage)      \
  X(ggml_backend_tensor_get)            \
  X(ggml_backend_synchronize)           \
  X(ggml_backend_event_new)             \
  X(ggml_backend_event_free)            \
  X(ggml_backend_event_record)          \
  X(ggml_backend_event_wait)
// clang-format on

namespace hata::host {

/// One loaded copy of ggml. A function that it lacks is a null pointer.
struct Real {
#define HATA_DECLARE(name) decltype(&::name) name = nullptr;
  HATA_HOOKED_FUNCTIONS(HATA_DECLARE)
  HATA_USED_FUNCTIONS(HATA_DECLARE)
  HATA_DEVICE_FUNCTIONS(HATA_DECLARE)
#undef HATA_DECLARE
  std::string path;               ///< of the library that defines them
  std::string missing;            ///< the first function that it lacks
  std::string missing_on_device;  ///< of those that only a device needs
};

/// The copy of ggml that the code at `caller` uses. Found at the first call from each library.
/// Never fails: a call that came here stands for a function that some copy defines.
const Real& real_for(const void* caller);

/// The copy loaded first; nullptr where there is none.
const Real* first_real();

/// More than one copy has been seen in this process.
bool several_copies();

/// A function of some library of ggml's that is not the base one (backends' registry), by name.
void* find_function(const char* name);

}  // namespace hata::host
