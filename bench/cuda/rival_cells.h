// What all dense rivals share, CUDA or not: the cells they are asked for, and the CSV lines they
// write to standard output.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

namespace rival {

constexpr int kHeadDim = 128;
constexpr int kReplays = 21;
constexpr float kScale = 0.08838834764831845f;  // 1 / sqrt(128)
using Clock = std::chrono::steady_clock;

struct Cell {
  int batch, n_q_heads, n_kv_heads, n;
  bool bf16;

  size_t keys() const { return size_t(batch) * n * n_kv_heads * kHeadDim; }  ///< elements of K
  size_t queries() const { return size_t(batch) * n_q_heads * kHeadDim; }
  /// Sets of keys and values that are larger in sum than any L2.
  int sets() const { return int(std::clamp<size_t>(size_t(400e6) / (4 * keys()) + 1, 2, 16)); }
  /// Calls, each set in its turn, that take about so long at the speed of memory.
  int calls(double us) const {
    const double guess = 4.0 * double(keys()) / 4.0e6 + 4.0;
    return std::max(sets(), int(us / guess) / sets() * sets());
  }
};

inline bool parse(const char* text, Cell& c) {
  char type[8] = "f16";
  const int n =
      std::sscanf(text, "%d:%d:%d:%d:%7s", &c.batch, &c.n_q_heads, &c.n_kv_heads, &c.n, type);
  c.bf16 = std::strcmp(type, "bf16") == 0;
  return n >= 4 && c.batch > 0 && c.n_kv_heads > 0 && c.n_q_heads % c.n_kv_heads == 0 && c.n > 0 &&
         c.n % 64 == 0 && (c.bf16 || std::strcmp(type, "f16") == 0);
}

/// us: a call's time in each replay.
inline void print_row(const char* method, const Cell& c, const char* layout,
                      std::vector<float> us) {
  std::sort(us.begin(), us.end());
  std::printf("%s,%d,%d,%d,%d,%s,%s,%d,0,step,%.3f,%.3f,%.3f,%zu\n", method, c.batch, c.n_q_heads,
              c.n_kv_heads, kHeadDim, c.bf16 ? "bf16" : "f16", layout, c.n,
              double(us[us.size() / 2]), double(us.front()), double(us.back()),
              (2 * c.keys() + 2 * c.queries()) * 2);
  std::fflush(stdout);
}

/// The command line: [--time-limit SECONDS] [--no-header] [OWN OPTION] CELL...
class Cells {
 public:
  /// own: an option that only this program has.
  Cells(int argc, char** argv, const char* own = nullptr) : argc_(argc), argv_(argv) {
    double limit = 1e9;
    bool header = true;
    for (; next_ < argc && std::strncmp(argv[next_], "--", 2) == 0; ++next_) {
      if (std::strcmp(argv[next_], "--no-header") == 0) {
        header = false;
      } else if (std::strcmp(argv[next_], "--time-limit") == 0 && next_ + 1 < argc) {
        limit = std::atof(argv[++next_]);
      } else if (own != nullptr && std::strcmp(argv[next_], own) == 0) {
        own_ = own;
      } else {
        std::fprintf(stderr, "unknown option %s\n", argv[next_]);
        std::exit(2);
      }
    }
    end_ =
        begin_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limit));
    if (header) {
      std::puts(
          "method,batch,n_q_heads,n_kv_heads,head_dim,type,layout,n_kv,budget,stage,us,us_min,"
          "us_max,bytes");
    }
  }

  bool own_option() const { return own_ != nullptr; }
  Clock::time_point end() const { return end_; }

  /// run(cell) for all cells where fits(cell); where it throws and lost() says that this process
  /// can do nothing more with the device, a fresh one takes the rest.
  template <class Fits, class Run, class Lost>
  int run(Fits&& fits, Run&& run, Lost&& lost) {
    while (next_ < argc_) {
      const char* text = argv_[next_++];
      Cell c{};
      if (!parse(text, c)) {
        std::printf("# not a cell: %s (BATCH:Q_HEADS:KV_HEADS:N[:f16|bf16], N a multiple of 64)\n",
                    text);
      } else if (Clock::now() > end_) {
        std::printf("# time limit: left out %s\n", text);
      } else if (!fits(c)) {
        std::printf("# does not fit: %s\n", text);
      } else {
        try {
          run(c);
        } catch (const std::exception& e) {
          std::printf("# failed: %s: %s\n", text, e.what());
          std::fflush(stdout);
          if (lost()) return start_over();
        }
      }
    }
    return 0;
  }

  /// The rest of the cells in a fresh process; returns where there are none.
  int start_over() const {
    std::fflush(stdout);
    if (next_ >= argc_) return 1;
    std::vector<std::string> words = {
        argv_[0], "--no-header", "--time-limit",
        std::to_string(std::chrono::duration<double>(end_ - Clock::now()).count())};
    if (own_ != nullptr) words.emplace_back(own_);
    words.insert(words.end(), argv_ + next_, argv_ + argc_);
    std::vector<char*> pointers;
    for (auto& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    execv("/proc/self/exe", pointers.data());
    return 1;
  }

  void print_seconds(const char* versions) const {
    std::printf("# %s: took %.0f s\n", versions,
                std::chrono::duration<double>(Clock::now() - begin_).count());
  }

 private:
  int argc_;
  char** argv_;
  int next_ = 1;
  const char* own_ = nullptr;
  Clock::time_point begin_ = Clock::now(), end_;
};

}  // namespace rival
