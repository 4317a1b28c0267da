#include "eval/words.h"

namespace hata::eval {
namespace {

constexpr std::string_view kWords[] = {
#include "word_list.inc"
};

constexpr size_t kMostFrequent = 90;  // as in the bundled model's training

}  // namespace

std::span<const std::string_view> word_list() {
  return std::span<const std::string_view>(kWords).subspan(kMostFrequent);
}

}  // namespace hata::eval
