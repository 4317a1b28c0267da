#!/usr/bin/env python3
"""Synthetic long-context tasks: training rows and evaluation contexts.

Everything is built from token ids, so that keys and values have known lengths:
numbers of three digits and the words of words.json are single tokens. The text
of a row, decoded, encodes to the same ids again, except where the filler is cut
(its last line) and where random slices of natural text begin or end.

Text forms (W, X, Y: words; N: six digits, two tokens):
  needle        The special number for W is: N.
                Q: special number for W?\\nA: N
  multi-key     the same with keys of two words
  multi-value   several facts of one W; Q: all special numbers for W?\\nA: N, N, N, N
  key-value     key W X: N            get W X: N
  id            id N9 = N9            find N9 = N9        (N9: nine digits)
  tracing       let W = N, let X = W  vars equal N: W X ...
  recall        W -> X                ? W => X
  passage       passage N3: 16 words  repeat N3: 16 words (N3: three digits)
  quote         quote: six tokens of the context, then the sixteen that follow
  copy          copy: tokens          paste: tokens
  common words  words: list           common: 1 W 2 X ... (each 8 to 20 times as
                                      frequent as the others, in any order)
  frequent      coded: list           frequent: 1 W 2 X 3 Y (most frequent first)

Example (prints one evaluation context with its first question):
  python tasks.py --task multi_value --length 400 --filler noise
"""

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

NOISE = (
    "The grass is green. The sky is blue. The sun is yellow. " "Here we go. There and back again.\n"
)
MAX_POSITION = 131072

# what a token is to the loss and to the evaluation
PROMPT, SEPARATOR, TEXT, ANSWER, VALUES, COMMON, FREQUENT = range(7)
ROLES = ("prompt", "separator", "text", "answer", "values", "common", "frequent")

TEXT_WEIGHT = 0.05  # natural text: enough to stay fluent
TEXT_LENGTH = 1024  # in longer rows text would drown the few answers: weigh it less
SEPARATOR_SHARE = 0.25  # of an answer's weight: makes free generation keep the form

FACTS = ("needle", "multi_key", "multi_value", "key_value", "id", "tracing", "recall", "passage")

EVALUATION = (
    "needle",
    "multi_key",
    "multi_key_dense",
    "id",
    "id_hard",
    "key_value",
    "key_value_hard",
    "multi_value",
    "tracing_2",
    "tracing_4",
    "recall",
    "passage",
    "quote",
    "common",
    "frequent",
)


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of rows and of facts, and the weight of list answers."""

    rows: dict[str, float] = field(
        default_factory=lambda: {
            "facts": 0.50,
            "recall": 0.04,
            "copy": 0.05,
            "text": 0.12,
            "common": 0.16,
            "frequent": 0.13,
        }
    )
    facts: tuple[float, ...] = (0.09, 0.12, 0.24, 0.13, 0.12, 0.14, 0.06, 0.10)
    list_weight: float = 6.0  # per answer, up to 1024 tokens; more in longer rows


@dataclass(frozen=True)
class Marked:
    """A part of a question that the model has to produce, with its role."""

    part: object  # str, or token ids [n, m]
    role: int = ANSWER


@dataclass
class Query:
    """A question and its answer: token ids [n] and roles [n]."""

    tokens: np.ndarray
    roles: np.ndarray


@dataclass
class Row:
    """Token ids [n] (int32), loss weights [n] (float32) and roles [n] (int8)."""

    tokens: np.ndarray
    weights: np.ndarray
    roles: np.ndarray


class Tasks:
    """Makes rows and contexts with one random generator.

    tokenizer, words: paths of tokenizer.json and words.json
    text: token ids [n] of natural text
    numbered: number the answers of the two list tasks; without numbers the
        answers follow one another directly (for models trained that way)
    """

    def __init__(self, tokenizer, words, text, seed, mix=None, numbered=True):
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.rng = np.random.default_rng(seed)
        self.text_tokens = text
        self.mix = mix or Mix()
        self.numbered = numbered
        vocabulary = self.tokenizer.get_vocab()
        self.vocabulary_size = len(vocabulary)
        self.numbers = np.array([vocabulary[f"{i:03d}"] for i in range(1000)], np.int32)
        # the most frequent words are left to natural text
        listed = json.loads(Path(words).read_text())[90:]
        self.words = np.array([vocabulary["\u0120" + word] for word in listed], np.int32)
        self.bos = vocabulary["<|bos|>"]
        self.ends_line = np.zeros(self.vocabulary_size, bool)
        for entry, i in vocabulary.items():
            self.ends_line[i] = entry.endswith("\u010a")
        self._encoded: dict[str, np.ndarray] = {}

    # ---------------------------------------------------------------- pieces

    def encode(self, text: str) -> np.ndarray:
        """Token ids [n] of a template text (cached)."""
        if text not in self._encoded:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            self._encoded[text] = np.array(ids, np.int32)
        return self._encoded[text]

    def columns(self, n: int, *parts) -> np.ndarray:
        """Token ids [n, m]: texts are repeated, arrays [n, k] are set beside them."""
        blocks = [self.columns_of(n, part) for part in parts]
        return np.concatenate(blocks, axis=1)

    def columns_of(self, n: int, part) -> np.ndarray:
        if isinstance(part, Marked):
            part = part.part
        if isinstance(part, str):
            ids = self.encode(part)
            return np.broadcast_to(ids, (n, len(ids)))
        return part

    def queries(self, n: int, *parts) -> list[Query]:
        """n questions of one form; only Marked parts are to be produced."""
        tokens = self.columns(n, *parts)
        roles = np.concatenate(
            [
                np.full(
                    self.columns_of(n, part).shape[1],
                    part.role if isinstance(part, Marked) else PROMPT,
                    np.int8,
                )
                for part in parts
            ]
        )
        return [Query(line, roles) for line in tokens]

    def random_numbers(self, n: int, size: int = 2) -> np.ndarray:
        """[n, size] tokens of three digits each."""
        return self.numbers[self.rng.integers(0, 1000, (n, size))]

    def random_words(self, n: int, size: int = 1) -> np.ndarray:
        return self.words[self.rng.integers(0, len(self.words), (n, size))]

    def distinct_words(self, n: int) -> np.ndarray:
        """[n, 1] words, none twice."""
        return self.words[self.rng.permutation(len(self.words))[:n]][:, None]

    def natural(self, n: int) -> np.ndarray:
        """n consecutive tokens of natural text."""
        start = self.rng.integers(0, len(self.text_tokens) - n)
        return np.asarray(self.text_tokens[start : start + n]).astype(np.int32)

    def word_pairs(self, n: int, hard: bool) -> np.ndarray:
        """[n, 2] keys; hard: each shares one word with about sqrt(2 n) others."""
        if not hard:
            return self.random_words(n, 2)
        pool = max(4, math.ceil(math.sqrt(2 * n)))
        words = self.distinct_words(pool)[:, 0]
        pick = self.rng.permutation(pool * pool)[:n]
        return np.stack([words[pick // pool], words[pick % pool]], axis=1)

    def number_triples(self, n: int, hard: bool) -> np.ndarray:
        """[n, 3] keys; hard: drawn from a small grid, so that parts are shared."""
        if not hard:
            return self.random_numbers(n, 3)
        pool = max(3, math.ceil((2 * n) ** (1 / 3)))
        parts = self.numbers[self.rng.integers(0, 1000, (3, pool))]
        pick = self.rng.permutation(pool**3)[:n]
        digits = (pick // (pool * pool), pick // pool % pool, pick % pool)
        return np.stack([part[digit] for part, digit in zip(parts, digits)], axis=1)

    # ----------------------------------------------------------------- facts

    def fact_length(self, kind: str, hops: int = 4, values: int = 4) -> int:
        """Tokens of one fact (or of one group of facts) of a kind."""
        size = lambda text: len(self.encode(text))
        needle = size("The special number for") + size(" is:") + size(" ") + size(".\n") + 3
        first = size("let") + size(" =") + size(" ") + size("\n") + 3
        step = size("let") + size(" =") + size("\n") + 2
        return {
            "needle": needle,
            "multi_key": needle + 1,
            "multi_value": needle * values,
            "key_value": size("key") + size(":") + size(" ") + size("\n") + 4,
            "id": size("id") + size(" =") + 2 * size(" ") + size("\n") + 6,
            "tracing": first + hops * step,
            "recall": size(" ->") + size("\n") + 2,
            "passage": size("passage") + size(" ") + size(":") + size("\n") + 17,
        }[kind]

    def facts(self, kind, n, questions, hops=4, values=4, hard=False):
        """n facts (or groups) of a kind, and questions about some of them.

        Returns a list of (place in [0, 1), token ids) and a list of Query.
        """
        rng = self.rng
        n = min(n, {"tracing": len(self.words) // (hops + 1), "passage": 1000}.get(kind, n))
        if kind in ("needle", "multi_value", "recall"):
            n = min(n, len(self.words))
        if questions <= n:
            chosen = rng.permutation(n)[:questions]
        else:
            chosen = rng.integers(0, n, questions)
        end = Marked("\n", SEPARATOR)
        space = Marked(" ", SEPARATOR)
        if kind == "multi_value":
            return self._multi_value(n, chosen, values)
        if kind == "tracing":
            return self._tracing(n, chosen, hops)

        if kind in ("needle", "multi_key"):
            key = self.distinct_words(n) if kind == "needle" else self.word_pairs(n, hard)
            value = self.random_numbers(n)
            lines = self.columns(n, "The special number for", key, " is:", " ", value, ".\n")
            form = ["Q: special number for", key, "?\nA:", space, Marked(value), end]
        elif kind == "key_value":
            key, value = self.word_pairs(n, hard), self.random_numbers(n)
            lines = self.columns(n, "key", key, ":", " ", value, "\n")
            form = ["get", key, ":", space, Marked(value), end]
        elif kind == "id":
            key, value = self.number_triples(n, hard), self.random_numbers(n, 3)
            lines = self.columns(n, "id", " ", key, " =", " ", value, "\n")
            form = ["find ", key, " =", space, Marked(value), end]
        elif kind == "recall":
            key, value = self.distinct_words(n), self.random_words(n)
            lines = self.columns(n, key, " ->", value, "\n")
            form = ["?", key, " =>", Marked(value), end]
        elif kind == "passage":
            key = self.numbers[rng.permutation(1000)[:n]][:, None]
            value = self.random_words(n, 16)
            lines = self.columns(n, "passage", " ", key, ":", value, "\n")
            form = ["repeat ", key, ":", Marked(value), end]
        else:
            raise ValueError(f"unknown kind of fact: {kind}")

        def select(part):
            if isinstance(part, Marked) and not isinstance(part.part, str):
                return Marked(part.part[chosen], part.role)
            return part if isinstance(part, (str, Marked)) else part[chosen]

        return (
            list(zip(rng.random(n), lines)),
            self.queries(len(chosen), *map(select, form)),
        )

    def _multi_value(self, n, chosen, values):
        key = self.distinct_words(n)
        value = self.random_numbers(n * values).reshape(n, values, 2)
        place = np.sort(self.rng.random((n, values)), axis=1)
        lines = self.columns(
            n * values,
            "The special number for",
            np.repeat(key, values, axis=0),
            " is:",
            " ",
            value.reshape(-1, 2),
            ".\n",
        )
        form = ["Q: all special numbers for", key[chosen], "?\nA:"]
        for j in range(values):
            form += [Marked(" ", SEPARATOR), Marked(value[chosen, j], VALUES)]
            form += [Marked("," if j < values - 1 else "\n", SEPARATOR)]
        return list(zip(place.reshape(-1), lines)), self.queries(len(chosen), *form)

    def _tracing(self, n, chosen, hops):
        word = self.distinct_words(n * (hops + 1)).reshape(n, hops + 1)
        value = self.random_numbers(n)
        place = np.sort(self.rng.random((n, hops + 1)), axis=1)
        facts = list(zip(place[:, 0], self.columns(n, "let", word[:, :1], " =", " ", value, "\n")))
        for h in range(1, hops + 1):
            step = self.columns(n, "let", word[:, h : h + 1], " =", word[:, h - 1 : h], "\n")
            facts += list(zip(place[:, h], step))
        return facts, self.queries(
            len(chosen),
            "vars equal",
            " ",
            value[chosen],
            ":",
            Marked(word[chosen]),
            Marked("\n", SEPARATOR),
        )

    def haystack(self, filler, facts, length):
        """A context of exactly `length` tokens that holds all facts in order.

        filler: "noise" (one repeated line) or "text". Facts stand at line ends.
        Returns token ids [length] and which of them are natural text [length].
        """
        facts = sorted(facts, key=lambda fact: fact[0])
        room = length - sum(len(tokens) for _, tokens in facts)
        if room < 0:
            raise ValueError(f"facts exceed the context by {-room} tokens")
        natural = filler == "text"
        if natural and room:
            hay = self.natural(room)
        else:
            noise = self.encode(NOISE)
            hay = np.tile(noise, room // len(noise) + 1)[:room].copy()
        if room:
            hay[-1] = self.encode("\n")[0]
        ends = np.flatnonzero(self.ends_line[hay]) + 1
        place = np.array([fact[0] for fact in facts])
        if len(ends):
            at = ends[np.minimum((place * len(ends)).astype(int), len(ends) - 1)]
        else:
            at = np.zeros(len(facts), int)
        tokens, is_text, last = [], [], 0
        for position, (_, fact) in zip(at, facts):
            if position > last:
                tokens.append(hay[last:position])
                is_text.append(np.full(position - last, natural))
                last = position
            tokens.append(fact)
            is_text.append(np.zeros(len(fact), bool))
        tokens.append(hay[last:])
        is_text.append(np.full(room - last, natural))
        return np.concatenate(tokens), np.concatenate(is_text)

    def quotes(self, context, is_text, n, prefix=6, answer=16):
        """n questions that continue a passage of the context's natural text."""
        run = np.convolve(is_text, np.ones(prefix + answer), "valid")
        starts = np.flatnonzero(run > prefix + answer - 0.5)
        if len(starts) == 0:
            return []
        starts = self.rng.choice(starts, n)
        window = context[starts[:, None] + np.arange(prefix + answer)]
        end = Marked("\n", SEPARATOR)
        return self.queries(n, "quote:", window[:, :prefix], Marked(window[:, prefix:]), end)

    # ----------------------------------------------------------------- lists

    def common_list(self, length, answers=5, ratio=10):
        """A word list of `length` tokens and its most frequent words [answers].

        Each answer occurs `ratio` times as often as any other word.
        """
        head = self.encode("words:")
        n = length - len(head) - 1
        rare = max(int(self.rng.integers(1, 4)), math.ceil(n / (900 + ratio * answers)))
        often = min(ratio * rare, n // 2 // answers)
        words = self.distinct_words(len(self.words))[:, 0]
        others = math.ceil((n - answers * often) / rare)
        body = np.concatenate(
            [
                np.repeat(words[:answers], often),
                np.repeat(words[answers : answers + others], rare)[: n - answers * often],
            ]
        )
        self.rng.shuffle(body)
        return np.concatenate([head, body, self.encode("\n")]), words[:answers]

    def frequent_list(self, length, answers=3):
        """A word list with frequencies 1 / rank^2, and its most frequent words."""
        head = self.encode("coded:")
        n = length - len(head) - 1
        size = min(1000, max(20, n // 20))
        share = 1 / np.arange(1, size + 1) ** 2.0
        share /= share.sum()
        while True:  # the answers must be ranked without ties
            count = self.rng.multinomial(n, share)
            order = np.argsort(-count, kind="stable")
            if (np.diff(count[order][: answers + 1]) < 0).all():
                break
        words = self.distinct_words(size)[:, 0]
        body = np.repeat(words, count)
        self.rng.shuffle(body)
        return np.concatenate([head, body, self.encode("\n")]), words[order[:answers]]

    def list_query(self, kind, answers) -> Query:
        """The question of a list task; `answers` are word ids [n]."""
        form: list = ["common:" if kind == "common" else "frequent:"]
        role = COMMON if kind == "common" else FREQUENT
        for i, word in enumerate(answers):
            if self.numbered:
                form += [Marked(" ", SEPARATOR), Marked(str(i + 1), SEPARATOR)]
            form.append(Marked(np.array([[word]], np.int32), role))
        return self.queries(1, *form, Marked("\n", SEPARATOR))[0]

    # ------------------------------------------------------------------ rows

    def _close(self, parts, length) -> Row:
        """Join (tokens, weights, roles) after a BOS; natural text fills the rest."""
        rest = length - 1 - sum(len(part[0]) for part in parts)
        parts = [(np.array([self.bos], np.int32), np.zeros(1), np.zeros(1, np.int8))] + parts
        if rest:
            parts = parts + [self._text_part(rest)]
        tokens, weights, roles = (np.concatenate(column) for column in zip(*parts))
        weights[roles == TEXT] *= min(1.0, math.sqrt(TEXT_LENGTH / length))
        return Row(tokens, weights.astype(np.float32), roles.astype(np.int8))

    def _text_part(self, n):
        return self.natural(n), np.full(n, TEXT_WEIGHT), np.full(n, TEXT, np.int8)

    @staticmethod
    def _weigh(roles, answer_weight):
        """Loss weights of a question's tokens."""
        weights = np.where(roles >= ANSWER, answer_weight, 0.0)
        return np.where(roles == SEPARATOR, SEPARATOR_SHARE * answer_weight, weights)

    @staticmethod
    def _answer_weight(answers):
        """Weight of one answer token: rows with few answers count for more."""
        return min(3.0, max(0.2, 8 / math.sqrt(max(1, answers))))

    def facts_row(self, length) -> Row:
        """Facts of one or two kinds hidden in noise, text or other facts."""
        rng = self.rng
        filler = rng.choice(["noise", "text", "facts"], p=[0.25, 0.35, 0.4])
        kinds = rng.choice(FACTS, rng.integers(1, 3), replace=False, p=self.mix.facts)
        hops = int(rng.integers(1, 5))
        values = int(rng.choice([2, 3, 4], p=[0.2, 0.2, 0.6]))
        budget = int(min(length * rng.uniform(0.12, 0.4), 2500))  # tokens of questions
        size = length - 1 - budget
        share = 0.97 * size
        if filler != "facts":
            share = size * math.exp(rng.uniform(math.log(0.03), math.log(0.35)))
        facts, queries = [], []
        for kind in kinds:
            n = max(1, int(share / len(kinds) / self.fact_length(kind, hops, values)))
            hard = rng.random() < 0.4
            f, q = self.facts(kind, n, max(2, budget // 10), hops, values, hard)
            facts += f
            queries += q
        total = sum(len(tokens) for _, tokens in facts)
        while total > size:  # rare: short rows
            total -= len(facts.pop()[1])
        context, is_text = self.haystack("text" if filler == "text" else "noise", facts, size)
        if filler == "text" and rng.random() < 0.6:
            queries += self.quotes(context, is_text, max(1, budget // 60))
        taken, left = [], budget
        for i in rng.permutation(len(queries)):
            if len(queries[i].tokens) <= left:
                taken.append(queries[i])
                left -= len(queries[i].tokens)
        answers = sum(int((query.roles >= ANSWER).sum()) for query in taken)
        weight = self._answer_weight(answers)
        parts = [(context, is_text * TEXT_WEIGHT, is_text.astype(np.int8) * TEXT)]
        parts += [(q.tokens, self._weigh(q.roles, weight), q.roles) for q in taken]
        return self._close(parts, length)

    def recall_row(self, length) -> Row:
        """Word pairs that recur: every recurrence is to be predicted."""
        top = min(900, length / 8)
        n = int(math.exp(self.rng.uniform(math.log(8), math.log(top))))
        key, value = self.distinct_words(n)[:, 0], self.random_words(n)[:, 0]
        count = (length - 1) // 3
        pick = self.rng.integers(0, n, count)
        again = np.ones(count, bool)
        again[np.unique(pick, return_index=True)[1]] = False
        comma = np.full(count, self.encode(",")[0])
        zero = np.zeros(count)
        tokens = np.stack([key[pick], value[pick], comma], axis=1).reshape(-1)
        known = np.stack([zero, again, zero], axis=1).reshape(-1)
        weights = known * self._answer_weight(again.sum())
        return self._close([(tokens, weights, (known * ANSWER).astype(np.int8))], length)

    def copy_row(self, length) -> Row:
        """Words or natural text to be copied."""
        rng, left = self.rng, length - 1
        long = rng.random() < 0.4
        queries = []
        while left > 24:
            if long:
                n = int((left - 12) / 2 * rng.uniform(0.5, 1))
            else:
                n = int(rng.integers(4, min(200, (left - 12) // 2 + 1)))
            body = self.random_words(n).T if rng.random() < 0.5 else self.natural(n)[None]
            end = Marked("\n", SEPARATOR)
            queries += self.queries(1, "copy:", body, "\npaste:", Marked(body), end)
            left -= len(queries[-1].tokens)
        weight = self._answer_weight(sum(int((q.roles >= ANSWER).sum()) for q in queries))
        parts = [(q.tokens, self._weigh(q.roles, weight), q.roles) for q in queries]
        return self._close(parts, length)

    def list_row(self, length, kind) -> Row:
        """Word lists, each followed by the question for its frequent words."""
        rng, room = self.rng, length - 1
        weight = self.mix.list_weight * min(3.0, max(1.0, math.sqrt(length / 1024)))
        count = 1 if rng.random() < 0.6 else int(rng.integers(2, 5))
        cuts = np.sort(rng.integers(0, room, count - 1))
        parts = []
        for size in np.diff(np.concatenate([[0], cuts, [room]])):
            if size < 100:  # too short for frequencies to mean much
                parts.append(self._text_part(int(size)))
                continue
            if kind == "common":
                answers = int(
                    rng.choice([1, 2, 3, 4, 5, 6, 8], p=[0.1, 0.1, 0.1, 0.1, 0.4, 0.1, 0.1])
                )
                ratio = int(rng.choice([8, 10, 15, 20], p=[0.1, 0.6, 0.2, 0.1]))
            else:
                answers = 3
            query = self.list_query(kind, np.zeros(answers, np.int32))
            context = int(size) - len(query.tokens)
            if kind == "common":
                tokens, words = self.common_list(context, answers, ratio)
                words = rng.permutation(words)
            else:
                tokens, words = self.frequent_list(context, answers)
            query = self.list_query(kind, words)
            weights = self._weigh(query.roles, weight)
            empty = np.zeros(len(tokens))
            parts.append((tokens, empty, empty.astype(np.int8)))
            parts.append((query.tokens, weights, query.roles))
        return self._close(parts, length)

    def row(self, length) -> Row:
        """One training row of `length` tokens, of a kind drawn from the mix."""
        kinds = list(self.mix.rows)
        kind = kinds[self.rng.choice(len(kinds), p=list(self.mix.rows.values()))]
        if kind in ("common", "frequent"):
            row = self.list_row(length, kind)
        elif kind == "text":
            row = self._close([], length)
        else:
            row = getattr(self, f"{kind}_row")(length)
        assert len(row.tokens) == len(row.weights) == len(row.roles) == length, kind
        return row

    def positions(self, length, jump_share) -> np.ndarray:
        """Positions [length]; in a share of the rows with 1 to 5 random jumps.

        The jumps stretch a short row over up to MAX_POSITION positions, so that
        short rows train far distances.
        """
        rng, positions = self.rng, np.arange(length)
        if length >= MAX_POSITION or rng.random() > jump_share:
            return positions
        span = math.exp(rng.uniform(math.log(length), math.log(MAX_POSITION)))
        n = int(rng.integers(1, 6))
        gaps = rng.dirichlet(np.ones(n + 1))[:n] * (span - length)
        steps = np.zeros(length, np.int64)
        np.add.at(steps, rng.integers(0, length, n), gaps.astype(np.int64))
        return positions + np.cumsum(steps)

    def batch(self, rows, length, jump_share):
        """Arrays of a training batch.

        Returns tokens [rows, length + 1] int32, and for the targets
        tokens[:, 1:]: weights [rows, length] float32 and roles [rows, length]
        int8; and positions [rows, length] int32.
        """
        made = [self.row(length + 1) for _ in range(rows)]
        tokens = np.stack([row.tokens for row in made]).astype(np.int32)
        weights = np.stack([row.weights[1:] for row in made])
        roles = np.stack([row.roles[1:] for row in made])
        weights[tokens[:, 1:] == self.bos] = 0  # where a new document starts
        positions = np.stack([self.positions(length, jump_share) for _ in made])
        return tokens, weights, roles, positions.astype(np.int32)

    # ------------------------------------------------------------ evaluation

    def evaluation(self, task, length, questions, filler=None):
        """A context of exactly `length` tokens (BOS included) and its questions."""
        size = length - 1
        if task in ("common", "frequent"):
            make = self.common_list if task == "common" else self.frequent_list
            context, words = make(size)
            return np.concatenate([[self.bos], context]), [self.list_query(task, words)]

        def full(kind):  # as many facts as fit
            return max(1, int(0.97 * size) // self.fact_length(kind))

        q = questions
        groups = min(q, max(1, size // 2 // self.fact_length("multi_value")))
        some = max(q, min(64, full("multi_key") // 3))
        hay, kind, n, options = {
            "needle": ("noise", "needle", q, {}),
            "multi_key": ("text", "multi_key", some, {}),
            "multi_key_dense": ("noise", "multi_key", full("multi_key"), {}),
            "id": ("noise", "id", full("id"), {}),
            "id_hard": ("noise", "id", full("id"), {"hard": True}),
            "key_value": ("noise", "key_value", full("key_value"), {}),
            "key_value_hard": ("noise", "key_value", full("key_value"), {"hard": True}),
            "multi_value": ("text", "multi_value", groups, {}),
            "tracing_2": ("noise", "tracing", min(q, full("tracing")), {"hops": 2}),
            "tracing_4": ("noise", "tracing", min(q, full("tracing")), {"hops": 4}),
            "recall": ("text", "recall", min(full("recall") // 2, 1000), {}),
            "passage": ("text", "passage", min(full("passage"), 400), {}),
            "quote": ("text", "multi_key", 2, {}),
        }[task]
        facts, queries = self.facts(kind, n, q, **options)
        context, is_text = self.haystack(filler or hay, facts, size)
        if task == "quote":
            queries = self.quotes(context, is_text, q)
        return np.concatenate([[self.bos], context]), queries


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=EVALUATION, default="needle")
    parser.add_argument("--length", type=int, default=400, help="tokens of the context")
    parser.add_argument("--filler", choices=("noise", "text"), help="instead of the task's own")
    parser.add_argument("--tokenizer", type=Path, default=here / "tokenizer.json")
    parser.add_argument("--words", type=Path, default=here / "words.json")
    parser.add_argument("--text", type=Path, default=here / "work" / "held_out.npy")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.text.exists():
        text = np.load(args.text, mmap_mode="r")
    else:
        args.filler = "noise"
        text = np.zeros(0, np.uint16)
    tasks = Tasks(args.tokenizer, args.words, text, args.seed)
    context, queries = tasks.evaluation(args.task, args.length, 4, args.filler)
    query = queries[0]
    first = int(np.argmax(query.roles > PROMPT))
    decode = lambda ids: tasks.tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)
    print(decode(context[1:]) + decode(query.tokens[:first]), end="")
    print("[" + decode(query.tokens[first:]).rstrip("\n") + "]")


if __name__ == "__main__":
    main()
