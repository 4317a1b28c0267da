#include "ggml/node.h"

#include <cstring>
#include <string_view>

#include "core/numbers.h"
#include "core/q8.h"

namespace hata::host {
namespace {

// op_params of a FLASH_ATTN_EXT node.
constexpr int kScale = 0, kMaxBias = 1, kSoftcap = 2, kNKvMax = 4;

float float_param(const ggml_tensor* node, int i) {
  float value;
  std::memcpy(&value, node->op_params + i, sizeof(value));
  return value;
}

const std::byte* bytes(const ggml_tensor* tensor, int64_t offset = 0) {
  return static_cast<const std::byte*>(tensor->data) + offset;
}

const float* floats(const ggml_tensor* tensor, size_t offset) {
  return reinterpret_cast<const float*>(bytes(tensor, static_cast<int64_t>(offset)));
}

Reason check_keys(const Ops& ops, const ggml_tensor* k, Attention& out) {
  out.cache = root_of(k);
  out.layer = cache_layer(out.cache->name);
  if (out.layer < 0) {
    const bool cast =
        k->op == ops.cpy && k->src[0] != nullptr && cache_layer(root_of(k->src[0])->name) >= 0;
    return cast ? Reason::f32_cache : Reason::no_cache;
  }
  out.type = k->type;
  return k->type == GGML_TYPE_F16 || k->type == GGML_TYPE_Q8_0 ? Reason::none : Reason::cache_type;
}

Reason check_values(const ggml_tensor* k, const ggml_tensor* v) {
  if (root_of(v) == root_of(k) || v->ne[0] != k->ne[0]) return Reason::mla;
  return v->type == k->type ? Reason::none : Reason::cache_type;
}

Reason check_mask(const Ops& ops, const ggml_tensor* node, const ggml_tensor* mask) {
  if (node->op_params[kNKvMax] != 0) return Reason::own_sparsity;
  if (mask == nullptr) return Reason::none;
  if (root_of(mask)->op != ops.none) return Reason::computed_mask;
  const ggml_tensor* q = node->src[kQ];
  const bool fits = mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(uint16_t) &&
                    mask->ne[0] >= node->src[kK]->ne[1] && mask->ne[1] >= q->ne[1] &&
                    mask->ne[2] == 1 && (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]);
  return fits ? Reason::none : Reason::layout;
}

/// The cells of the view must be rows of the cache, one after the other.
bool cells_fit(const Attention& a, const ggml_tensor* k) {
  const ggml_tensor* cache = a.cache;
  const auto row = static_cast<int64_t>(cache->nb[1]);
  const int64_t offset = bytes(k) - bytes(cache);
  const int64_t stream = k->ne[3] > 1 ? static_cast<int64_t>(k->nb[3]) : 0;
  const int64_t n_cells = cache->ne[1] * cache->ne[2] * cache->ne[3];
  return static_cast<int64_t>(k->nb[1]) == row && offset >= 0 && offset % row == 0 &&
         k->ne[2] * static_cast<int64_t>(k->nb[2]) <= row && stream % row == 0 &&
         (offset + (k->ne[3] - 1) * stream) / row + k->ne[1] <= n_cells &&
         static_cast<int64_t>(cache->nb[2]) == cache->ne[1] * row &&
         static_cast<int64_t>(cache->nb[3]) == cache->ne[2] * static_cast<int64_t>(cache->nb[2]);
}

Reason check_layout(const Attention& a) {
  const ggml_tensor* q = a.node->src[kQ];
  const ggml_tensor* k = a.node->src[kK];
  const ggml_tensor* v = a.node->src[kV];
  const ggml_tensor* sinks = a.node->src[kSinks];
  const size_t unit = a.type == GGML_TYPE_Q8_0 ? kQ8BlockBytes : sizeof(uint16_t);
  const bool fits =
      q->type == GGML_TYPE_F32 && a.node->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) &&
      a.node->nb[0] == sizeof(float) && k->nb[0] == unit && v->nb[0] == unit &&
      v->ne[1] == k->ne[1] && v->ne[2] == k->ne[2] && k->ne[3] == q->ne[3] &&
      v->ne[3] == q->ne[3] && cells_fit(a, k) &&
      (sinks == nullptr || (sinks->type == GGML_TYPE_F32 && sinks->nb[0] == sizeof(float)));
  return fits ? Reason::none : Reason::layout;
}

void fill(Attention& out) {
  const ggml_tensor* node = out.node;
  const ggml_tensor* k = node->src[kK];
  const auto row = static_cast<int64_t>(out.cache->nb[1]);
  out.shape = {.n_q_heads = static_cast<int>(node->src[kQ]->ne[2]),
               .n_kv_heads = static_cast<int>(k->ne[2]),
               .head_dim = static_cast<int>(k->ne[0])};
  out.params = {.scale = float_param(node, kScale),
                .softcap = float_param(node, kSoftcap),
                .max_bias = float_param(node, kMaxBias),
                .sinks = node->src[kSinks] != nullptr ? floats(node->src[kSinks], 0) : nullptr};
  out.n_rows = node->src[kQ]->ne[1];
  out.n_streams = node->src[kQ]->ne[3];
  out.first_cell = (bytes(k) - bytes(out.cache)) / row;
  out.stream_cells = static_cast<int64_t>(k->nb[3]) / row;
}

}  // namespace

int cache_layer(const char* name) {
  const std::string_view text(name, strnlen(name, GGML_MAX_NAME));
  constexpr std::string_view kBegin = "cache_";
  constexpr std::string_view kKey = "k_l";
  if (!text.starts_with(kBegin)) return -1;
  const size_t key = text.find(kKey, kBegin.size());
  if (key == std::string_view::npos) return -1;
  const std::string_view digits = text.substr(key + kKey.size());
  int layer = -1;
  return read_number(digits, layer) ? layer : -1;
}

size_t head_row_bytes(ggml_type type, int head_dim) {
  return type == GGML_TYPE_Q8_0 ? q8_bytes(head_dim)
                                : static_cast<size_t>(head_dim) * sizeof(uint16_t);
}

Reason read_attention(const Ops& ops, ggml_tensor* node, Attention& out) {
  out.node = node;
  const ggml_tensor* k = node->src[kK];
  Reason reason = check_keys(ops, k, out);
  if (reason == Reason::none) reason = check_values(k, node->src[kV]);
  if (reason == Reason::none) reason = check_mask(ops, node, node->src[kMask]);
  if (reason == Reason::none) reason = check_layout(out);
  if (reason != Reason::none) return reason;
  fill(out);
  return Reason::none;
}

Step Attention::step(int64_t stream, std::span<Row> rows) const {
  const ggml_tensor* q = node->src[kQ];
  const ggml_tensor* k = node->src[kK];
  const ggml_tensor* v = node->src[kV];
  const ggml_tensor* mask = node->src[kMask];
  const auto s = static_cast<size_t>(stream);
  for (size_t t = 0; t < rows.size(); ++t) {
    float* out =
        static_cast<float*>(node->data) + (t * node->nb[2] + s * node->nb[3]) / sizeof(float);
    rows[t] = {.q = floats(q, t * q->nb[1] + s * q->nb[3]),
               .q_head_stride = q->nb[2] / sizeof(float),
               .out = out,
               .out_head_stride = node->nb[1] / sizeof(float),
               .mask = nullptr};
    if (mask != nullptr) {
      const size_t offset = t * mask->nb[1] + (mask->ne[3] > 1 ? s * mask->nb[3] : 0);
      rows[t].mask = reinterpret_cast<const uint16_t*>(bytes(mask, static_cast<int64_t>(offset)));
    }
  }
  return {.shape = shape,
          .params = params,
          .keys = {bytes(k, static_cast<int64_t>(s * k->nb[3])), DType::f16, k->nb[1], k->nb[2]},
          .values = {bytes(v, static_cast<int64_t>(s * v->nb[3])), DType::f16, v->nb[1], v->nb[2]},
          .n_kv = k->ne[1],
          .first_cell = first_cell + stream * stream_cells,
          .rows = rows};
}

bool read_tensor(const Real& real, const ggml_tensor* tensor, std::string& bytes) {
  if (tensor->buffer == nullptr) return false;
  bytes.resize(real.ggml_nbytes(tensor));
  if (real.ggml_backend_buffer_is_host(tensor->buffer)) {
    bytes.assign(static_cast<const char*>(tensor->data), bytes.size());
    return true;
  }
  if (!real.missing_on_device.empty()) return false;
  real.ggml_backend_tensor_get(tensor, bytes.data(), 0, bytes.size());
  return true;
}

std::string describe(const Real& real, Reason reason, const ggml_tensor* node) {
  const ggml_tensor* k = node->src[kK];
  const ggml_tensor* v = node->src[kV];
  const std::string where = std::string("first seen: ") + root_of(k)->name;
  switch (reason) {
    case Reason::cache_type:
      return where + ", keys " + real.ggml_type_name(k->type) + ", values " +
             real.ggml_type_name(v->type);
    case Reason::shape:
    case Reason::mla:
      return where + ", head_dim " + std::to_string(k->ne[0]) + " of keys and " +
             std::to_string(v->ne[0]) + " of values";
    default:
      return where;
  }
}

}  // namespace hata::host
