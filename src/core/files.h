// Files as a whole. Errors name the file and the system's reason.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace hata {

/// Throws Error where it cannot be read (a folder, too).
std::string read_file(const std::string& path);

/// The parts one after another, written beside the file and renamed: it is whole, or as it was.
/// Throws Error where that fails, with `way_out` behind the reason.
void write_file_whole(const std::string& path, const std::vector<std::string_view>& parts,
                      const std::string& way_out = "");

/// Of plain numbers or structs.
template <class T>
std::string_view bytes_of(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}
template <class T>
std::string_view bytes_of(const std::vector<T>& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace hata
