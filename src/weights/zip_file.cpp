#include "weights/zip_file.h"

#include <zip.h>

#include <algorithm>
#include <filesystem>

#include "hata/types.h"

namespace hata::weights {
namespace {

constexpr zip_int64_t kMaxMembers = 1 << 16;
constexpr const char* kDamaged = "; the file is damaged: fetch it again";

std::string words(zip_error_t* error) {
  std::string text = zip_error_strerror(error);
  zip_error_fini(error);
  return text;
}

}  // namespace

void ZipFile::Close::operator()(zip* archive) const { zip_discard(archive); }

void ZipFile::fail(const std::string& name, const std::string& why) const {
  throw Error(path_ + ": member '" + name + "': " + why);
}

ZipFile::ZipFile(const std::string& path) : path_(path) {
  int code = 0;
  archive_.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
  if (archive_ == nullptr) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    throw Error(path + ": cannot be read as a zip file: " + words(&error) +
                "; torch.save writes one; fetch it again if it may be cut");
  }
  std::error_code ignored;  // what could be opened has a size
  file_size_ = std::filesystem::file_size(path, ignored);
  const zip_int64_t n = zip_get_num_entries(archive_.get(), 0);
  if (n > kMaxMembers) {
    throw Error(path + ": members: " + std::to_string(n) + ": want at most " +
                std::to_string(kMaxMembers));
  }
  for (zip_int64_t i = 0; i < n; ++i) {
    const char* name = zip_get_name(archive_.get(), static_cast<zip_uint64_t>(i), 0);
    names_.emplace_back(name == nullptr ? "" : name);
  }
}

bool ZipFile::has(const std::string& name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

std::string ZipFile::read(const std::string& name, uint64_t max_size) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  if (found == names_.end()) fail(name, std::string("is missing") + kDamaged);
  const auto index = static_cast<zip_uint64_t>(found - names_.begin());
  zip_stat_t stat;
  constexpr zip_uint64_t kNeeded = ZIP_STAT_SIZE | ZIP_STAT_COMP_METHOD;
  if (zip_stat_index(archive_.get(), index, 0, &stat) != 0 || (stat.valid & kNeeded) != kNeeded) {
    fail(name, std::string("has no size") + kDamaged);
  }
  if (stat.comp_method != ZIP_CM_STORE ||
      ((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) != 0 && stat.encryption_method != ZIP_EM_NONE)) {
    fail(name, "is compressed or encrypted, torch.save does neither; zip it anew without (zip -0)");
  }
  if (stat.size > max_size || stat.size > file_size_) {
    fail(name, std::to_string(stat.size) + " bytes: want at most " +
                   std::to_string(std::min(max_size, file_size_)) + kDamaged);
  }
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> member(
      zip_fopen_index(archive_.get(), index, 0), zip_fclose);
  if (member == nullptr) {
    fail(name, std::string("cannot be read: ") + zip_strerror(archive_.get()) + kDamaged);
  }
  std::string bytes(stat.size, '\0');
  const zip_int64_t n = zip_fread(member.get(), bytes.data(), bytes.size());
  char more = 0;  // the checksum is compared where the member ends
  if (n != static_cast<zip_int64_t>(bytes.size()) || zip_fread(member.get(), &more, 1) != 0) {
    zip_error_t* error = zip_file_get_error(member.get());
    fail(name,
         std::string("cannot be read: ") +
             (zip_error_code_zip(error) == ZIP_ER_OK ? "it is cut" : zip_error_strerror(error)) +
             kDamaged);
  }
  return bytes;
}

}  // namespace hata::weights
