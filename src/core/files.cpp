#include "core/files.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "hata/types.h"

namespace hata {

std::string read_file(const std::string& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  std::string bytes;
  if (file != nullptr) {
    char buffer[1 << 16];
    for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), file.get())) > 0;) {
      bytes.append(buffer, n);
    }
  }
  if (file == nullptr || std::ferror(file.get()) != 0) {
    throw Error(path + ": cannot be read: " + std::strerror(errno));
  }
  return bytes;
}

void write_file_whole(const std::string& path, const std::vector<std::string_view>& parts,
                      const std::string& way_out) {
  const std::string partial = path + ".partial";
  const auto fail = [&](const std::string& why) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw Error(path + ": cannot be written: " + why + way_out);
  };
  std::ofstream out(partial, std::ios::binary);
  for (const std::string_view part : parts) {
    out.write(part.data(), static_cast<std::streamsize>(part.size()));
  }
  out.close();
  if (!out) fail(std::strerror(errno));
  std::error_code error;
  std::filesystem::rename(partial, path, error);
  if (error) fail(error.message());
}

}  // namespace hata
