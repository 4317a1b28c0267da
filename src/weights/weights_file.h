// The weights file: a GGUF adapter that llama.cpp does not take for one of its own.
//
//   general.type adapter, general.architecture the base model's, adapter.type hata
//   adapter.hata.version 1, .rbit, .head_dim, .fingerprint (of the base model), .quality (JSON)
//   adapter.hata.dense_layers      i32 array: layers that should attend to every key (optional)
//   adapter.hata.kept_mass.n_keys, .budgets (i32 array): what kept_mass was measured on (optional)
//   blk.N.attn_hash_k.weight       f16 [head_dim, rbit, n_kv_heads]
//   blk.N.attn_hash_q.weight       the same for queries (optional: the keys' serves both)
//   blk.N.attn_hash_k.mean_length  f32 [n_kv_heads] (optional: measured on the first keys)
//   blk.N.attn_hash_k.mean         f32 [head_dim, n_kv_heads] subtracted from keys (optional)
//   blk.N.attn_hash_k.kept_mass    f32 [budgets, n_kv_heads] (optional)
//   blk.N.attn_hash_k.recent_share f32 [1] of the budget, for the last tokens (optional: by rule)
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hata/weights.h"
#include "weights/gguf.h"

namespace hata::weights {

/// What says where the weights came from.
struct Provenance {
  std::string architecture;
  std::string base_name;  ///< general.name of the model
  std::string dataset;    ///< what the rows were made of
  uint32_t rows = 0;
  uint32_t row_tokens = 0;
  uint32_t steps = 0;
  uint32_t seed = 0;
  float first_loss = 0, last_loss = 0;  ///< means over heads
  std::string quality;                  ///< JSON: held-out quality by layer
};

struct WeightsFile {
  Weights weights;
  Provenance provenance;
  int rbit = 0;
};

/// Its blk.*.attn_norm.weight tensors, by name.
std::vector<const GgufTensor*> attention_norms(const GgufFile& model);

/// Identifies a model by those, which no tool repacks: hexadecimal. Empty where it has none. Throws
/// Error where the file cannot be read.
std::string model_fingerprint(const GgufFile& model);

/// Throws Error naming file, field, value and the way out; every field and number is checked.
WeightsFile read_weights(const std::string& path);

/// The same, read once while somebody uses it and the file does not change. Any thread.
std::shared_ptr<const Weights> shared_weights(const std::string& path);

/// The file is whole or not there.
void write_weights(const std::string& path, const WeightsFile& file);

/// hata-NAME.gguf beside a model NAME.gguf, where it is found.
std::string weights_path(const std::string& model_path);

/// The weights file beside a model: hata-<its name, or its file's>*.gguf with its fingerprint;
/// empty where there is none. What looks like one and is none, or is another model's, goes to
/// `refused`.
std::string find_weights(const GgufFile& model, std::vector<std::string>& refused);

}  // namespace hata::weights
