#!/usr/bin/env python3
"""Train the bundled model within a fixed time on one GPU.

Muon updates the matrices, AdamW the embedding and the norms. Every step has the
same number of tokens; the rows grow from 512 to 131072 tokens as time passes.

Output, in --out: checkpoint.N.npz (float16), train.log, train.json.

Examples:
  python train.py --seconds 440 --out work/run
  python train.py --smoke --out work/smoke      # a few steps on any machine
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

import tasks as T
from model import MATRICES, NORMS, Config, Llama, causal_attention, save_checkpoint

# (end of the phase as a share of the time, {tokens of a row: share of the steps})
CURRICULUM = (
    (0.12, {512: 1.0}),
    (0.24, {512: 0.3, 1024: 0.7}),
    (0.40, {1024: 0.3, 2048: 0.7}),
    (0.55, {1024: 0.15, 2048: 0.25, 4096: 0.6}),
    (0.72, {1024: 0.1, 2048: 0.2, 8192: 0.7}),
    (1.00, {1024: 0.1, 2048: 0.15, 8192: 0.25, 32768: 0.45, 131072: 0.05}),
)
SMOKE = ((0.5, {256: 1.0}), (1.0, {512: 1.0}))
WARM_UP = 40  # steps
DECAY = 0.35  # share of the time over which the learning rate falls


class Batches(torch.utils.data.IterableDataset):
    """Endless training batches; each worker has its own random generator."""

    def __init__(self, args, started):
        self.args = args
        self.started = started  # shared tensor: time at which training began, or 0

    def __iter__(self):
        torch.set_num_threads(1)
        args = self.args
        info = torch.utils.data.get_worker_info()
        worker = info.id if info else 0
        text = np.load(args.text, mmap_mode="r")
        made = T.Tasks(args.tokenizer, args.words, text, [args.seed, worker, 0])
        rng = np.random.default_rng([args.seed, worker, 1])
        while True:
            started = self.started.item()
            progress = (time.time() - started) / args.seconds if started else 0.0
            phase = next((s for end, s in args.curriculum if progress < end), None)
            phase = phase or args.curriculum[-1][1]
            length = int(rng.choice(list(phase), p=list(phase.values())))
            jumps = 0.3 if progress < args.curriculum[0][0] else 0.5
            arrays = made.batch(args.tokens // length, length, jumps)
            yield length, *map(torch.from_numpy, arrays)


def orthogonalise(update):
    """Nearest semi-orthogonal matrices of update [n, a, b], by Newton-Schulz."""
    x = update.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Momentum whose update of each matrix [layers, out, in] is orthogonalised."""

    def __init__(self, parameters, rate, decay, transform):
        self.parameters = list(parameters)
        self.rate, self.decay, self.transform = rate, decay, transform
        self.momenta = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, scale, momentum):
        rate = self.rate * scale
        for p, m in zip(self.parameters, self.momenta):
            m.lerp_(p.grad, 1 - momentum)
            update = self.transform(p.grad.lerp(m, momentum))
            p.mul_(1 - rate * self.decay)
            p.add_(update, alpha=-rate * max(1.0, p.shape[1] / p.shape[2]) ** 0.5)


def choose_attention(device, say):
    """Use cuDNN's attention if it works here (it is the faster one), else flash."""
    if device != "cuda":
        return "default"
    cuda = torch.backends.cuda
    for name in ("cudnn", "flash"):
        cuda.enable_cudnn_sdp(name == "cudnn")
        cuda.enable_flash_sdp(name == "flash")
        cuda.enable_mem_efficient_sdp(False)
        cuda.enable_math_sdp(False)
        try:
            q = torch.randn(1, 512, 8, 128, device=device, dtype=torch.bfloat16)
            q.requires_grad_()
            causal_attention(q, q[:, :, :2], q[:, :, :2]).sum().backward()
            return name
        except RuntimeError as error:
            say(f"{name} attention is not available: {str(error)[:120]}")
    raise SystemExit("no fused attention is available on this GPU")


@torch.no_grad()
def summarise(loss, roles):
    """Per role: number of tokens, summed loss, tokens with probability > 1/2."""
    flat = roles.reshape(-1).long()
    columns = torch.stack((torch.ones_like(loss), loss, (loss < np.log(2)).float()))
    table = torch.zeros(3, len(T.ROLES), device=loss.device)
    return table.index_add_(1, flat, columns)


def report(table):
    """'role loss/share of tokens with probability > 1/2' for the roles present."""
    count, loss, likely = table.tolist()
    return " ".join(
        f"{name} {loss[i] / count[i]:.3f}/{likely[i] / count[i]:.2f}"
        for i, name in enumerate(T.ROLES)
        if name != "prompt" and count[i]
    )


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=here / "work" / "run")
    parser.add_argument("--seconds", type=float, default=440, help="time of training")
    parser.add_argument("--tokens", type=int, default=131072, help="tokens of a step")
    parser.add_argument("--workers", type=int, default=13, help="processes that make rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate of Muon")
    parser.add_argument("--decay", type=float, default=0.03, help="weight decay of Muon")
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--tokenizer", type=Path, default=here / "tokenizer.json")
    parser.add_argument("--words", type=Path, default=here / "words.json")
    parser.add_argument("--text", type=Path, default=here / "work" / "train.npy")
    parser.add_argument("--smoke", action="store_true", help="a tiny run that checks the code")
    args = parser.parse_args()
    for path in (args.tokenizer, args.words, args.text):
        if not path.exists():
            parser.error(f"{path} does not exist; run corpus.py and train_tokenizer.py first")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = Config()
    args.curriculum = CURRICULUM
    if args.smoke:
        config = Config(layers=2)
        args.curriculum, args.tokens = SMOKE, 2048
        args.workers, args.seconds = 1, min(args.seconds, 20)
    elif device == "cpu":
        parser.error("training needs a GPU; --smoke checks the code without one")

    begun = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    log = open(args.out / "train.log", "w", encoding="utf-8")

    def say(line):
        print(line, flush=True)
        print(line, file=log, flush=True)

    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    started = torch.zeros((), dtype=torch.float64).share_memory_()
    loader = torch.utils.data.DataLoader(
        Batches(args, started),
        batch_size=None,
        num_workers=args.workers,
        prefetch_factor=2,
        pin_memory=device == "cuda",
    )
    batches = iter(loader)
    model = Llama(config).to(device)
    size = sum(p.numel() for p in model.parameters())
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    say(f"{size / 1e6:.2f} M parameters, {name}, attention {choose_attention(device, say)}")
    transform = orthogonalise
    if device == "cuda":
        model.compile_blocks()
        transform = torch.compile(orthogonalise, dynamic=False)
    else:
        model.compute_type = torch.float32
    matrices = [getattr(model, name) for name in MATRICES]
    others = [model.embedding] + [getattr(model, name) for name in NORMS]
    muon = Muon(matrices, args.rate, args.decay, transform)
    adam = torch.optim.AdamW(
        others, lr=args.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=device == "cuda"
    )

    def step(batch, scale, momentum):
        length, *arrays = batch
        tokens, weights, roles, positions = (a.to(device, non_blocking=True) for a in arrays)
        loss, each = model.loss(tokens.long(), weights, positions)
        loss.backward()
        muon.step(scale, momentum)
        for group in adam.param_groups:
            group["lr"] = args.adam_rate * scale
        adam.step()
        model.zero_grad(set_to_none=True)
        return length, summarise(each, roles)

    for _ in range(2):  # compile, with steps too small to matter
        step(next(batches), 1e-8, 0.9)
    if device == "cuda":
        torch.cuda.synchronize()
    say(f"ready after {time.time() - begun:.1f} s")

    started.fill_(time.time())
    start = shown = time.time()
    steps, waited, recent = 0, 0.0, []
    every = 10 if args.seconds > 60 else 4
    while (progress := (time.time() - start) / args.seconds) < 1:
        before = time.time()
        batch = next(batches)
        waited += time.time() - before
        scale = min(1.0, (steps + 1) / WARM_UP) * min(1.0, max(0.02, (1 - progress) / DECAY))
        recent.append(step(batch, scale, min(0.95, 0.85 + steps / 3000)))
        steps += 1
        if device == "cuda" and steps % 8 == 0:
            torch.cuda.synchronize()  # keeps the clock honest
        if time.time() - shown > every:
            if device == "cuda":
                torch.cuda.synchronize()
            now = time.time()
            speed = len(recent) * args.tokens / (now - shown) / 1e3
            say(
                f"{now - start:6.1f} s  step {steps}  {steps * args.tokens / 1e6:.1f} M tokens  "
                f"{speed:.0f} K/s  waited {waited:.1f} s  scale {scale:.2f}"
            )
            for length in sorted({length for length, _ in recent}):
                tables = [table for found, table in recent if found == length]
                say(f"    {length:6d} x{len(tables):<3d} {report(sum(tables))}")
            shown, waited, recent = now, 0.0, []
    if device == "cuda":
        torch.cuda.synchronize()
    spent = time.time() - start
    paths = save_checkpoint(model, args.out / "checkpoint")
    facts = {
        "seconds": round(spent, 1),
        "seconds_with_start": round(time.time() - begun, 1),
        "steps": steps,
        "tokens": steps * args.tokens,
        "parameters": size,
        "seed": args.seed,
        "device": name,
        "torch": torch.__version__,
        "peak_memory_gb": (
            round(torch.cuda.max_memory_allocated() / 1e9, 1) if device == "cuda" else 0
        ),
    }
    (args.out / "train.json").write_text(json.dumps(facts, indent=1) + "\n")
    say(f"wrote {len(paths)} parts of the checkpoint; {json.dumps(facts)}")
    log.close()
    os._exit(0)  # the workers never end by themselves


if __name__ == "__main__":
    main()
