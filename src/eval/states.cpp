#include "eval/states.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "core/files.h"
#include "core/hash.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[8] = {'h', 'a', 't', 'a', 's', 't', '0', '1'};
constexpr const char* kSuffix = ".state";

struct Header {
  char magic[8];
  uint64_t model;
  uint64_t tokens;  // their hash
  uint64_t n_tokens;
  uint64_t bytes;
};

// The low bits of FNV depend on low bits alone.
uint64_t mixed(uint64_t hash) { return hash ^ (hash >> 32); }

uint64_t hash_tokens(std::span<const Token> tokens) {
  return mixed(fnv1a({reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()}));
}

struct Kept {
  fs::path path;
  fs::file_time_type used;
  int64_t bytes;
};

std::vector<Kept> kept_in(const std::string& folder) {
  std::vector<Kept> states;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != kSuffix) continue;
    const auto bytes = entry.file_size(error);
    if (!error)
      states.push_back({entry.path(), entry.last_write_time(error), static_cast<int64_t>(bytes)});
  }
  std::sort(states.begin(), states.end(),
            [](const Kept& a, const Kept& b) { return a.used < b.used; });
  return states;
}

}  // namespace

uint64_t file_fingerprint(const std::string& path) {
  constexpr int64_t kPieces = 64, kPiece = 65536;
  std::ifstream in(path, std::ios::binary);
  const auto size = static_cast<int64_t>(fs::file_size(path));
  uint64_t hash = mixed(fnv1a(bytes_of(size)));
  std::string bytes(kPiece, 0);
  for (int64_t i = 0; i < kPieces; ++i) {
    in.clear();
    in.seekg(std::max<int64_t>(0, size - kPiece) * i / (kPieces - 1));
    in.read(bytes.data(), kPiece);
    hash = mixed(fnv1a({bytes.data(), static_cast<size_t>(in.gcount())}, hash));
  }
  return hash;
}

States::States(const std::string& folder, int64_t limit, uint64_t model)
    : folder_(folder), limit_(limit), model_(model) {
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  const fs::path probe = fs::path(folder) / ("probe" + std::string(kSuffix));
  const bool writable = std::ofstream(probe).put('x').flush().good();
  fs::remove(probe, error);
  if (!writable) throw Error("--states " + folder + ": cannot write there; name another folder");
}

std::string States::path_of(std::span<const Token> tokens) const {
  return fs::path(folder_) / (hexadecimal(model_) + "-" + hexadecimal(hash_tokens(tokens)) + "-" +
                              std::to_string(tokens.size()) + kSuffix);
}

bool States::load(Session& session, std::span<const Token> tokens) const {
  if (folder_.empty()) return false;
  const std::string path = path_of(tokens);
  std::ifstream in(path, std::ios::binary);
  Header header{};
  if (!in.read(reinterpret_cast<char*>(&header), sizeof(header))) return false;
  const bool ours = std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0 &&
                    header.model == model_ && header.tokens == hash_tokens(tokens) &&
                    header.n_tokens == tokens.size();
  std::error_code ignored;
  if (!ours || fs::file_size(path, ignored) != sizeof(header) + header.bytes) return false;
  std::vector<uint8_t> state(header.bytes);
  if (!in.read(reinterpret_cast<char*>(state.data()), static_cast<std::streamsize>(state.size()))) {
    return false;
  }
  try {
    session.restore(state, static_cast<int64_t>(tokens.size()));
  } catch (const Error&) {
    session.truncate(0);  // of another llama.cpp: read the document instead
    return false;
  }
  fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
  return true;
}

int64_t States::save(const Session& session, std::span<const Token> tokens) const {
  if (folder_.empty()) return 0;
  const std::vector<uint8_t> state = session.save();
  Header header{.magic = {},
                .model = model_,
                .tokens = hash_tokens(tokens),
                .n_tokens = tokens.size(),
                .bytes = state.size()};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  const auto size = static_cast<int64_t>(sizeof(header) + state.size());
  if (size > limit_) return 0;
  make_room(size);
  try {
    write_file_whole(path_of(tokens), {bytes_of(header), bytes_of(state)});
  } catch (const Error&) {
    return 0;
  }
  return size;
}

void States::make_room(int64_t bytes) const {
  int64_t held = this->bytes();
  for (const Kept& oldest : kept_in(folder_)) {
    if (held + bytes <= limit_) return;
    std::error_code error;
    if (fs::remove(oldest.path, error)) held -= oldest.bytes;
  }
}

int64_t States::bytes() const {
  int64_t sum = 0;
  for (const Kept& state : kept_in(folder_)) sum += state.bytes;
  return sum;
}

}  // namespace hata::eval
