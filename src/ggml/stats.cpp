#include "ggml/stats.h"

#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <thread>
#include <utility>

#include "ggml/host.h"
#include "ggml/log.h"

namespace hata::host {
namespace {

std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof(code), "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out += c;
    }
  }
  return out + '"';
}

/// A JSON object, member by member.
class Object {
 public:
  Object& raw(std::string_view key, const std::string& value) {
    text_ += (text_.size() > 1 ? ", " : "") + json_text(std::string(key)) + ": " + value;
    return *this;
  }
  Object& text(std::string_view key, const std::string& value) {
    return raw(key, json_text(value));
  }
  Object& flag(std::string_view key, bool value) { return raw(key, value ? "true" : "false"); }
  Object& number(std::string_view key, int64_t value) { return raw(key, std::to_string(value)); }
  std::string done() const { return text_ + "}"; }

 private:
  std::string text_ = "{";
};

template <class Fn>
void for_each_reason(const Reasons& reasons, Fn&& fn) {
  for (int i = 1; i < static_cast<int>(Reason::count); ++i) {
    const auto reason = static_cast<Reason>(i);
    if (reasons.count(reason) > 0) fn(std::string(reason_name(reason)), reasons.count(reason));
  }
}

std::string json_list(const std::vector<std::string>& texts) {
  std::string list;
  for (const std::string& text : texts) list += (list.empty() ? "" : ", ") + json_text(text);
  return "[" + list + "]";
}

std::string percent(int64_t part, int64_t whole) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f%%",
                whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0);
  return text;
}

std::string scaled(double value, double unit, const char* name) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f %s", value / unit, name);
  return text;
}
std::string mib(int64_t bytes) { return scaled(static_cast<double>(bytes), 1 << 20, "MiB"); }
std::string ms(int64_t ns) { return scaled(static_cast<double>(ns), 1e6, "ms"); }

sem_t signal_seen;

}  // namespace

std::string to_json(const Stats& s) {
  const StageCounters& c = s.totals.stages;
  const VerifyCounts& v = s.totals.verify;
  const PrefillCounters& p = s.totals.prefill;
  Object time, bytes, prefill, verify, left, all;
  time.number("encode", c.encode_ns)
      .number("score", c.score_ns)
      .number("select", c.select_ns)
      .number("attend", c.attend_ns);
  bytes.number("choose", c.choose_bytes)
      .number("attend", c.attend_bytes)
      .number("dense", c.dense_bytes);
  prefill.number("steps", p.steps).number("rows", p.rows).number("time_ns", p.ns);
  verify.flag("on", s.options.verify)
      .number("steps", v.steps)
      .number("cells", v.cells)
      .number("reencoded", v.reencoded)
      .number("unseen_changes", v.unseen)
      .number("stale", v.stale);
  for_each_reason(*s.reasons, [&](const std::string& name, int64_t n) { left.number(name, n); });
  const DenseLayers& dense = s.options.dense_layers;
  if (dense.is_number()) {
    all.number("dense_layers", dense.first);
  } else {
    all.text("dense_layers", dense.text());
  }
  return all.flag("at_work", s.at_work)
      .text("why_off", s.why_off)
      .text("method", s.options.method)
      .text("budget", s.options.rule.budget.text())
      .number("min_ctx", s.options.rule.min_ctx)
      .number("sparse_steps", s.totals.sparse_steps)
      .number("dense_steps", s.totals.dense_steps)
      .number("device_steps", s.totals.device_steps)
      .number("sparse_rows", c.sparse_rows)
      .number("dense_rows", c.dense_rows)
      .number("keys_attended", c.keys_attended)
      .number("keys_valid", c.keys_valid)
      .raw("bytes", bytes.done())
      .raw("time_ns", time.done())
      .raw("prefill", prefill.done())
      .number("caches", static_cast<int64_t>(s.caches))
      .number("code_bytes", static_cast<int64_t>(s.code_bytes))
      .number("peak_code_bytes", static_cast<int64_t>(s.peak_code_bytes))
      .raw("verify", verify.done())
      .raw("left_to_ggml", left.done())
      .raw("models", json_list(s.models))
      .raw("weights", json_list(s.weights))
      .done();
}

std::string to_text(const Stats& s) {
  const StageCounters& c = s.totals.stages;
  const VerifyCounts& v = s.totals.verify;
  const std::string method = s.options.method + ", budget " + s.options.rule.budget.text();
  if (!s.at_work) return "off: " + s.why_off;
  std::string text = method + ": " + std::to_string(s.totals.sparse_steps) + " sparse and " +
                     std::to_string(s.totals.dense_steps) + " dense steps (" +
                     std::to_string(c.sparse_rows) + " and " + std::to_string(c.dense_rows) +
                     " rows); keys read " + percent(c.keys_attended, c.keys_valid) + "; read " +
                     mib(c.choose_bytes + c.attend_bytes) + " of " + mib(c.dense_bytes) + " (" +
                     percent(c.choose_bytes + c.attend_bytes, c.dense_bytes) + "); encode " +
                     ms(c.encode_ns) + ", score " + ms(c.score_ns) + ", select " + ms(c.select_ns) +
                     ", attend " + ms(c.attend_ns) + "; codes held " +
                     mib(static_cast<int64_t>(s.peak_code_bytes));
  if (s.totals.device_steps > 0) {
    text += "; on CUDA " + std::to_string(s.totals.device_steps) + " sparse steps";
  }
  const PrefillCounters& p = s.totals.prefill;
  if (p.steps > 0) {
    text += "; prefill " + std::to_string(p.steps) + " steps (" + std::to_string(p.rows) +
            " rows) in " + ms(p.ns);
  }
  std::string left;
  for_each_reason(*s.reasons, [&](const std::string& name, int64_t n) {
    left += (left.empty() ? "; left to ggml: " : ", ") + name + " " + std::to_string(n);
  });
  for (const std::string& path : s.weights) left += "; trained codes of " + path;
  text += left;
  if (s.options.verify) {
    text += "\nhata: verify: " + std::to_string(v.steps) + " sparse steps checked, " +
            std::to_string(v.cells) + " cells checked, " + std::to_string(v.reencoded) +
            " encoded again, " + std::to_string(v.unseen) + " unseen changes, " +
            std::to_string(v.stale) + " STALE CODES, " + std::to_string(s.totals.dense_steps) +
            " steps stayed dense";
  }
  return text;
}

// Printing is not for a signal handler: a thread of our own waits for the signal's news.
void print_stats_on_signal() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction now {};
    if (sigaction(SIGUSR1, nullptr, &now) != 0 || now.sa_handler != SIG_DFL) return;
    sem_init(&signal_seen, 0, 0);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([] {
      for (;;) {
        if (sem_wait(&signal_seen) != 0) continue;
        const std::string text = Host::get().stats_text();
        say(text.empty() ? "no graph has been computed yet" : text);
      }
    }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    struct sigaction act {};
    act.sa_handler = [](int) { sem_post(&signal_seen); };
    act.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &act, nullptr);
  });
}

}  // namespace hata::host
