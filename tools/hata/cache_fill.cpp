#include "cache_fill.h"

#include <ggml.h>

#include <algorithm>
#include <cstring>

#include "hata/types.h"
#include "output.h"
#include "random_cells.h"

namespace hata::cli {
namespace {

constexpr int64_t kProofCells = 8;

template <class T>
void put(std::vector<uint8_t>& bytes, T value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

}  // namespace

// What llama.cpp (llama-kv-cache.cpp, state_write) puts into the state of one sequence of a cache
// with one stream and values that are not transposed (flash attention).
template <class Fn>
std::vector<uint8_t> StateWriter::write(int64_t n, Fn&& cells) const {
  uint64_t row_bytes = 0;
  for (const Rows& rows : layers_) row_bytes += rows.key_bytes + rows.value_bytes;
  std::vector<uint8_t> state;
  state.reserve(static_cast<size_t>(n) * (row_bytes + 12) + layers_.size() * 24 + 64);

  put(state, magic_);
  put<int32_t>(state, 0);   // sequence
  put<uint32_t>(state, 1);  // streams
  put(state, static_cast<uint32_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    put(state, static_cast<int32_t>(i));  // position
    put<uint32_t>(state, 1);              // sequences of this cell
    put<int32_t>(state, 0);
  }
  put<uint32_t>(state, 0);  // values are not transposed
  put(state, static_cast<uint32_t>(layers_.size()));
  const auto block = [&](uint64_t bytes) {
    put<int32_t>(state, GGML_TYPE_F16);
    put(state, bytes);
    const size_t at = state.size();
    const size_t size = static_cast<size_t>(n) * bytes;
    state.resize(at + size);
    cells(state.data() + at, size, at);
  };
  for (const Rows& rows : layers_) block(rows.key_bytes);
  for (const Rows& rows : layers_) block(rows.value_bytes);
  return state;
}

StateWriter::StateWriter(const eval::Model& model, const weights::ModelShape& shape, int threads) {
  for (const weights::LayerShape& layer : shape.layers) {
    const uint64_t heads = sizeof(uint16_t) * static_cast<uint64_t>(layer.heads.n_kv_heads);
    if (heads == 0) continue;  // no attention, nothing cached
    layers_.push_back({heads * layer.heads.head_dim, heads * layer.value_dim});
  }
  eval::Session session(model, {.n_ctx = 256, .threads = threads});
  for (int64_t i = 0; i < kProofCells; ++i) session.decode(static_cast<eval::Token>(i + 3));
  const std::vector<uint8_t> real = session.save();
  if (real.size() >= sizeof(magic_)) std::memcpy(&magic_, real.data(), sizeof(magic_));
  prove(real, kProofCells);
}

// Only keys and values are taken from the real state, at the places where they must be.
void StateWriter::prove(const std::vector<uint8_t>& real, int64_t n) const {
  const std::vector<uint8_t> ours = write(n, [&](uint8_t* data, size_t bytes, size_t at) {
    if (at + bytes <= real.size()) std::memcpy(data, real.data() + at, bytes);
  });
  if (ours == real) return;
  const auto [mine, theirs] = std::mismatch(ours.begin(), ours.end(), real.begin(), real.end());
  throw Error(
      fmt::format("this llama.cpp saves {} cells in {} bytes, not in the {} known here (they "
                  "differ from byte {} on); use --fill decode",
                  n, real.size(), ours.size(), mine - ours.begin()));
}

std::vector<uint8_t> StateWriter::random_state(int64_t n, uint64_t seed, Team& team) const {
  return write(n, [&](uint8_t* data, size_t bytes, size_t) {
    // The blocks start at odd places: fill an aligned copy of a part, again and again.
    std::vector<uint16_t> part(std::min<size_t>(bytes / sizeof(uint16_t), size_t{1} << 24));
    for (size_t done = 0; done < bytes;) {
      const size_t size = std::min(bytes - done, part.size() * sizeof(uint16_t));
      fill_normal(part.data(), size / sizeof(uint16_t), ++seed, team);
      std::memcpy(data + done, part.data(), size);
      done += size;
    }
  });
}

}  // namespace hata::cli
