#include "program.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "hata/types.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

// A file in memory; reads outside of it give nothing.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) : path_(path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw Error(path + ": cannot open it: " + std::strerror(errno));
    struct stat status {};
    if (fstat(fd, &status) == 0 && status.st_size > 0) {
      size_ = static_cast<size_t>(status.st_size);
      void* memory = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
      if (memory == MAP_FAILED) {
        size_ = 0;
      } else {
        data_ = static_cast<const char*>(memory);
      }
    }
    close(fd);
  }
  ~MappedFile() {
    if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view all() const { return {data_, size_}; }
  std::string_view part(uint64_t offset, uint64_t bytes) const {
    if (offset > size_ || bytes > size_ - offset) throw Error(path_ + ": a damaged ELF file");
    return {data_ + offset, bytes};
  }
  /// Entry `index` of a table.
  template <class T>
  T entry(uint64_t table, uint64_t index, uint64_t stride) const {
    if (index > size_ || stride > size_) throw Error(path_ + ": a damaged ELF file");
    T value;
    std::memcpy(&value, part(table + index * stride, sizeof(T)).data(), sizeof(T));
    return value;
  }

 private:
  std::string path_;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

#if defined(__x86_64__)
constexpr int kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr int kMachine = EM_AARCH64;
#else
constexpr int kMachine = EM_NONE;
#endif

// A function that every ggml has and that no other library defines.
constexpr std::string_view kMark = "ggml_backend_sched_graph_compute_async";

// Whether a symbol table of the program defines the function itself.
bool defines_mark(const MappedFile& file, const Elf64_Ehdr& header) {
  for (int i = 0; i < header.e_shnum; ++i) {
    const auto table = file.entry<Elf64_Shdr>(header.e_shoff, i, header.e_shentsize);
    if (table.sh_type != SHT_SYMTAB && table.sh_type != SHT_DYNSYM) continue;
    const auto strings = file.entry<Elf64_Shdr>(header.e_shoff, table.sh_link, header.e_shentsize);
    const auto names = file.part(strings.sh_offset, strings.sh_size);
    const auto symbols = file.part(table.sh_offset, table.sh_size);
    for (size_t at = 0; at + sizeof(Elf64_Sym) <= symbols.size(); at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, symbols.data() + at, sizeof(symbol));
      if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= names.size()) continue;
      const auto name = names.substr(symbol.st_name);
      if (name.substr(0, kMark.size() + 1) == std::string_view(kMark.data(), kMark.size() + 1)) {
        return true;
      }
    }
  }
  return false;
}

void inspect_elf(const MappedFile& file, Program& program) {
  const auto header = file.entry<Elf64_Ehdr>(0, 0, 0);
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != kMachine) {
    program.kind = Program::Kind::foreign;
    return;
  }
  program.kind = Program::Kind::fixed;
  for (int i = 0; i < header.e_phnum; ++i) {
    const auto segment = file.entry<Elf64_Phdr>(header.e_phoff, i, header.e_phentsize);
    if (segment.p_type != PT_INTERP || segment.p_filesz == 0) continue;
    program.kind = Program::Kind::dynamic;
    program.interpreter = file.part(segment.p_offset, segment.p_filesz - 1);
  }
  program.has_own_ggml = defines_mark(file, header);
}

bool is_privileged(const std::string& path, const struct stat& status) {
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != geteuid()) return true;
  if ((status.st_mode & S_ISGID) != 0 && status.st_gid != getegid()) return true;
  return getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

}  // namespace

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return fs::exists(name) ? name : "";
  const char* path = std::getenv("PATH");
  std::string_view folders = path != nullptr ? path : "/usr/bin:/bin";
  std::string not_executable;
  while (!folders.empty()) {
    const auto folder = folders.substr(0, folders.find(':'));
    folders.remove_prefix(std::min(folders.size(), folder.size() + 1));
    const std::string file = (folder.empty() ? "." : std::string(folder)) + "/" + name;
    if (!fs::is_regular_file(file)) continue;
    if (access(file.c_str(), X_OK) == 0) return file;
    if (not_executable.empty()) not_executable = file;
  }
  return not_executable;
}

Program inspect_program(const std::string& path) {
  Program program{.path = path, .interpreter = {}};
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) throw Error(path + ": " + std::strerror(errno));
  program.privileged = is_privileged(path, status);
  const MappedFile file(path);
  const auto text = file.all();
  if (text.substr(0, 2) == "#!") {
    program.kind = Program::Kind::script;
  } else if (text.substr(0, SELFMAG) == ELFMAG) {
    inspect_elf(file, program);
  }
  return program;
}

}  // namespace hata::cli
