// One decode step of every method against the scalar reference, for the level that the environment
// variable HATA_TEST_SIMD names.

#include "hata/decode.h"

#include <algorithm>
#include <functional>

#include "count_allocations.h"
#include "hata/score.h"
#include "hata/weights.h"
#include "index/code_store.h"
#include "problem.h"

namespace hata {
namespace {

using test::Problem;

class DecodeTest : public test::StepTest {
 protected:
  // The sets that the rule of HATA names, [row][head]: forced keys, then the best reference scores.
  static std::vector<std::vector<int32_t>> expected(const Problem& problem, const LayerCache& cache,
                                                    int64_t budget, const HataOptions& options,
                                                    const Projection& projection) {
    const Step step = problem.step();
    const HeadShape& shape = problem.shape();
    const auto& store = static_cast<const CodeStore&>(*cache.store);
    const int words = projection.rbit / 64;
    const auto encode = [&](int head, const void* x, DType type, size_t stride, int64_t n) {
      std::vector<uint64_t> codes(static_cast<size_t>(n) * words);
      reference::encode(projection.head(head), shape.head_dim, projection.rbit, x, type, stride, n,
                        codes.data());
      return codes;
    };
    std::vector<std::vector<int32_t>> sets(step.rows.size() * shape.n_kv_heads);
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      const auto keys =
          encode(head, step.keys.row(0, head), DType::f16, step.keys.cell_stride, step.n_kv);
      for (size_t row = 0; row < step.rows.size(); ++row) {
        const Row& r = step.rows[row];
        const auto query = encode(head, r.query(head * shape.group()), DType::f32,
                                  4 * r.q_head_stride, shape.group());
        std::vector<int16_t> scores(static_cast<size_t>(step.n_kv));
        const auto score =
            options.score == ScoreRule::sum ? reference::score : reference::score_squares;
        score(query.data(), shape.group(), projection.rbit, keys.data(), store.lengths(head, 0),
              step.n_kv, scores.data());
        std::vector<uint64_t> valid = problem.valid(static_cast<int>(row));
        std::vector<int32_t> forced(static_cast<size_t>(budget));
        const auto recent = static_cast<int>(options.recent.of(budget));
        int n = cache.index.oldest(0, valid, options.sink, forced.data());
        n += cache.index.newest(0, valid, recent, forced.data() + n);
        forced.resize(static_cast<size_t>(n));
        for (const int32_t cell : forced) {
          valid[static_cast<size_t>(cell / 64)] &= ~(uint64_t{1} << (cell % 64));
        }
        auto& cells = sets[row * shape.n_kv_heads + static_cast<size_t>(head)];
        cells = reference::select(scores.data(), valid.data(), step.n_kv, budget - n);
        cells.insert(cells.end(), forced.begin(), forced.end());
        std::sort(cells.begin(), cells.end());
      }
    }
    return sets;
  }

  // Weights of layer 0 whose codes and lengths are those of no default.
  static LayerWeights other_weights(const HeadShape& shape, int rbit) {
    LayerWeights weights{random_projection(99, 7, shape.n_kv_heads, shape.head_dim, rbit), {}};
    for (float& w : weights.projection.weights) w *= 2.5f;
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      weights.mean_lengths.push_back(static_cast<float>(6 + 3 * head));
    }
    return weights;
  }
  // Of two heads of 64 elements, the first needs 64 keys for 0.99 of the attention, the other 256.
  static LayerWeights weights_with_needs() {
    LayerWeights weights{.projection = random_projection(5, 0, 2, 64, 128),
                         .mean_lengths = {8.0f, 9.0f}};
    weights.kept_mass =
        std::make_shared<KeptMass>(KeptMass{2000, {64, 256}, {0.99f, 1.0f, 0.5f, 0.99f}});
    return weights;
  }
  static HataOptions with(LayerWeights weights, const char* objective = "paper") {
    auto all = std::make_shared<Weights>();
    all->path = "some.gguf";
    all->fingerprint = "123";
    all->objective = objective;
    all->layers[0] = std::move(weights);
    return {.weights = all};
  }

  // What a step chooses, [row][head].
  static std::vector<std::vector<int32_t>> chosen(const std::shared_ptr<const Selector>& selector,
                                                  Problem& problem, LayerCache& cache) {
    cache.index.written(0, cache.index.n_cells());
    Decoder decoder(selector);
    run(decoder, problem, &cache, rule("77"), 2);
    std::vector<std::vector<int32_t>> sets;
    for (size_t row = 0; row < decoder.plans().size(); ++row) {
      for (int head = 0; head < problem.shape().n_kv_heads; ++head) {
        const auto cells = decoder.selection().cells(static_cast<int>(row), head);
        sets.emplace_back(cells.begin(), cells.end());
      }
    }
    return sets;
  }
};

TEST_F(DecodeTest, SelectsWhatTheReferenceSelects) {
  constexpr int64_t kCells = 640;
  constexpr int64_t kBudget = 77;
  const HeadShape shapes[] = {{8, 2, 64}, {3, 3, 80}, {7, 1, 96}, {32, 8, 128}, {12, 4, 256}};
  for (const HeadShape& shape : shapes) {
    const HataOptions squares{.score = ScoreRule::squares};
    const HataOptions paper{.lengths = false, .sink = 0, .recent = {.tokens = 0}};
    for (const auto& [spec, options] : std::initializer_list<std::pair<const char*, HataOptions>>{
             {"hata", {}}, {"hata:score=squares", squares}, {"hata-paper", paper}}) {
      const auto selector = make_selector(spec, {});
      std::vector<std::vector<int32_t>> want;
      for (const int threads : {1, 2, 5}) {
        Problem problem(shape, kCells, 3, 11);
        problem.punch_holes(0, 5);
        for (int64_t cell = 100; cell < 500; ++cell) problem.mask_out(1, cell);
        LayerCache cache(*selector, 0, shape, kCells);
        cache.index.written(0, kCells);
        Decoder decoder(selector);
        run(decoder, problem, &cache, rule("77"), threads);
        const std::vector<int64_t> written = {300, 3, 638};  // the next step's new keys
        for (const int64_t cell : written) problem.new_key(cell);
        cache.index.written(written);
        run(decoder, problem, &cache, rule("77"), threads);

        if (want.empty()) {
          want = expected(
              problem, cache, kBudget, options,
              random_projection(options.seed, 0, shape.n_kv_heads, shape.head_dim, options.rbit));
        }
        for (int row = 0; row < 3; ++row) {
          for (int head = 0; head < shape.n_kv_heads; ++head) {
            const auto& cells = want[static_cast<size_t>(row * shape.n_kv_heads + head)];
            const auto got = decoder.selection().cells(row, head);
            ASSERT_EQ(std::vector(got.begin(), got.end()), cells)
                << spec << " heads " << shape.n_q_heads << "/" << shape.n_kv_heads << " head_dim "
                << shape.head_dim << " row " << row << " head " << head << " threads " << threads;
            problem.expect_output(row, head, &cells);
          }
        }
      }
    }
  }
}

TEST_F(DecodeTest, WeightsOfTheRandomProjectionChangeNothing) {
  constexpr HeadShape kShape{8, 2, 64};
  Problem problem(kShape, 640, 2, 3);
  const HataOptions same = with({random_projection(1, 0, 2, 64, 128), {}});
  const HataOptions other = with(other_weights(kShape, 128));
  const auto choose = [&](const char* method, const HataOptions& options, int layer) {
    const auto selector = make_selector(method, options);
    LayerCache cache(*selector, layer, kShape, 640);
    return chosen(selector, problem, cache);
  };
  for (const char* method : {"hata", "hata-paper", "hata:rerank=2"}) {
    const auto plain = choose(method, {}, 0);
    EXPECT_EQ(choose(method, same, 0), plain) << method;
    EXPECT_NE(choose(method, other, 0), plain) << method;
    EXPECT_EQ(choose(method, other, 1), choose(method, {}, 1)) << "a layer without weights";
  }
  EXPECT_EQ(choose("random", other, 0), choose("random", {}, 0));
}

TEST_F(DecodeTest, SelectsWhatTheReferenceSelectsWithWeights) {
  const HeadShape shapes[] = {{8, 2, 64}, {7, 1, 96}, {6, 3, 128}};
  for (const HeadShape& shape : shapes) {
    for (const int rbit : {64, 128, 256}) {
      const LayerWeights weights = other_weights(shape, rbit);
      const HataOptions options = with(weights);
      Problem problem(shape, 640, 2, 19);
      problem.punch_holes(0, 5);
      const auto selector = make_selector("hata", options);
      LayerCache cache(*selector, 0, shape, 640);
      const auto got = chosen(selector, problem, cache);
      EXPECT_EQ(got, expected(problem, cache, 77, options, weights.projection))
          << shape.n_kv_heads << " KV heads of " << shape.head_dim << ", " << rbit << " bits";

      const auto& store = static_cast<const CodeStore&>(*cache.store);
      const Step step = problem.step();
      for (int head = 0; head < shape.n_kv_heads; ++head) {
        std::vector<uint8_t> lengths(640);
        reference::key_lengths(
            shape.head_dim, step.keys.row(0, head), DType::f16, step.keys.cell_stride, 640,
            8.0f / weights.mean_lengths[static_cast<size_t>(head)], lengths.data());
        for (size_t cell = 0; cell < 640; ++cell) {
          ASSERT_EQ(store.lengths(head, 0)[cell / 2] >> (cell % 2 * 4) & 15, lengths[cell]);
        }
      }
    }
  }
}

TEST_F(DecodeTest, WeightsOfAnotherModelStayDense) {
  constexpr HeadShape kShape{8, 2, 64};
  HataOptions options = with(other_weights(kShape, 128), "kl-far");
  for (const char* spec : {"hata", "hata-paper"}) {
    // The paper's rule leaves weights of another objective alone.
    const bool takes = std::string_view(spec) == "hata";
    for (const char* model : {"", "abc"}) {
      options.model = model;
      const std::string why = LayerCache(*make_selector(spec, options), 0, kShape, 64).why_dense;
      EXPECT_EQ(why.find("fingerprint: 123: the model's is abc") != std::string::npos,
                takes && options.model == "abc")
          << spec << ": " << why;
    }
    options.model = "123";
    EXPECT_EQ(LayerCache(*make_selector(spec, options), 0, kShape, 64).why_dense, "");
    options.model = "abc";
    const auto off = make_selector(std::string(spec) + ":weights=off", options);
    EXPECT_EQ(LayerCache(*off, 0, kShape, 64).why_dense, "");
  }
}

TEST_F(DecodeTest, WeightsOfAnotherShapeStayDense) {
  constexpr HeadShape kShape{8, 2, 64};
  Projection short_one = random_projection(1, 0, 2, 64, 128);
  short_one.weights.pop_back();
  const std::pair<LayerWeights, std::string> misfits[] = {
      {{random_projection(1, 0, 4, 64, 128), {}}, "the number of KV heads is 4, not 2"},
      {{random_projection(1, 0, 2, 128, 128), {}}, "head_dim is 128, not 64"},
      {{short_one, {}}, "the number of weights is 16383, not 16384"},
      {{random_projection(1, 0, 2, 64, 128), {4.0f}}, "the number of mean lengths is 1, not 2"},
      {{.projection = random_projection(1, 0, 2, 64, 128),
        .queries = random_projection(1, 0, 1, 64, 128)},
       "the number of query weights is 8192, not 16384"},
      {{.projection = random_projection(1, 0, 2, 64, 128), .key_means = {1.0f}},
       "the number of elements of the mean keys is 1, not 128"},
  };
  for (const auto& [weights, why] : misfits) {
    const auto selector = make_selector("hata", with(weights));
    Problem problem(kShape, 640, 1, 3);
    LayerCache cache(*selector, 0, kShape, 640);
    EXPECT_EQ(cache.why_dense, "some.gguf: layer 0: " + why +
                                   "; train weights for this model (hata train), or leave them"
                                   " out (weights=off)");
    EXPECT_EQ(cache.store, nullptr);
    Decoder decoder(selector);
    run(decoder, problem, &cache, rule("77"), 2);
    EXPECT_EQ(decoder.counters().dense_rows, 1);
    for (int head = 0; head < 2; ++head) problem.expect_output(0, head, nullptr);
    EXPECT_EQ(LayerCache(*selector, 1, kShape, 640).why_dense, "") << "a layer without weights";

    cache.use(*make_selector("hata", {}), 0, kShape);
    EXPECT_EQ(cache.why_dense, "");
    EXPECT_NE(cache.store, nullptr);
  }
}

// Keys are encoded relative to their mean, queries by their own projection: the same choice as from
// keys that are centred beforehand, and queries that are turned.
TEST_F(DecodeTest, CentredKeysAndAProjectionOfTheQueries) {
  constexpr HeadShape kShape{8, 2, 64};
  LayerWeights weights{.projection = random_projection(5, 0, 2, 64, 128),
                       .mean_lengths = {8.0f, 9.0f},
                       .queries = random_projection(6, 0, 2, 64, 128)};
  for (int i = 0; i < 128; ++i) weights.key_means.push_back(0.5f * static_cast<float>(i % 7 - 3));
  const auto selector = make_selector("hata:sink=0:recent=0", with(weights));
  Problem problem(kShape, 640, 1, 3);
  LayerCache cache(*selector, 0, kShape, 640);
  Decoder decoder(selector);
  run(decoder, problem, &cache, rule("50"), 2);
  const Step step = problem.step();
  const auto& store = static_cast<const CodeStore&>(*cache.store);
  for (int head = 0; head < 2; ++head) {
    std::vector<uint64_t> keys(640 * 2), queries(4 * 2);
    std::vector<float> centred(64);
    for (int64_t cell = 0; cell < 640; ++cell) {
      for (int i = 0; i < 64; ++i) {
        centred[static_cast<size_t>(i)] =
            reference::element(step.keys.row(cell, head), DType::f16, i) -
            weights.key_means[static_cast<size_t>(head * 64 + i)];
      }
      reference::encode(weights.projection.head(head), 64, 128, centred.data(), DType::f32, 256, 1,
                        keys.data() + cell * 2);
      ASSERT_TRUE(store.matches(step.keys, cell));
    }
    ASSERT_TRUE(std::equal(keys.begin(), keys.end(), store.codes(head, 0)));
    reference::encode(weights.queries.head(head), 64, 128, step.rows[0].query(head * 4), DType::f32,
                      256, 4, queries.data());
    std::vector<int16_t> scores(640);
    reference::score(queries.data(), 4, 128, keys.data(), store.lengths(head, 0), 640,
                     scores.data());
    const auto want = reference::select(scores.data(), problem.valid(0).data(), 640, 50);
    const auto got = decoder.selection().cells(0, head);
    EXPECT_EQ(std::vector(got.begin(), got.end()), want);
  }
}

TEST_F(DecodeTest, TheWindowIsThatOfTheLayersWeights) {
  constexpr HeadShape kShape{8, 2, 64};
  LayerWeights weights = other_weights(kShape, 128);
  weights.recent_share = 0.75f;
  const Projection projection = weights.projection;
  const HataOptions trained = with(std::move(weights), "kl-group");
  HataOptions wanted = trained;
  const auto window = [&](const char* spec, int layer) {
    return make_selector(spec, trained)->window(layer);
  };
  EXPECT_EQ(window("hata", 0), (Window{.sink = 1, .recent = {.share = 0.75}}));
  EXPECT_EQ(window("hata", 1), (Window{.sink = 1, .recent = {}})) << "it has no weights";
  EXPECT_EQ(window("hata:recent=8", 0), (Window{.sink = 1, .recent = {.tokens = 8}}));
  EXPECT_EQ(window("hata:weights=off", 0), (Window{.sink = 1, .recent = {}}));
  for (const char* spec : {"hata", "hata:recent=k/2"}) {
    wanted.recent.share = spec == std::string("hata") ? 0.75 : 0.5;
    const auto selector = make_selector(spec, trained);
    Problem problem(kShape, 640, 2, 11);
    problem.punch_holes(0, 5);
    LayerCache cache(*selector, 0, kShape, 640);
    const auto sets = chosen(selector, problem, cache);
    EXPECT_EQ(sets, expected(problem, cache, 77, wanted, projection)) << spec;
  }
}

// The window is inside the budget of each head, also of the one that needs least.
TEST_F(DecodeTest, AWindowDoesNotExceedAnyHeadsNeed) {
  constexpr HeadShape kShape{8, 2, 64};
  LayerWeights weights = weights_with_needs();
  weights.recent_share = 0.875f;
  const auto selector = make_selector("hata", with(weights));
  Problem problem(kShape, 1024, 1, 3);
  LayerCache cache(*selector, 0, kShape, 1024);
  Decoder decoder(selector);
  run(decoder, problem, &cache, rule("auto:0.99:50%"), 2);
  EXPECT_EQ(decoder.selection().cells(0, 0).size(), 64u);
  EXPECT_EQ(decoder.selection().cells(0, 1).size(), 256u);
}

TEST_F(DecodeTest, BudgetsFollowTheNeedsOfEachHead) {
  constexpr HeadShape kShape{8, 2, 64};
  const auto selector = make_selector("hata", with(weights_with_needs()));
  Problem problem(kShape, 1024, 1, 3);
  LayerCache cache(*selector, 0, kShape, 1024);
  Decoder decoder(selector);
  run(decoder, problem, &cache, rule("auto:0.99:50%"), 2);
  EXPECT_EQ(decoder.plans()[0].budget, 256);
  EXPECT_EQ(decoder.counters().keys_attended, (64 + 256) / 2);
  for (int head = 0; head < 2; ++head) {
    const auto cells = decoder.selection().cells(0, head);
    const std::vector<int32_t> chosen(cells.begin(), cells.end());
    EXPECT_EQ(std::ssize(chosen), head == 0 ? 64 : 256);
    problem.expect_output(0, head, &chosen);

    // Each head has what a budget of its own would give it.
    LayerCache alone(*selector, 0, kShape, 1024);
    Decoder fixed(selector);
    const Problem again(kShape, 1024, 1, 3);  // the step writes its result there
    run(fixed, again, &alone, rule(head == 0 ? "64" : "256"), 2);
    const auto same = fixed.selection().cells(0, head);
    EXPECT_EQ(std::vector(same.begin(), same.end()), chosen);
  }
}

TEST_F(DecodeTest, WithWeightsTheSteadyStateAllocatesNothing) {
  constexpr HeadShape kShape{8, 2, 64};
  const auto selector = make_selector("hata", with(other_weights(kShape, 128)));
  Problem problem(kShape, 6000, 2, 1);
  LayerCache cache(*selector, 0, kShape, 6000);
  Decoder decoder(selector);
  Team team(2);
  const Step step = problem.step();
  const SparseRule sparse = rule("300");
  const std::function<void(const Worker&)> decode_step = [&](const Worker& worker) {
    decoder.step(step, &cache, sparse, worker);
  };
  int64_t before = 0;
  for (int64_t cell = 10; cell < 20; ++cell) {
    if (cell == 13) before = test::g_allocations.load();
    problem.new_key(cell);
    cache.index.written(cell, cell + 1);
    team.run(decode_step);
  }
  EXPECT_EQ(test::g_allocations.load(), before);
  EXPECT_EQ(decoder.counters().sparse_rows, 20);
  EXPECT_GT(before, 0);  // the counter counts
}

TEST_F(DecodeTest, FullBudgetIsDenseAttention) {
  const HeadShape shape{8, 2, 128};
  for (const std::string& name : selector_names()) {
    const auto selector = make_selector(name, {});
    Problem problem(shape, 512, 2, 5);
    problem.punch_holes(1, 3);
    LayerCache cache(*selector, 0, shape, 512);
    Decoder decoder(selector);
    run(decoder, problem, &cache, rule("100%"), 2);
    EXPECT_EQ(decoder.counters().sparse_rows, 0) << name;
    for (int row = 0; row < 2; ++row) {
      for (int head = 0; head < shape.n_kv_heads; ++head) problem.expect_output(row, head, nullptr);
    }
  }
}

TEST_F(DecodeTest, DenseResultDoesNotDependOnThreads) {
  const HeadShape shape{8, 2, 128};
  for (const int64_t n_kv : {1, 63, 300, 4096, 5000}) {
    Problem problem(shape, n_kv, 2, 5);
    if (n_kv > 100) problem.punch_holes(0, 4);
    std::vector<float> first;
    for (const int threads : {1, 2, 4}) {
      Decoder decoder(make_selector("dense", {}));
      run(decoder, problem, nullptr, {}, threads);
      if (first.empty()) first = problem.out();
      ASSERT_EQ(problem.out(), first) << n_kv << " cells, " << threads << " threads";
      for (int head = 0; head < shape.n_kv_heads; ++head) problem.expect_output(0, head, nullptr);
    }
  }
}

TEST_F(DecodeTest, ExactTakesTheLargestLogits) {
  const HeadShape shape{8, 2, 64};
  const auto selector = make_selector("exact-logit", {});
  Problem problem(shape, 640, 1, 9);
  problem.punch_holes(0, 4);
  LayerCache cache(*selector, 0, shape, 640);
  Decoder decoder(selector);
  run(decoder, problem, &cache, rule("40"), 2);
  const Step step = problem.step();
  const std::vector<uint64_t> valid = problem.valid(0);
  for (int head = 0; head < 2; ++head) {
    std::vector<std::pair<double, int32_t>> order;
    for (int32_t cell = 0; cell < 640; ++cell) {
      if ((valid[static_cast<size_t>(cell / 64)] >> (cell % 64) & 1) == 0) continue;
      double sum = 0.0;
      for (int g = 0; g < 4; ++g) {
        for (int i = 0; i < 64; ++i) {
          sum += step.rows[0].q[(head * 4 + g) * 64 + i] *
                 reference::element(step.keys.row(cell, head), DType::f16, i);
        }
      }
      order.emplace_back(-sum, cell);
    }
    std::sort(order.begin(), order.end());
    std::vector<int32_t> want;
    for (int i = 0; i < 40; ++i) want.push_back(order[static_cast<size_t>(i)].second);
    std::sort(want.begin(), want.end());
    const auto got = decoder.selection().cells(0, head);
    EXPECT_EQ(std::vector(got.begin(), got.end()), want);
  }
}

TEST_F(DecodeTest, StreamingKeepsSinksAndTheWindow) {
  const HeadShape shape{4, 2, 64};
  const auto selector = make_selector("streaming", {});
  Problem problem(shape, 256, 1, 9);
  LayerCache cache(*selector, 0, shape, 256);
  cache.index.written(0, 256);
  Decoder decoder(selector);
  run(decoder, problem, &cache, rule("10"), 2);
  const std::vector<int32_t> want = {0, 1, 2, 3, 250, 251, 252, 253, 254, 255};
  for (int head = 0; head < 2; ++head) {
    const auto got = decoder.selection().cells(0, head);
    EXPECT_EQ(std::vector(got.begin(), got.end()), want);
    problem.expect_output(0, head, &want);
  }
}

TEST_F(DecodeTest, RowsDecideForThemselves) {
  // One row sees 60 cells, the other all 512: with min_ctx 100 only the second is sparse.
  const HeadShape shape{8, 2, 128};
  const auto selector = make_selector("hata", {});
  Problem problem(shape, 512, 2, 13);
  for (int64_t cell = 60; cell < 512; ++cell) problem.mask_out(0, cell);
  LayerCache cache(*selector, 0, shape, 512);
  Decoder decoder(selector);
  run(decoder, problem, &cache, {.budget = Budget::parse("32"), .min_ctx = 100}, 2);
  EXPECT_EQ(decoder.plans()[0].budget, 0);
  EXPECT_EQ(decoder.plans()[1].budget, 32);
  EXPECT_EQ(decoder.counters().sparse_rows, 1);
  EXPECT_EQ(decoder.counters().dense_rows, 1);
  EXPECT_EQ(decoder.counters().keys_attended, 60 + 32);
  for (int head = 0; head < 2; ++head) {
    problem.expect_output(0, head, nullptr);
    const auto cells = decoder.selection().cells(1, head);
    const std::vector<int32_t> chosen(cells.begin(), cells.end());
    EXPECT_EQ(chosen.size(), 32u);
    problem.expect_output(1, head, &chosen);
  }
}

TEST_F(DecodeTest, StreamOfALargerCacheStartsAtItsOwnCells) {
  // Two streams of 512 cells in one tensor; the step looks at the second.
  const HeadShape shape{8, 2, 64};
  const auto selector = make_selector("hata", {});
  Problem problem(shape, 1024, 1, 21);
  LayerCache cache(*selector, 0, shape, 1024);
  Step step = problem.step();
  step.keys.data = step.keys.row(512, 0);
  step.values.data = step.values.row(512, 0);
  step.first_cell = 512;
  step.n_kv = 512;
  Decoder decoder(selector);
  decoder.step(step, &cache, rule("50"), Worker{});
  EXPECT_FALSE(cache.index.any_stale(512, 1024));
  EXPECT_TRUE(cache.index.any_stale(0, 512)) << "cells out of view are left alone";
  for (int64_t cell = 512; cell < 1024; ++cell) {
    ASSERT_TRUE(cache.store->matches(problem.step().keys, cell));
  }
}

}  // namespace
}  // namespace hata
