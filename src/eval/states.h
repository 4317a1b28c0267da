// Prefilled states on disk, used again by later runs: a document is read once per model.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "eval/session.h"

namespace hata::eval {

/// One number for a file: its size and a sample of its bytes.
uint64_t file_fingerprint(const std::string& path);

class States {
 public:
  /// Keeps at most `limit` bytes in `folder` (made where it is missing), the least recently used
  /// states removed first. An empty folder's name: nothing is kept. Throws Error where the folder
  /// cannot be written.
  States(const std::string& folder, int64_t limit, uint64_t model);

  /// Whether the session now holds these tokens.
  bool load(Session& session, std::span<const Token> tokens) const;
  /// Keeps the session's state. A state larger than the limit, or a disk without room, keeps
  /// nothing. Returns the bytes kept.
  int64_t save(const Session& session, std::span<const Token> tokens) const;

  /// Bytes held now.
  int64_t bytes() const;

 private:
  std::string path_of(std::span<const Token> tokens) const;
  void make_room(int64_t bytes) const;

  std::string folder_;
  int64_t limit_;
  uint64_t model_;
};

}  // namespace hata::eval
