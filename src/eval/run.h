// An evaluation: every document is read once, densely, and asked about under every setting.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "eval/results.h"
#include "eval/sample.h"
#include "eval/session.h"
#include "eval/setting.h"
#include "eval/states.h"

namespace hata::eval {

struct RunOptions {
  std::vector<std::string> tasks;  ///< names of open_task
  std::vector<int64_t> contexts;   ///< tokens of a document, where the task makes them
  std::vector<Setting> settings;
  int64_t samples = 0;  ///< documents of each task and length; 0: 8, or all of a file
  int per_document = 20;
  uint64_t seed = 1;
  int inspect = 2;  ///< so many queries of each document are inspected, at their first answer
  int threads = 1;
  Device device = Device::cpu;  ///< that documents are read on
};

/// What a file of results must agree on to be continued.
Json settings_json(const RunOptions& options, const Model& model, uint64_t fingerprint);

/// Told while it goes on; all on the calling thread.
struct Listener {
  /// seconds_left < 0: not known yet.
  std::function<void(const std::string& what, double share_done, double seconds_left)> progress;
  std::function<void(const std::string& line)> note;
};

/// Asks everything that the file does not hold yet. A document or setting that throws is noted in
/// the file, and the others go on. Throws Error where nothing can be asked (an unknown task, a
/// context beyond the model's), and where results cannot be written.
void run(const Model& model, const RunOptions& options, const States& states, ResultsFile& file,
         const Listener& listener);

/// Writes what it would ask as lines of JSON (jsonl.h); returns how many.
int64_t export_jsonl(const Model& model, const RunOptions& options, std::ostream& out);

}  // namespace hata::eval
