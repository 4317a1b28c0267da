// The model files that the process has opened, and the trained weights that lie beside them.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "hata/weights.h"

namespace hata::host {

struct ModelWeights {
  std::string fingerprint;                 ///< of the model
  std::shared_ptr<const Weights> weights;  ///< nullptr: there are none
};

/// Several models may be in use at once, a draft and a main one of equal shape among them: a layer
/// is told by the bytes of its attn_norm, which no backend repacks. Any thread.
class Models {
 public:
  void opened(const std::string& path);

  /// The model whose tensor `norm` (blk.N.attn_norm.weight) has these bytes, with the weights
  /// beside it where `search` is set; fingerprint "" where no opened file has it. Says what it
  /// refuses.
  ModelWeights of(const std::string& norm, std::string_view bytes, bool search);

  std::vector<std::string> paths() const;
  /// The weights files that were found and given out.
  std::vector<std::string> weights_in_use() const;

 private:
  struct Model {
    std::string path;
    bool read = false;
    std::map<std::string, std::string> norms = {};  ///< bytes by name
    std::string fingerprint = {};
    bool searched = false;
    std::shared_ptr<const Weights> weights = nullptr;
  };

  static void read(Model& model);
  static void search_weights(Model& model);

  mutable std::mutex mutex_;
  std::vector<Model> models_;
};

}  // namespace hata::host
