#include "ggml/rotation.h"

#include <cstring>
#include <string>
#include <string_view>

namespace hata::host {
namespace {

// The scheduler's copy on a device has more around this name.
constexpr std::string_view kMatrix = "attn_inp_k_rot";

bool is_matrix(const ggml_tensor* tensor) {
  if (tensor == nullptr) return false;
  const std::string_view name(tensor->name, strnlen(tensor->name, GGML_MAX_NAME));
  return name.find(kMatrix) != std::string_view::npos;
}

// Rows of `columns` elements, a row a dimension: each becomes a sum of those of its block.
void rotate_rows(const Rotation& rotation, size_t columns, std::vector<float>& rows) {
  const auto size = static_cast<size_t>(rotation.size);
  const std::vector<float> from = rows;
  for (size_t block = 0; block < rows.size(); block += size * columns) {
    for (size_t i = 0; i < size; ++i) {
      for (size_t c = 0; c < columns; ++c) {
        double sum = 0.0;
        for (size_t j = 0; j < size; ++j) {
          sum += static_cast<double>(rotation.matrix[i * size + j]) * from[block + j * columns + c];
        }
        rows[block + i * columns + c] = static_cast<float>(sum);
      }
    }
  }
}

}  // namespace

bool find_rotation(const Real& real, const Ops& ops, const Attention& attention, Rotation& out) {
  out = {};
  const ggml_tensor* q = attention.node->src[kQ];
  while (ops.is_empty(q->op) && q->src[0] != nullptr) q = q->src[0];
  // Of a copy from another device the scheduler does not say what it was made from.
  if (std::strchr(q->name, '#') != nullptr) return attention.type == GGML_TYPE_F16;
  const ggml_tensor* matrix = is_matrix(q->src[0]) ? q->src[0] : q->src[1];
  if (!is_matrix(matrix)) return true;
  const int64_t n = matrix->ne[0];
  const bool known = q->op == ops.mul_mat && matrix == q->src[0] && matrix->type == GGML_TYPE_F32 &&
                     matrix->ne[1] == n && matrix->ne[2] == 1 && matrix->ne[3] == 1 &&
                     attention.shape.head_dim % n == 0 &&
                     matrix->nb[1] == static_cast<size_t>(n) * sizeof(float);
  std::string bytes;
  if (!known || !read_tensor(real, matrix, bytes)) return false;
  out.size = static_cast<int>(n);
  out.matrix.resize(bytes.size() / sizeof(float));
  std::memcpy(out.matrix.data(), bytes.data(), bytes.size());
  return true;
}

LayerWeights rotated(const LayerWeights& weights, const Rotation& rotation) {
  LayerWeights out = weights;
  if (rotation.size == 0) return out;
  for (Projection* projection : {&out.projection, &out.queries}) {
    rotate_rows(rotation, static_cast<size_t>(projection->rbit), projection->weights);
  }
  rotate_rows(rotation, 1, out.key_means);
  return out;
}

}  // namespace hata::host
