#!/usr/bin/env python3
"""Accuracy of the model with dense attention, per task and context length.

Contexts are prefilled once; each question is then answered over the cached keys
and values of its context. Scores, in percent:
  exact   questions whose answer tokens are all the most likely ones (the model
          is given the separators of the form; for the list tasks: the share of
          the asked words found, each answer being generated in turn)
  free    the same with the separators and the final line end produced as well,
          so that plain greedy generation gives the right text (list tasks: all
          asked words found)

Examples:
  python evaluate.py --model ../hata-tiny-25m-q8_0.gguf --lengths 1024,8192
  python evaluate.py --model work/run/checkpoint --out work/run/evaluation.json
"""

import argparse
import json
import math
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch

import tasks as T
from model import load_model

ROOM = 40  # tokens kept free for a question and its answer within the length
LISTS = ("common", "frequent")
LOGIT_BYTES = 3 << 30  # attention logits held at a time
PREFILL = 131072  # tokens prefilled at a time, one context at least


def contexts_of(task, length, questions):
    """(contexts, questions of each) that make up about `questions` in all."""
    if task in LISTS:
        return max(4, min(questions // 4, (1 << 21) // length)), 1
    contexts = max(4, min(64, (1 << 19) // length, questions // 8))
    return contexts, max(1, min(32, math.ceil(questions / contexts)))


def make_context(job):
    """Worker: one context of a cell (task, length) and its questions."""
    options, task, length, index, questions = job
    text = np.load(options["text"], mmap_mode="r")
    seed = [options["seed"], T.EVALUATION.index(task), length, index]
    made = T.Tasks(options["tokenizer"], options["words"], text, seed, numbered=options["numbered"])
    context, queries = made.evaluation(task, length - ROOM, questions)
    queries = (queries * math.ceil(questions / len(queries)))[:questions]
    return context, [(query.tokens, query.roles) for query in queries]


class Cell:
    """Cached keys and values of some contexts of one length, and questions.

    tokens, roles: [contexts, questions, suffix], padded at the end
    """

    def __init__(self, model, made, device):
        self.model, self.device = model, device
        self.length = len(made[0][0])
        suffix = max(len(tokens) for _, queries in made for tokens, _ in queries)
        shape = (len(made), len(made[0][1]), suffix)
        tokens, roles = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for b, (_, queries) in enumerate(made):
            for i, (ids, role) in enumerate(queries):
                tokens[b, i, : len(ids)] = ids
                roles[b, i, : len(ids)] = role
        self.tokens = torch.from_numpy(tokens).to(device)
        self.roles = torch.from_numpy(roles).to(device)
        context = torch.from_numpy(np.stack([ids for ids, _ in made]).astype(np.int64))
        self.keys, self.values = [], []

        def observe(_, k, v):
            self.keys.append(k.transpose(1, 2).contiguous())
            self.values.append(v.transpose(1, 2).contiguous())

        positions = torch.arange(self.length, device=device).expand(len(made), -1)
        model.trunk(context.to(device), positions, observe=observe, eager=True)

    def attend(self, layer, q, k, v):
        """Attention of suffix tokens over the cache and their own suffix.

        q [contexts * questions, suffix, heads, dim], k and v likewise.
        """
        contexts, questions, suffix = self.tokens.shape
        suffix = q.shape[1]
        keys, values = self.keys[layer].float(), self.values[layer].float()
        kv, dim = keys.shape[1], keys.shape[3]
        q = q.float().view(contexts, questions, suffix, kv, -1, dim)
        q = q.permute(0, 3, 1, 2, 4, 5) / math.sqrt(dim)  # [c, kv, n, s, g, d]
        group = q.shape[4]
        k, v = (
            x.float().view(contexts, questions, suffix, kv, dim).permute(0, 3, 1, 2, 4)
            for x in (k, v)
        )
        far = q.reshape(contexts, kv, -1, dim) @ keys.mT
        far = far.view(contexts, kv, questions, suffix, group, -1)
        near = q.reshape(contexts, kv, questions, suffix * group, dim) @ k.mT
        near = near.view(contexts, kv, questions, suffix, group, suffix)
        later = torch.ones(suffix, suffix, dtype=torch.bool, device=q.device).triu(1)
        near = near.masked_fill(later[:, None, :], -math.inf)
        weights = torch.cat((far, near), -1).softmax(-1)
        far, near = weights[..., : self.length], weights[..., self.length :]
        mixed = far.reshape(contexts, kv, -1, self.length) @ values
        mixed = mixed.view(contexts, kv, questions, suffix, group, dim)
        own = near.reshape(contexts, kv, questions, suffix * group, suffix) @ v
        mixed = mixed + own.view_as(mixed)
        mixed = mixed.permute(0, 2, 3, 1, 4, 5)
        return mixed.reshape(contexts * questions, suffix, -1).to(self.model.compute_type)

    def logits(self, tokens):
        """[contexts, questions, suffix, vocabulary] for suffix tokens."""
        contexts, questions, suffix = tokens.shape
        positions = self.length + torch.arange(suffix, device=self.device)
        x = self.model.trunk(
            tokens.reshape(-1, suffix),
            positions.expand(contexts * questions, -1),
            attention=self.attend,
            eager=True,
        )
        return self.model.logits(x).view(contexts, questions, suffix, -1)

    def score(self, task):
        """Per question: (exact, free), each [contexts * questions]."""
        if task in LISTS:
            return self.score_list()
        right = self.logits(self.tokens[..., :-1]).argmax(-1) == self.tokens[..., 1:]
        roles = self.roles[..., 1:]
        exact = (right | (roles < T.ANSWER)).all(-1)
        free = (right | (roles == T.PROMPT)).all(-1)
        return exact.flatten().float(), free.flatten().float()

    def score_list(self):
        """Generates each answer after the answers before it."""
        slots = torch.nonzero(self.roles[0, 0] >= T.ANSWER).flatten().tolist()
        tokens = self.tokens.clone()
        for slot in slots:
            tokens[..., slot] = self.logits(tokens[..., :slot])[..., -1, :].argmax(-1)
        truth, found = self.tokens[..., slots], tokens[..., slots]
        hit = (truth[..., :, None] == found[..., None, :]).any(-1).float()
        return hit.mean(-1).flatten(), hit.all(-1).float().flatten()


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="GGUF or checkpoint prefix")
    parser.add_argument("--lengths", default="1024,4096,8192,32768", help="tokens, by commas")
    parser.add_argument("--tasks", default=",".join(T.EVALUATION), help="names, by commas")
    parser.add_argument("--questions", type=int, default=512, help="per task and length")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds, then stop")
    parser.add_argument("--out", type=Path, help="JSON file of all scores")
    parser.add_argument("--tokenizer", type=Path, default=here / "tokenizer.json")
    parser.add_argument("--words", type=Path, default=here / "words.json")
    parser.add_argument("--text", type=Path, default=here / "work" / "held_out.npy")
    parser.add_argument("--unnumbered", action="store_true", help="plain list answers")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--seed", type=int, default=9999)
    args = parser.parse_args()
    if not args.text.exists():
        parser.error(f"{args.text} does not exist; run corpus.py and train_tokenizer.py first")
    lengths = [int(x) for x in args.lengths.split(",")]
    names = args.tasks.split(",")
    for name in names:
        if name not in T.EVALUATION:
            parser.error(f"unknown task {name}; known: {', '.join(T.EVALUATION)}")

    begun = time.time()
    options = {
        "tokenizer": args.tokenizer,
        "words": args.words,
        "text": args.text,
        "seed": args.seed,
        "numbered": not args.unnumbered,
    }
    cells = [(name, length) for length in lengths for name in names]
    jobs = []
    for name, length in cells:
        contexts, questions = contexts_of(name, length, args.questions)
        jobs += [(options, name, length, i, questions) for i in range(contexts)]
    torch.set_grad_enabled(False)
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        made = pool.imap(make_context, jobs, chunksize=2)  # in order, ahead of use
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_model(args.model).to(device)
        if device == "cpu":
            model.compute_type = torch.float32
        results = []
        for name, length in cells:
            contexts, questions = contexts_of(name, length, args.questions)
            taken = [next(made) for _ in range(contexts)]
            heads = model.config.heads
            fit = LOGIT_BYTES // (4 * heads * questions * ROOM * length)
            size = max(1, min(fit, PREFILL // length))
            scores = [
                Cell(model, taken[i : i + size], device).score(name)
                for i in range(0, contexts, size)
            ]
            exact, free = (torch.cat(column) for column in zip(*scores))
            entry = {
                "task": name,
                "length": length,
                "exact": round(100 * exact.mean().item(), 2),
                "free": round(100 * free.mean().item(), 2),
                "questions": exact.numel(),
                "contexts": contexts,
            }
            results.append(entry)
            print(
                f"{length:7d} {name:16s} exact {entry['exact']:6.2f} free {entry['free']:6.2f} "
                f"n {entry['questions']} [{time.time() - begun:.0f} s]",
                flush=True,
            )
            if args.out:
                args.out.write_text(json.dumps(results, indent=1) + "\n")
            if time.time() - begun > args.limit:
                print("time limit reached")
                break
        pool.terminate()

    by = {(entry["task"], entry["length"]): entry for entry in results}
    print(f"{'exact':17s}" + "".join(f"{length:>8d}" for length in lengths))
    for name in names:
        row = [by.get((name, length), {}).get("exact", math.nan) for length in lengths]
        print(f"{name:17s}" + "".join(f"{value:8.1f}" for value in row))
    means = []
    for length in lengths:
        values = [entry["exact"] for entry in results if entry["length"] == length]
        means.append(float(np.mean(values)) if len(values) == len(names) else math.nan)
    print(f"{'mean':17s}" + "".join(f"{value:8.1f}" for value in means))


if __name__ == "__main__":
    main()
