// Filling a cache to a depth without computing it: a sequence state in llama.cpp's own format with
// random keys and values.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/session.h"
#include "hata/team.h"
#include "weights/model_shape.h"

namespace hata::cli {

/// Writes states of one sequence: positions 0 .. n-1, f16 keys and values.
class StateWriter {
 public:
  /// Learns nothing from the library but its magic number: the format is known here, and proved by
  /// writing a real state of a few cells again, byte for byte. Throws Error where they differ.
  StateWriter(const eval::Model& model, const weights::ModelShape& shape, int threads);

  /// A state of n cells with random keys and values.
  std::vector<uint8_t> random_state(int64_t n, uint64_t seed, Team& team) const;

 private:
  struct Rows {
    uint64_t key_bytes;  ///< of one cell
    uint64_t value_bytes;
  };
  // Calls cells(data, bytes) for every block of keys or values, when all before it is written.
  template <class Fn>
  std::vector<uint8_t> write(int64_t n, Fn&& cells) const;
  void prove(const std::vector<uint8_t>& real, int64_t n) const;

  uint32_t magic_ = 0;
  std::vector<Rows> layers_;
};

}  // namespace hata::cli
