#include "eval/evaluate.h"

#include <gtest/gtest.h>

#include "eval/tasks.h"
#include "hata/types.h"

namespace hata::eval {
namespace {

TEST(Evaluate, TheModelAnswersAndTheSessionIsAsBefore) {
  const Model model(HATA_MODEL);
  const LlamaTokenizer tokenizer(model.vocab());
  const Sample document = make_document(tokenizer, "needle", 1024, 6, 1);
  Session session(model, {.n_ctx = 1100, .threads = 2});
  session.prefill(document.tokens);
  ASSERT_EQ(session.size(), 1024);
  int right = 0;
  for (const Query& question : document.queries) {
    const Answer answer = ask(session, question, true);
    EXPECT_EQ(session.size(), 1024);
    EXPECT_EQ(answer.tokens.size(), question.part(true).size());
    EXPECT_EQ(answer.right, answer.tokens == question.part(true));
    EXPECT_GT(answer.ns, 0);
    EXPECT_EQ(ask(session, question, true).tokens, answer.tokens);
    right += answer.right;
  }
  EXPECT_GE(right, 5) << "the bundled model finds a number in 1024 tokens";

  // A question about something that the document does not say is answered wrong, and cut short.
  Query other = make_document(tokenizer, "needle", 1024, 1, 99).queries[0];
  const Answer wrong = ask(session, other, false);
  EXPECT_FALSE(wrong.right);
  EXPECT_LE(wrong.steps, static_cast<int64_t>(other.tokens.size()) - 2);
}

TEST(Session, SavesAndRestores) {
  const Model model(HATA_MODEL);
  const std::vector<Token> tokens = LlamaTokenizer(model.vocab()).encode("The grass is green.");
  Session a(model, {.n_ctx = 256, .threads = 1}), b(model, {.n_ctx = 256, .threads = 1});
  a.prefill(tokens);
  b.restore(a.save(), a.size());
  EXPECT_EQ(b.size(), a.size());
  EXPECT_EQ(b.save(), a.save());
  EXPECT_EQ(b.decode(tokens[0]), a.decode(tokens[0]));
}

TEST(Session, SaysWhatIsWrong) {
  EXPECT_THROW(Model("/no/such/model.gguf"), Error);
  const Model model(HATA_MODEL);
  Session session(model, {.n_ctx = 256, .threads = 1});
  EXPECT_THROW(session.prefill(std::vector<Token>(300, 5)), Error);
}

}  // namespace
}  // namespace hata::eval
