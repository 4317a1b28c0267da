// hata import for the bundled model (llama; 8 layers of 8 query and 2 KV heads of 128): files as
// the reference implementation writes them become weights that give the same codes; and its errors.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "../temp_folder.h"
#include "shell.h"
#include "weights/gguf_writer.h"
#include "weights/weights_file.h"

namespace hata::cli {
namespace {

namespace fs = std::filesystem;

class ImportCommand : public test::TempFolder {
 protected:
  ImportCommand() { fs::create_directory(file("pt")); }

  /// Writes pt/hash_weight_layer_NN.pt; `what`: heads, head_dim, bits, layers (make_pt.py).
  void make(const std::string& what) const {
    const Result made = shell("python3 " HATA_MAKE_PT " " + file("pt") + " " + what);
    ASSERT_EQ(made.status, 0) << made.err;
  }
  std::string pt(int layer) const {
    return file("pt/hash_weight_layer_0" + std::to_string(layer) + ".pt");
  }
  Result import(const std::string& arguments) const {
    return hata("import -m " HATA_MODEL " -o " + file("w.gguf") + " " + arguments);
  }
  void expect_refusal(const std::string& arguments, const std::vector<std::string>& parts) const {
    const Result result = import(arguments);
    EXPECT_EQ(result.status, 1) << result.err;
    for (const auto& part : parts) {
      EXPECT_NE(result.err.find(part), std::string::npos) << part << "\nin: " << result.err;
    }
    EXPECT_FALSE(fs::exists(file("w.gguf"))) << arguments;
    EXPECT_FALSE(fs::exists(file("w.gguf.partial"))) << arguments;
  }
};

// As make_pt.py has it.
float element(int layer, int h, int i, int j) {
  return static_cast<float>((h * 131 + i * 17 + j * 3) % 61 - 30) / 32 + static_cast<float>(layer);
}

int interleaved(int i) { return i < 64 ? 2 * i : 2 * (i - 64) + 1; }
int kept(int i) { return i; }

// Row i of a head went to row(i). With `shared`, all heads have the first one's.
void expect_weights(const std::string& path, const std::vector<int>& layers, int (*row)(int),
                    bool shared = false) {
  const weights::WeightsFile in = weights::read_weights(path);
  ASSERT_EQ(in.weights.layers.size(), layers.size());
  for (const int layer : layers) {
    const LayerWeights& w = in.weights.layers.at(layer);
    EXPECT_TRUE(w.mean_lengths.empty());
    const Projection& p = w.projection;
    ASSERT_EQ(p.n_heads, 2);
    ASSERT_EQ(p.head_dim, 128);
    int wrong = 0;
    for (int h = 0; h < p.n_heads; ++h) {
      for (int i = 0; i < p.head_dim; ++i) {
        for (int j = 0; j < p.rbit; ++j) {
          const auto at = static_cast<size_t>((h * p.head_dim + row(i)) * p.rbit + j);
          wrong += p.weights[at] != element(layer, shared ? 0 : h, i, j) ? 1 : 0;
        }
      }
    }
    EXPECT_EQ(wrong, 0) << "layer " << layer;
  }
}

TEST_F(ImportCommand, InterleavesTheRowsOfLlama) {
  make("2 128 128 2 3 7");
  const Result result = import(file("pt"));
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, file("w.gguf") + "\n");
  for (const char* part : {"3 of 8 layers", "128 bits", "layers 2 to 3: bf16 [2, 128, 128]\n",
                           "layer 7: bf16", "halves interleaved (architecture llama)"}) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << "\nin: " << result.err;
  }
  expect_weights(file("w.gguf"), {2, 3, 7}, interleaved);
  const weights::WeightsFile in = weights::read_weights(file("w.gguf"));
  EXPECT_EQ(in.rbit, 128);
  EXPECT_EQ(in.weights.objective, "paper");
  EXPECT_EQ(in.weights.fingerprint, weights::model_fingerprint(weights::read_gguf(HATA_MODEL)));
  EXPECT_EQ(in.provenance.architecture, "llama");
}

// What the permutation is for: x in Hugging Face's order and x in the model's have the same codes.
TEST_F(ImportCommand, GivesTheSameProducts) {
  make("2 128 64 5");
  ASSERT_EQ(import(pt(5)).status, 0);
  const Projection p = weights::read_weights(file("w.gguf")).weights.layers.at(5).projection;
  // The conversion: rows seen as [2, 64] become [64, 2].
  const auto x = [](int i) { return static_cast<double>(i * i % 37 - 18); };
  for (int h = 0; h < 2; ++h) {
    for (int j = 0; j < 64; ++j) {
      double before = 0, after = 0;
      for (int i = 0; i < 128; ++i) {
        before += x(i) * element(5, h, i, j);
        after += x(i % 2 * 64 + i / 2) * p.weights[static_cast<size_t>((h * 128 + i) * 64 + j)];
      }
      ASSERT_EQ(before, after) << h << " " << j;
    }
  }
}

TEST_F(ImportCommand, LeavesRowsWhereToldTo) {
  make("2 128 256 4");
  const Result result = import("--rope halves --json " + pt(4));
  ASSERT_EQ(result.status, 0) << result.err;
  expect_weights(file("w.gguf"), {4}, kept);
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json.at("file"), file("w.gguf"));
  EXPECT_EQ(json.at("rope"), "halves");
  EXPECT_EQ(json.at("rbit"), 256);
  const auto& layer = json.at("layers").at(0);
  EXPECT_EQ(layer.at("layer"), 4);
  EXPECT_EQ(layer.at("file"), pt(4));
  EXPECT_EQ(layer.at("dtype"), "bf16");
  EXPECT_EQ(layer.at("shape"), nlohmann::json::parse("[2, 128, 256]"));
}

TEST_F(ImportCommand, OneWForAllHeads) {
  make("0 128 128 0 1");
  const Result result = import(pt(0) + " " + pt(1));
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.err.find("for all KV heads alike"), std::string::npos) << result.err;
  expect_weights(file("w.gguf"), {0, 1}, interleaved, true);
}

TEST_F(ImportCommand, IsFoundBesideTheModelAndUsed) {
  make("2 128 128 2 3 4 5 6 7");
  fs::create_symlink(HATA_MODEL, file("some.gguf"));
  const Result made = hata("import -m " + file("some.gguf") + " " + file("pt"));
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(made.out, file("hata-some.gguf") + "\n");
  std::string text;
  for (int i = 0; i < 30; ++i) text += "the old house by the river had a number of rooms . ";
  for (const char* method : {"hata", "hata-paper"}) {
    const Result run = hata("run -m " + file("some.gguf") + " -f " + put("text.txt", text) +
                            " -c 1024 -n 3 --min-ctx 64 --budget 32 --json --method " + method);
    ASSERT_EQ(run.status, 0) << run.err;
    EXPECT_EQ(nlohmann::json::parse(run.out).at("stats").at("weights"),
              nlohmann::json::array({file("hata-some.gguf")}));
  }
  const Result info = hata("info " + file("hata-some.gguf"));
  EXPECT_EQ(info.status, 0) << info.err;
  EXPECT_NE(info.out.find("trained by paper; the documents: unknown"), std::string::npos)
      << info.out;
}

TEST_F(ImportCommand, RefusesWhatDoesNotFitTheModel) {
  make("2 128 128 8");
  expect_refusal(pt(8), {pt(8), "layer 8", "the model has 8 layers"});
  make("3 128 128 2");
  expect_refusal(pt(2), {pt(2), "layer 2", "[3, 128, 128]", "2 KV heads", "another model's"});
  make("8 128 128 2");
  expect_refusal(pt(2), {pt(2), "8 query heads", "one W a KV head"});
  make("2 64 128 2");
  expect_refusal(pt(2), {pt(2), "[2, 64, 128]", "head_dim 128"});
  make("2 128 100 2");
  expect_refusal(pt(2), {pt(2), "[2, 128, 100]", "64, 128 or 256 bits"});
  make("2 128 64 2");
  make("2 128 128 3");
  expect_refusal(file("pt"), {pt(3), "128 bits", "have 64"});
  expect_refusal(pt(2) + " " + pt(2), {pt(2), "layer 2", "once"});
  make("2 128 128 4:nan 5:inf 6:70000");
  for (const int layer : {4, 5, 6}) {
    expect_refusal(pt(layer), {pt(layer), "layer " + std::to_string(layer),
                               "head 1, row 127, bit 127", "65504"});
  }
}

TEST_F(ImportCommand, RefusesFilesThatHoldNoWeights) {
  make("2 128 128 2");
  fs::copy_file(pt(2), file("weights.pt"));
  expect_refusal(file("weights.pt"), {file("weights.pt"), "no layer in 'weights'", "_02.pt"});
  expect_refusal("/no/such.pt", {"/no/such.pt", "No such file"});
  expect_refusal(put("text.pt", "no zip"), {file("text.pt"), "cannot be read as a zip file"});
  expect_refusal(put("old.pt", "\x80\x02\x8a"), {file("old.pt"), "before PyTorch 1.6"});
  fs::create_directory(file("nothing"));
  expect_refusal(file("nothing"), {file("nothing"), "no .pt file"});
}

TEST_F(ImportCommand, RefusesPlacesItCannotWriteTo) {
  make("2 128 128 2 3");
  const std::string given =
      std::string("'" HATA "' import -m " HATA_MODEL " ") + file("pt") + " -o ";
  const auto expect = [&](const Result& result, const std::vector<std::string>& parts) {
    EXPECT_EQ(result.status, 1) << result.err;
    for (const auto& part : parts) {
      EXPECT_NE(result.err.find(part), std::string::npos) << part << "\nin: " << result.err;
    }
  };
  expect(shell(given + file("no/w.gguf")), {file("no/w.gguf"), "there is no folder"});
  expect(shell(given + pt(2)), {pt(2), "which is read"});
  // No room: a limit on the size of files stands for a full disk.
  put("w.gguf", "before");
  expect(shell("trap '' XFSZ; ulimit -f 32; " + given + file("w.gguf")),
         {file("w.gguf"), "cannot be written"});
  EXPECT_EQ(bytes("w.gguf"), "before");
  EXPECT_FALSE(fs::exists(file("w.gguf.partial")));
}

TEST_F(ImportCommand, NeedsAModelOfAKnownArchitecture) {
  make("2 128 128 2");
  const Result none = hata("import " + pt(2));
  EXPECT_EQ(none.status, 2);
  EXPECT_NE(none.err.find("--model"), std::string::npos) << none.err;
  EXPECT_NE(hata("import -m /no/such.gguf " + pt(2)).err.find("/no/such.gguf"), std::string::npos);

  weights::GgufWriter model;
  model.put("general.architecture", "unheard");
  model.put("unheard.block_count", 4u);
  model.put("unheard.embedding_length", 256u);
  model.put("unheard.attention.head_count", 2u);
  model.tensor_f32("blk.0.attn_norm.weight", {1}, {1.0f});
  model.write(file("model.gguf"));
  const std::string given = "import " + pt(2) + " -m " + file("model.gguf");
  const Result unknown = hata(given);
  EXPECT_EQ(unknown.status, 1);
  for (const char* part : {"model.gguf", "general.architecture", "unheard", "--rope"}) {
    EXPECT_NE(unknown.err.find(part), std::string::npos) << unknown.err;
  }
  const Result told = hata(given + " --rope interleaved");
  ASSERT_EQ(told.status, 0) << told.err;
  expect_weights(file("hata-model.gguf"), {2}, interleaved);
  EXPECT_EQ(hata(given + " --rope backwards").status, 2);
}

}  // namespace
}  // namespace hata::cli
