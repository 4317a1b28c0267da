#include "ggml/reasons.h"

#include "ggml/log.h"

namespace hata::host {
namespace {

struct Text {
  std::string_view name;
  std::string_view line;  // empty: not said
};

constexpr Text kTexts[] = {
    {"none", ""},
    {"prefill", ""},
    {"device", "attention on a device that is neither the CPU nor CUDA stays dense"},
    {"no_flash_attention",
     "flash attention is off, so all layers stay dense; use -fa on (flash_attn=True)"},
    {"graph_plan", "a graph computed through a plan stays dense"},
    {"no_cache", "attention over keys that are no part of a KV cache stays dense"},
    {"f32_cache", "layers with an f32 cache stay dense; use the cache type f16"},
    {"cache_type",
     "layers with this cache type stay dense; use f16 (-ctk f16 -ctv f16), or q8_0 for both on a "
     "CUDA device"},
    {"mla", "layers with latent attention (MLA) stay dense"},
    {"computed_mask", "layers whose mask is computed in the graph stay dense"},
    {"own_sparsity", "layers with the model's own sparse attention stay dense"},
    {"shape", "layers of this shape stay dense"},
    {"layout", "layers with tensors laid out in this way stay dense"},
    {"written_after", "layers whose keys are written after the attention stay dense"},
    {"computed_rows", "layers whose cache rows are computed in the graph stay dense"},
    {"memory", "no memory for the codes, so the layer stays dense"},
    {"unobserved",
     "rows whose prompt was not observed stay dense: this method needs observe=on before the "
     "prompt"},
    {"weights", "layers that the trained weights do not fit stay dense"},
    {"rotation", "layers whose cache is rotated in an unknown way stay dense"},
    {"needs",
     "budget=auto: layers stay dense whose needs no trained weights tell; train some (hata train), "
     "or give a number of keys"},
    {"cuda", "attention on CUDA devices stays dense"},
    {"cuda_method",
     "layers on CUDA devices stay dense: there, keys are chosen by codes alone (method=hata, "
     "hata-paper or random, without rerank)"},
    {"cuda_inputs", "layers whose mask was not seen on its way to the device stay dense"},
    {"cuda_failed", "a CUDA call failed, so a layer stays dense"},
};
static_assert(std::size(kTexts) == static_cast<size_t>(Reason::count));

}  // namespace

std::string_view reason_name(Reason reason) { return kTexts[static_cast<size_t>(reason)].name; }

void Reasons::tell(Reason reason, const std::string& detail) {
  const auto i = static_cast<size_t>(reason);
  if (kTexts[i].line.empty() || told_[i].exchange(true)) return;
  note(std::string(kTexts[i].line) + (detail.empty() ? "" : " (" + detail + ")"));
}

void Reasons::reset() {
  for (auto& count : counts_) count.store(0, std::memory_order_relaxed);
}

}  // namespace hata::host
