// How much of a run is done, and how long the rest will take.
#pragma once

#include <cstdint>

namespace hata::eval {

/// Reading documents and asking about them take unlike times: each is measured by itself, per
/// token of a document.
class Work {
 public:
  void plan(int64_t n_tokens, int64_t n_settings) {
    reading_.planned += static_cast<double>(n_tokens);
    asking_.planned += static_cast<double>(n_tokens * n_settings);
  }
  void has_read(int64_t n_tokens, double seconds) { reading_.add(n_tokens, seconds); }
  void has_asked(int64_t n_tokens, double seconds) { asking_.add(n_tokens, seconds); }
  /// Planned, but it failed.
  void has_failed(int64_t n_tokens) { asking_.planned -= static_cast<double>(n_tokens); }

  double share_done() const {
    const double planned = reading_.planned + asking_.planned;
    return planned > 0 ? (reading_.done + asking_.done) / planned : 1.0;
  }
  /// Negative until both kinds have been seen.
  double seconds_left() const {
    if (reading_.done == 0 || asking_.done == 0) return -1;
    return reading_.left() + asking_.left();
  }

 private:
  struct Kind {
    double planned = 0, done = 0, seconds = 0;
    void add(int64_t n_tokens, double took) {
      done += static_cast<double>(n_tokens);
      seconds += took;
    }
    double left() const { return planned > done ? (planned - done) * seconds / done : 0.0; }
  };
  Kind reading_, asking_;
};

}  // namespace hata::eval
