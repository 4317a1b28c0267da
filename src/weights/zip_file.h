// The members of a zip file that are stored as they are, which is how torch.save writes. (libzip)
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct zip;  // libzip's

namespace hata::weights {

/// Open for reading. Every function throws Error naming the file, the member and the way out.
class ZipFile {
 public:
  explicit ZipFile(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t file_size() const { return file_size_; }  ///< bytes of the whole file
  const std::vector<std::string>& names() const { return names_; }
  bool has(const std::string& name) const;

  /// The bytes of a member, their checksum checked. Refuses one that is compressed or encrypted
  /// (its size could be anything), or has more than max_size bytes.
  std::string read(const std::string& name, uint64_t max_size) const;

 private:
  struct Close {
    void operator()(zip* archive) const;
  };

  [[noreturn]] void fail(const std::string& name, const std::string& why) const;

  std::string path_;
  uint64_t file_size_ = 0;
  std::vector<std::string> names_;
  std::unique_ptr<zip, Close> archive_;
};

}  // namespace hata::weights
