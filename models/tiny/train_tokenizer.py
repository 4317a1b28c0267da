#!/usr/bin/env python3
"""Train the model's tokenizer and encode the corpus with it.

A byte-level BPE of 4096 entries with the pre-tokenizer of Llama 3 (`llama-bpe`
in llama.cpp). Every number of one to three digits and every word of the word
list (with its leading space) is a single token, so that the synthetic tasks
have keys and values of known length: no merge is spent on digits, and listed
words which the merges do not yield are added whole. `ignore_merges` makes the
added entries reachable.

Output, next to this script: tokenizer.json and words.json (the 1200 most
frequent words of 4 to 9 letters, most frequent first). In the work folder:
train.npy and held_out.npy (uint16 token ids; each document starts with BOS).

Example:
  python train_tokenizer.py --work work
  python train_tokenizer.py --work work --encode-only   # keep the tokenizer
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

VOCABULARY = 4096
WORDS = 1200
SPECIALS = ("<|bos|>", "<|eos|>", "<|pad|>", "<|unused|>")
# pre-tokenizer of Llama 3: contractions, words, numbers of up to three digits,
# punctuation with its line ends, white space
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NUMBERS = (
    [str(i) for i in range(10, 100)]
    + [f"{i:02d}" for i in range(10)]
    + [f"{i:03d}" for i in range(1000)]
)
HELD_OUT = 0.03  # share of the documents kept from training


def frequent_words(texts: list[str]) -> list[str]:
    """The most frequent plain lower-case words, most frequent first."""
    count: Counter[str] = Counter()
    for text in texts:
        count.update(re.findall(r"(?<= )[a-z]{4,9}(?=[ ,.])", text))
    ranked = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in ranked[:WORDS]]


def train(texts: list[str], words: list[str]) -> Tokenizer:
    """BPE whose merges leave room for the numbers, words and special tokens."""
    room = VOCABULARY - len(NUMBERS) - len(SPECIALS)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=room,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((re.sub(r"\d+", " ", text) for text in texts), trainer)
    data = json.loads(bpe.to_str())
    ordered = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    merges = data["model"]["merges"]
    letters = ordered[: len(ordered) - len(merges)]

    # BPE is greedy, so its first n merges are the BPE of n merges: take as many
    # as leave room for the listed words that they do not yield themselves
    listed = ["\u0120" + word for word in words]
    for n in range(len(merges), -1, -1):
        vocabulary = dict.fromkeys(letters + ["".join(m) for m in merges[:n]])
        missing = [word for word in listed if word not in vocabulary]
        if len(vocabulary) + len(missing) <= room:
            break
    entries = list(vocabulary) + missing
    entries += [f"\u0120<unused{i}>" for i in range(room - len(entries))]
    entries += NUMBERS
    assert len(set(entries)) == len(entries) == VOCABULARY - len(SPECIALS)
    print(f"{len(letters)} bytes, {n} merges, {len(missing)} added words")

    data["model"].update(
        vocab={entry: i for i, entry in enumerate(entries)},
        merges=merges[:n],
        ignore_merges=True,
    )
    data["decoder"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIALS]
    )
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Token ids [n] (uint16) of all texts, each after a BOS."""
    bos = tokenizer.token_to_id("<|bos|>")
    parts = []
    for i in range(0, len(texts), 256):
        batch = tokenizer.encode_batch(texts[i : i + 256], add_special_tokens=False)
        parts += [np.array([bos] + item.ids, dtype=np.uint16) for item in batch]
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).resolve().parent
    parser.add_argument("--work", type=Path, default=here / "work", help="work folder")
    parser.add_argument("--out", type=Path, default=here, help="folder of tokenizer.json")
    parser.add_argument(
        "--encode-only", action="store_true", help="use the tokenizer that is in --out"
    )
    parser.add_argument("--suffix", default="", help="added to the names of the token files")
    args = parser.parse_args()

    with open(args.work / "corpus.jsonl", encoding="utf-8") as file:
        texts = [json.loads(line) for line in file]
    path = args.out / "tokenizer.json"
    if args.encode_only:
        tokenizer = Tokenizer.from_file(str(path))
    else:
        words = frequent_words(texts)
        tokenizer = train(texts, words)
        tokenizer.save(str(path))
        (args.out / "words.json").write_text(json.dumps(words) + "\n")
    for word in ("007", "42", "999"):
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1

    split = int(len(texts) * (1 - HELD_OUT))
    for name, part in (("train", texts[:split]), ("held_out", texts[split:])):
        tokens = encode(tokenizer, part)
        np.save(args.work / f"{name}{args.suffix}.npy", tokens)
        rate = sum(map(len, part)) / len(tokens)
        print(f"{name}: {len(tokens) / 1e6:.2f} M tokens, {rate:.2f} characters per token")


if __name__ == "__main__":
    main()
