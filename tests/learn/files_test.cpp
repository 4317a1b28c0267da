// Files, those of weights and those of training rows: what is written comes back; what is damaged
// is refused.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>

#include "../temp_folder.h"
#include "learn/row_store.h"
#include "weights/gguf_writer.h"
#include "weights/weights_file.h"

namespace hata {
namespace {

namespace fs = std::filesystem;

weights::WeightsFile some_weights() {
  weights::WeightsFile file;
  file.rbit = 64;
  file.provenance.architecture = "llama";
  file.provenance.base_name = "tiny";
  file.weights.fingerprint = "0123456789abcdef";
  file.provenance.quality = "{}";
  for (const int layer : {0, 3}) {
    file.weights.layers[layer] = {random_projection(7, layer, 2, 128, 64), {4.5f, 6.0f}};
  }
  return file;
}

// With all that a file may hold.
weights::WeightsFile full_weights() {
  weights::WeightsFile file = some_weights();
  file.weights.dense_layers = {{0, 2}};
  for (auto& [layer, w] : file.weights.layers) {
    w.queries = random_projection(8, layer, 2, 128, 64);
    w.recent_share = layer == 0 ? 0.75f : 0.0f;
    w.key_means.assign(2 * 128, 0.25f + static_cast<float>(layer));
    w.kept_mass = std::make_shared<KeptMass>(
        KeptMass{6000, {64, 128, 256}, {0.5f, 0.75f, 1.0f, 0.25f, 0.5f, 0.875f}});
  }
  return file;
}

template <class Fn>
std::string error_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

using WholeFiles = test::TempFolder;

TEST_F(WholeFiles, ComeBackAsTheyWere) {
  const std::string text("\0a\nb", 4);
  const std::vector<int16_t> numbers = {1, -1};
  put("a", "something longer that was there before");
  write_file_whole(file("a"), {text, bytes_of(numbers), bytes_of(char{'c'})});
  EXPECT_EQ(read_file(file("a")), text + "\1" + std::string(1, '\0') + "\xff\xff" + "c");
  write_file_whole(file("a"), {});
  EXPECT_EQ(read_file(file("a")), "");
}

TEST_F(WholeFiles, SayWhatCannotBeDone) {
  EXPECT_EQ(error_of([&] { read_file(file("none")); }),
            file("none") + ": cannot be read: No such file or directory");
  EXPECT_EQ(error_of([&] { read_file(folder_); }), folder_ + ": cannot be read: Is a directory");
  EXPECT_EQ(error_of([&] { write_file_whole(file("no/a"), {"x"}, "; make it"); }),
            file("no/a") + ": cannot be written: No such file or directory; make it");
  fs::create_directory(file("b"));
  EXPECT_EQ(error_of([&] { write_file_whole(file("b"), {"x"}); }),
            file("b") + ": cannot be written: Is a directory");
  EXPECT_FALSE(fs::exists(file("b.partial")));
}

TEST_F(WholeFiles, StayAsTheyWereWhereThereIsNoRoom) {
  put("a", "before");
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small{.rlim_cur = 4096, .rlim_max = limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error =
      error_of([&] { write_file_whole(file("a"), {std::string(1 << 20, 'x')}); });
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(error, file("a") + ": cannot be written: File too large");
  EXPECT_EQ(bytes("a"), "before");
  EXPECT_FALSE(fs::exists(file("a.partial")));
}

using WeightsFiles = test::TempFolder;

TEST_F(WeightsFiles, ComeBackAsTheyWere) {
  const weights::WeightsFile out = some_weights();
  weights::write_weights(file("w.gguf"), out);
  const weights::WeightsFile in = weights::read_weights(file("w.gguf"));
  EXPECT_EQ(in.rbit, 64);
  EXPECT_EQ(in.weights.fingerprint, out.weights.fingerprint);
  ASSERT_EQ(in.weights.layers.size(), 2u);
  for (const auto& [layer, w] : out.weights.layers) {
    EXPECT_EQ(in.weights.layers.at(layer).projection.weights, w.projection.weights);
    EXPECT_EQ(in.weights.layers.at(layer).mean_lengths, w.mean_lengths);
  }
  EXPECT_FALSE(fs::exists(file("w.gguf.partial")));
}

TEST_F(WeightsFiles, WhatTheyMayHoldBesidesComesBackToo) {
  const weights::WeightsFile out = full_weights();
  weights::write_weights(file("w.gguf"), out);
  const weights::WeightsFile in = weights::read_weights(file("w.gguf"));
  EXPECT_EQ(in.weights.dense_layers, out.weights.dense_layers);
  for (const auto& [layer, w] : out.weights.layers) {
    const LayerWeights& got = in.weights.layers.at(layer);
    EXPECT_EQ(got.queries.weights, w.queries.weights);
    EXPECT_EQ(got.of_queries().weights, w.queries.weights);
    EXPECT_EQ(got.key_means, w.key_means);
    EXPECT_EQ(got.recent_share, w.recent_share);
    ASSERT_NE(got.kept_mass, nullptr);
    EXPECT_EQ(got.kept_mass->n_keys, 6000);
    EXPECT_EQ(got.kept_mass->budgets, w.kept_mass->budgets);
    EXPECT_EQ(got.kept_mass->mass, w.kept_mass->mass);
  }
  weights::WeightsFile none = some_weights();
  none.weights.dense_layers.emplace();
  weights::write_weights(file("w.gguf"), none);
  ASSERT_TRUE(weights::read_weights(file("w.gguf")).weights.dense_layers.has_value());
  EXPECT_TRUE(weights::read_weights(file("w.gguf")).weights.dense_layers->empty());
}

TEST_F(WeightsFiles, WhatDoesNotFitIsRefused) {
  const auto error_with = [&](const std::function<void(weights::WeightsFile&)>& spoil) {
    weights::WeightsFile bad = full_weights();
    spoil(bad);
    weights::write_weights(file("w.gguf"), bad);
    return error_of([&] { weights::read_weights(file("w.gguf")); });
  };
  const auto spoil_mass = [](weights::WeightsFile& f, std::vector<float> mass) {
    for (auto& [layer, w] : f.weights.layers) {
      w.kept_mass = std::make_shared<KeptMass>(KeptMass{6000, {64, 128, 256}, mass});
    }
  };
  const std::pair<std::string, std::string> cases[] = {
      {error_with([](auto& f) {
         f.weights.dense_layers = {{2, 0}};
       }),
       "dense_layers: 0"},
      {error_with([](auto& f) { f.weights.dense_layers = {{-1}}; }), "dense_layers: -1"},
      {error_with([](auto& f) { f.weights.layers[3].key_means.resize(128); }), "mean keys"},
      {error_with(
           [](auto& f) { f.weights.layers[0].queries = random_projection(1, 0, 1, 128, 64); }),
       "query weights"},
      {error_with([&](auto& f) {
         spoil_mass(f, {0.5f, 2.0f, 1.0f, 0.25f, 0.5f, 1.0f});
       }),
       "kept_mass"},
      {error_with([](auto& f) {
         for (auto& [layer, w] : f.weights.layers) {
           w.kept_mass =
               std::make_shared<KeptMass>(KeptMass{6000, {128, 64, 256}, w.kept_mass->mass});
         }
       }),
       "kept_mass.budgets: 64"},
      {error_with([](auto& f) { f.weights.layers[0].recent_share = 1.5f; }),
       "blk.0.attn_hash_k.recent_share': 1.5"},
  };
  for (const auto& [error, want] : cases) {
    EXPECT_NE(error.find(file("w.gguf")), std::string::npos) << error;
    EXPECT_NE(error.find(want), std::string::npos) << error;
  }
}

TEST_F(WeightsFiles, NumbersThatAreNotFiniteAreRefused) {
  weights::WeightsFile bad = some_weights();
  bad.weights.layers[3].projection.weights[5] = std::nanf("");
  weights::write_weights(file("w.gguf"), bad);
  const std::string error = error_of([&] { weights::read_weights(file("w.gguf")); });
  EXPECT_NE(error.find("blk.3.attn_hash_k.weight"), std::string::npos) << error;
  EXPECT_NE(error.find("finite"), std::string::npos) << error;
}

TEST_F(WeightsFiles, ALengthOfZeroIsRefused) {
  weights::WeightsFile bad = some_weights();
  bad.weights.layers[0].mean_lengths[1] = 0;
  weights::write_weights(file("w.gguf"), bad);
  EXPECT_NE(error_of([&] { weights::read_weights(file("w.gguf")); }).find("above 0"),
            std::string::npos);
}

TEST_F(WeightsFiles, MeanLengthsMayBeLeftOut) {
  weights::WeightsFile out = some_weights();
  out.weights.layers[0].mean_lengths.clear();
  weights::write_weights(file("w.gguf"), out);
  const weights::WeightsFile in = weights::read_weights(file("w.gguf"));
  EXPECT_TRUE(in.weights.layers.at(0).mean_lengths.empty());
  EXPECT_EQ(in.weights.layers.at(3).mean_lengths, out.weights.layers[3].mean_lengths);
}

TEST_F(WeightsFiles, OneLengthMissingIsRefused) {
  weights::WeightsFile bad = some_weights();
  bad.weights.layers[0].mean_lengths.pop_back();
  weights::write_weights(file("w.gguf"), bad);
  EXPECT_NE(error_of([&] { weights::read_weights(file("w.gguf")); }).find("layer 0"),
            std::string::npos);
}

TEST_F(WeightsFiles, OtherFilesAreRefused) {
  weights::GgufWriter other;
  other.put("general.type", "adapter");
  other.put("adapter.type", "lora");
  other.write(file("lora.gguf"));
  EXPECT_NE(error_of([&] { weights::read_weights(file("lora.gguf")); }).find("not hata"),
            std::string::npos);
  EXPECT_NE(error_of([&] { weights::read_weights(file("none.gguf")); }).find("none.gguf"),
            std::string::npos);
}

TEST_F(WeightsFiles, EveryTruncationIsRefused) {
  weights::write_weights(file("w.gguf"), some_weights());
  const auto size = fs::file_size(file("w.gguf"));
  for (uintmax_t cut = 31; cut < size; cut = cut * 2 + 1) {  // less may be padding
    fs::copy_file(file("w.gguf"), file("cut.gguf"), fs::copy_options::overwrite_existing);
    fs::resize_file(file("cut.gguf"), size - cut);
    EXPECT_THROW(weights::read_weights(file("cut.gguf")), Error) << "less " << cut << " bytes";
  }
}

TEST_F(WeightsFiles, AFolderThatIsNotThereIsAnError) {
  const std::string error =
      error_of([&] { weights::write_weights(file("no/such/w.gguf"), some_weights()); });
  EXPECT_NE(error.find("cannot be written"), std::string::npos) << error;
}

TEST_F(WeightsFiles, AreFoundBesideTheirModel) {
  weights::GgufWriter model;
  model.put("general.name", "tiny");
  model.tensor_f32("blk.0.attn_norm.weight", {2}, {1.0f, 2.0f});
  model.write(file("some-q8_0.gguf"));
  const weights::GgufFile header = weights::read_gguf(file("some-q8_0.gguf"));
  weights::WeightsFile fitting = some_weights(), other = some_weights();
  fitting.weights.fingerprint = weights::model_fingerprint(header);
  std::vector<std::string> refused;
  const auto found = [&] {
    refused.clear();
    return weights::find_weights(header, refused);
  };
  weights::write_weights(file("hata-elsewhere.gguf"), fitting);
  EXPECT_EQ(found(), "") << "another name";
  for (const char* name : {"hata-tiny-kl.gguf", "hata-some.gguf", "hata-some-q8_0-b.gguf"}) {
    weights::write_weights(file(name), fitting);
    EXPECT_EQ(found(), file(name));
    EXPECT_EQ(refused.size(), 0u);
    weights::write_weights(file(name), other);
    EXPECT_EQ(found(), "");
    ASSERT_EQ(refused.size(), 1u);
    EXPECT_NE(refused[0].find(name), std::string::npos) << refused[0];
    EXPECT_NE(refused[0].find("fingerprint"), std::string::npos) << refused[0];
    fs::remove(file(name));
  }
}

learn::SampledDocument some_document(bool with_values = false) {
  learn::SampledDocument document;
  document.n_keys = 3;
  document.positions = {1, 2};
  for (const int layer : {2, 5}) {
    auto& out = document.layers[layer];
    out.shape = {4, 2, 64};
    for (int i = 0; i < 2 * 3 * 64; ++i) out.keys.push_back(static_cast<uint16_t>(i + layer));
    for (int i = 0; i < 2 * 2 * 2 * 64; ++i) out.queries.push_back(static_cast<float>(i + layer));
    if (with_values) out.values.assign(out.keys.rbegin(), out.keys.rend());
  }
  return document;
}

using RowFiles = test::TempFolder;

TEST_F(RowFiles, GiveEachHeadItsKeysAndQueries) {
  learn::write_document(file("a.bin"), some_document());
  const learn::RowStore rows({file("a.bin")});
  ASSERT_EQ(rows.n_rows(), 1);
  EXPECT_EQ(rows.longest(), 3);
  const learn::Row row = rows.load(0, 5, 1);
  EXPECT_EQ(row.n_keys(), 3);
  EXPECT_EQ(row.group, 2);
  EXPECT_EQ(row.positions, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(row.queries.front(), 2 * 2 * 64 + 5.0f);
  EXPECT_EQ(row.queries.size(), 2u * 2 * 64);
}

TEST_F(RowFiles, HaveValuesWhereTheyWereSampled) {
  learn::write_document(file("a.bin"), some_document(true));
  learn::write_document(file("b.bin"), some_document());
  const learn::RowStore rows({file("a.bin"), file("b.bin")});
  for (const int layer : {2, 5}) {
    const learn::Row row = rows.load(0, layer, 1, true);
    std::vector<float> backwards = rows.load(1, layer, 0).keys;
    std::reverse(backwards.begin(), backwards.end());
    EXPECT_EQ(row.values, backwards);
    EXPECT_EQ(row.keys, rows.load(1, layer, 1).keys);
    EXPECT_EQ(row.queries, rows.load(1, layer, 1).queries);
    EXPECT_TRUE(rows.load(0, layer, 1).values.empty()) << "they were not asked for";
    EXPECT_TRUE(rows.load(1, layer, 1, true).values.empty()) << "there are none";
  }
}

TEST_F(RowFiles, DamageIsRefused) {
  learn::write_document(file("a.bin"), some_document());
  fs::resize_file(file("a.bin"), fs::file_size(file("a.bin")) - 1);
  EXPECT_NE(error_of([&] { learn::RowStore({file("a.bin")}); }).find("truncated"),
            std::string::npos);
  put("b.bin", "no rows");
  EXPECT_NE(error_of([&] { learn::RowStore({file("b.bin")}); }).find("not a file of training rows"),
            std::string::npos);
}

}  // namespace
}  // namespace hata
