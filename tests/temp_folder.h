// A fixture with a folder of its own, which is gone at the end of the test.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/files.h"

namespace hata::test {

class TempFolder : public testing::Test {
 protected:
  TempFolder() {
    char name[] = "/tmp/hata_test_XXXXXX";
    if (mkdtemp(name) != nullptr) folder_ = name;
  }
  ~TempFolder() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name) const { return folder_ + "/" + name; }
  std::string bytes(const std::string& name) const { return read_file(file(name)); }
  /// Returns its path.
  std::string put(const std::string& name, const std::string& bytes) const {
    std::ofstream(file(name), std::ios::binary) << bytes;
    return file(name);
  }

  std::string folder_;
};

}  // namespace hata::test
