// Every kind of bad input: a message that names what is wrong, a status that is not 0, no crash.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "../temp_folder.h"
#include "shell.h"

namespace hata::cli {
namespace {

constexpr int kFailed = 1, kUsage = 2, kRefused = 125, kCannotRun = 126, kNotFound = 127;

void expect_refusal(const Result& result, int status, const std::vector<std::string>& parts) {
  EXPECT_EQ(result.status, status) << result.err;
  EXPECT_EQ(result.err.rfind("hata: ", 0), 0u) << result.err;
  for (const auto& part : parts) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << "\nin: " << result.err;
  }
}

class BadInput : public test::TempFolder {
 protected:
  std::string put_executable(const std::string& name, const std::string& content) const {
    std::filesystem::permissions(put(name, content), std::filesystem::perms::owner_all);
    return file(name);
  }
  std::string model_start(size_t n) {
    std::ifstream in(HATA_MODEL, std::ios::binary);
    std::string bytes(n, '\0');
    in.read(bytes.data(), static_cast<std::streamsize>(n));
    return bytes;
  }
};

TEST_F(BadInput, MissingFile) {
  for (const char* command : {"info", "run -p hi -m", "demo -m", "eval -m", "bench model -m"}) {
    expect_refusal(hata(std::string(command) + " /no/such/model.gguf"), kFailed,
                   {"/no/such/model.gguf", "No such file"});
  }
  expect_refusal(hata("run -f /no/such/prompt.txt"), kFailed, {"/no/such/prompt.txt"});
}

TEST_F(BadInput, NotAGguf) {
  const std::string path = put("text.gguf", "just some text");
  expect_refusal(hata("info " + path), kFailed, {path, "not a GGUF file"});
  expect_refusal(hata("run -p hi -m " + path), kFailed, {path, "not a GGUF file"});
  expect_refusal(hata("run -p hi -m " + folder_), kFailed, {folder_, "directory"});
}

TEST_F(BadInput, TruncatedGguf) {
  for (const size_t n : {3u, 20u, 1000u, 98000u, 100000u, 20000000u}) {
    const std::string path = put("short.gguf", model_start(n));
    expect_refusal(hata("info " + path), kFailed, {path, "truncated", "at byte"});
    expect_refusal(hata("run -p hi -m " + path), kFailed, {path, "truncated", "at byte"});
  }
}

TEST_F(BadInput, Budget) {
  for (const char* budget : {"0", "-5", "abc", "0%", "101%", "5x", "''"}) {
    for (const char* command : {"run -p hi", "demo", "info " HATA_MODEL, "exec", "bench attn"}) {
      const Result result = hata(std::string(command) + " --budget " + budget + " -- true");
      EXPECT_EQ(result.status, kUsage) << command << " " << budget << ": " << result.err;
      EXPECT_NE(result.err.find("--budget"), std::string::npos) << result.err;
    }
  }
  expect_refusal(hata("demo --budget abc"), kUsage, {"abc", "512", "1.56%"});
}

TEST_F(BadInput, DenseLayersBeyondTheModel) {
  for (const char* command :
       {"run -p hi", "demo", "eval", "info " HATA_MODEL, "bench model -m " HATA_MODEL}) {
    expect_refusal(hata(std::string(command) + " --dense-layers 9"), kFailed,
                   {"--dense-layers 9", "8 layers", "0 to 8"});
  }
  expect_refusal(hata("run -p hi --dense-layers -1"), kUsage, {"--dense-layers"});
}

TEST_F(BadInput, CacheType) {
  for (const char* command : {"run -p hi", "bench attn", "bench model -m " HATA_MODEL}) {
    expect_refusal(hata(std::string(command) + " --cache-type q4_0"), kUsage,
                   {"--cache-type", "q4_0", "f16"});
  }
}

TEST_F(BadInput, OtherOptions) {
  expect_refusal(hata("run -p hi --method nonsense"), kUsage,
                 {"--method", "nonsense", "hata-paper"});
  expect_refusal(hata("run -p hi --rbit 100"), kUsage, {"--rbit"});
  expect_refusal(hata("run -p hi --lengths maybe"), kUsage, {"--lengths"});
  expect_refusal(hata("run -p hi -t 0"), kUsage, {"--threads"});
  expect_refusal(hata("run -p hi -c 1"), kFailed, {"context", "-c"});
  expect_refusal(hata("run"), kFailed, {"prompt", "-p"});
  expect_refusal(hata("eval --task nonsense"), kUsage, {"--task", "nonsense"});
  expect_refusal(hata("bench attn --heads 32"), kUsage, {"--heads", "32/8"});
  expect_refusal(hata("bench attn --heads 32/7"), kFailed, {"32", "7"});
  expect_refusal(hata("bench attn --head-dim 40"), kFailed, {"head_dim", "40"});
  expect_refusal(hata("bench attn -d 32768 --memory 0.001"), kFailed, {"--memory", "32768"});
  expect_refusal(hata("nonsense"), kUsage, {"nonsense", "--help"});
  expect_refusal(hata(""), kUsage, {"subcommand"});
}

TEST_F(BadInput, FullDisk) {
  for (const char* command : {"info " HATA_MODEL, "info --json " HATA_MODEL,
                              "run -p 'The grass' -n 2", "bench attn -d 256 --seconds 0.1"}) {
    expect_refusal(hata(std::string(command) + " >/dev/full"), kFailed, {"No space left"});
  }
  const Result result = hata("make-model --layers 1 -o /dev/full/model.gguf");
  expect_refusal(result, kFailed, {"/dev/full/model.gguf"});
}

TEST_F(BadInput, ProgramsThatCannotWork) {
  expect_refusal(hata("exec -- no-such-program"), kNotFound, {"no-such-program", "not found"});
  expect_refusal(hata("exec -- /no/such/program"), kNotFound, {"/no/such/program", "not found"});
  const std::string text = put("notes.txt", "hello");
  expect_refusal(hata("exec -- " + text), kCannotRun, {text, "not executable"});
  expect_refusal(hata("exec -- " + folder_), kCannotRun, {folder_, "directory"});
  const std::string data = put_executable("data", "hello");
  expect_refusal(hata("exec -- " + data), kCannotRun, {data, "neither a program"});
  const std::string cut = put_executable("cut", "\177ELF");
  expect_refusal(hata("exec -- " + cut), kFailed, {cut, "damaged"});
  expect_refusal(hata("exec -- " PROGRAM_STATIC), kRefused, {PROGRAM_STATIC, "statically linked"});
  expect_refusal(hata("exec -- " PROGRAM_OWN_GGML), kRefused,
                 {PROGRAM_OWN_GGML, "ggml linked into it"});
  expect_refusal(hata("exec"), kUsage, {"command"});
}

}  // namespace
}  // namespace hata::cli
