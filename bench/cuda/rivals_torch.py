#!/usr/bin/env python3
"""Dense decode rivals that live in Python, timed by the rule of hata-bench-cuda: one CUDA graph of
back-to-back calls that rotate over sets of data larger in sum than the L2, medians of 21 replays.

    rivals_torch.py [--time-limit SECONDS] [--no-header] BATCH:Q_HEADS:KV_HEADS:N[:f16|bf16]...

PyTorch's scaled_dot_product_attention with its flash, cuDNN and efficient backends; where they can
be imported also FlashAttention-3 (fa3_fwd_interface or flash_attn_interface) and FlashInfer.
CSV goes to standard output, line by line; lines that start with # are remarks. Layouts:
`contiguous` is the cache's [batch][cell][KV head][128], `head-major` has the heads outside.
Method `...-fold`: the query heads of a group as query rows instead of enable_gqa."""

import argparse
import os
import sys
import time

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADER = ("method,batch,n_q_heads,n_kv_heads,head_dim,type,layout,n_kv,budget,stage,"
          "us,us_min,us_max,bytes")
HEAD_DIM = 128
REPLAYS = 21
TYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


def remark(text):
    print("# " + " ".join(str(text).split())[:200], flush=True)


class Cell:
    def __init__(self, text):
        parts = text.split(":")
        self.text = text
        self.batch, self.n_q_heads, self.n_kv_heads, self.n = map(int, parts[:4])
        self.type = parts[4] if len(parts) > 4 else "f16"
        if len(parts) > 5 or self.type not in TYPES or self.n_q_heads % self.n_kv_heads:
            raise ValueError(f"not a cell: {text}")
        self.group = self.n_q_heads // self.n_kv_heads
        self.cache_bytes = 4 * self.batch * self.n * self.n_kv_heads * HEAD_DIM
        self.bytes = self.cache_bytes + 4 * self.batch * self.n_q_heads * HEAD_DIM
        self.n_sets = max(2, min(16, int(400e6 / self.cache_bytes) + 1))
        self.guess_us = self.cache_bytes / 4.0e6 + 4


class Data:
    """Sets of keys, values and queries; the same memory read as either layout."""

    def __init__(self, cell):
        c = cell
        shape = (c.n_sets, c.batch, c.n, c.n_kv_heads, HEAD_DIM)
        make = dict(dtype=TYPES[c.type], device="cuda")
        self.cell = cell
        self.keys = torch.empty(shape, **make).normal_()
        self.values = torch.empty(shape, **make).normal_()
        self.queries = torch.randn(c.n_sets, c.batch, c.n_q_heads, HEAD_DIM, **make)
        self.references = {}

    def heads_first(self, layout):
        """[set][batch][KV head][cell][128]"""
        c = self.cell
        if layout == "contiguous":
            return self.keys.transpose(2, 3), self.values.transpose(2, 3)
        shape = (c.n_sets, c.batch, c.n_kv_heads, c.n, HEAD_DIM)
        return self.keys.view(shape), self.values.view(shape)

    def reference(self, layout):
        """Plain attention of the first set, [batch][query head][128]; None where it is too large."""
        c = self.cell
        if c.batch * c.n_q_heads * c.n > 1.7e7:
            return None
        if layout not in self.references:
            k, v = (x[0].float() for x in self.heads_first(layout))
            q = self.queries[0].float().view(c.batch, c.n_kv_heads, c.group, HEAD_DIM)
            p = torch.softmax(torch.einsum("bhgd,bhnd->bhgn", q, k) / HEAD_DIM**0.5, -1)
            out = torch.einsum("bhgn,bhnd->bhgd", p, v)
            self.references[layout] = out.reshape(c.batch, c.n_q_heads, HEAD_DIM)
        return self.references[layout]


def events():
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def one_call_us(call, n_sets):
    """The fastest of a few calls, warm-up included."""
    begin, end = events()
    best = float("inf")
    for i in range(4):
        begin.record()
        call(i % n_sets)
        end.record()
        torch.cuda.synchronize()
        best = min(best, begin.elapsed_time(end) * 1e3)
    return best


def replays_us(call, cell):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(0)
    torch.cuda.synchronize()
    calls = max(cell.n_sets, int(2000 / cell.guess_us) // cell.n_sets * cell.n_sets)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            call(i % cell.n_sets)
    begin, end = events()
    times = []
    for i in range(REPLAYS + 2):  # two to warm up
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        if i >= 2:
            times.append(begin.elapsed_time(end) * 1e3 / calls)
    return sorted(times)


def sdpa_rivals(data):
    c = data.cell
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
                "efficient": SDPBackend.EFFICIENT_ATTENTION}
    forms = [("", dict(enable_gqa=True)), ("-fold", {})] if c.group > 1 else [("", {})]
    for name, backend in backends.items():
        for suffix, extra in forms:
            if name == "cudnn" and suffix == "-fold":
                continue  # a group as query rows: up to 12 times slower
            for layout in ("contiguous", "head-major"):
                k, v = data.heads_first(layout)
                rows = ((c.n_sets, c.batch, c.n_kv_heads, c.group, HEAD_DIM) if suffix == "-fold"
                        else (c.n_sets, c.batch, c.n_q_heads, 1, HEAD_DIM))
                q = data.queries.view(rows)

                def call(i, q=q, k=k, v=v, extra=extra, backend=backend):
                    with sdpa_kernel(backend):
                        return functional.scaled_dot_product_attention(q[i], k[i], v[i], **extra)

                yield f"torch-{name}{suffix}", layout, call


def flash_attention_3_rivals(data):
    """Its own split heuristic (num_splits=0), its own and forced packing of a group's heads. The
    wheel fa3-fwd is built without f16: there the same bits are read as bf16, which takes as long
    (and is said to be bf16 in the output)."""
    keys, values, queries = data.keys, data.values, data.queries
    real_type = data.cell.type
    try:
        import fa3_fwd_interface as interface
        from fa3_fwd_config import CONFIG
        if real_type == "f16" and CONFIG["build_flags"].get("FLASHATTENTION_DISABLE_FP16"):
            keys, values, queries = (x.view(torch.bfloat16) for x in (keys, values, queries))
            real_type = "bf16"
    except ImportError:
        try:
            import flash_attn_interface as interface
        except ImportError:
            return
    q = queries.unsqueeze(2)  # [set][batch][1][head][128]
    lengths = torch.full((data.cell.batch,), data.cell.n, dtype=torch.int32, device="cuda")
    for name, extra in (("fa3", {}), ("fa3-pack", dict(pack_gqa=True)),
                        ("fa3-lengths", dict(cache_seqlens=lengths))):
        if name == "fa3-pack" and data.cell.group == 1:
            continue

        def call(i, extra=extra):
            return interface.flash_attn_with_kvcache(q[i], keys[i], values[i], **extra)

        call.type = real_type
        yield name, "contiguous", call


def flashinfer_rivals(data):
    """The package, where it is installed; rival-flashinfer times the same kernels without it."""
    try:
        import flashinfer
    except ImportError:
        return
    c = data.cell
    page, pages = 16, c.n // 16
    starts = torch.arange(c.batch + 1, dtype=torch.int32, device="cuda") * pages
    indices = torch.arange(c.batch * pages, dtype=torch.int32, device="cuda")
    last = torch.full((c.batch,), page, dtype=torch.int32, device="cuda")
    paged = (c.n_sets, c.batch * pages, page, c.n_kv_heads, HEAD_DIM)
    keys, values = data.keys.view(paged), data.values.view(paged)
    for tensor_cores in (False, True):
        space = torch.empty(512 << 20, dtype=torch.uint8, device="cuda")
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            space, "NHD", use_tensor_cores=tensor_cores)
        wrapper.plan(starts, indices, last, c.n_q_heads, c.n_kv_heads, HEAD_DIM, page,
                     q_data_type=TYPES[c.type], kv_data_type=TYPES[c.type])

        def call(i, wrapper=wrapper):
            return wrapper.run(data.queries[i], (keys[i], values[i]))

        yield "flashinfer-python" + ("-tc" if tensor_cores else ""), "paged16", call


def measure(data, name, layout, call):
    c = data.cell
    with torch.no_grad():
        out = call(0)
        if isinstance(out, (tuple, list)):
            out = out[0]
        as_type = getattr(call, "type", c.type)
        want = (data.reference("contiguous" if layout == "paged16" else layout)
                if as_type == c.type else None)
        if want is not None:
            error = ((out.reshape(want.shape).float() - want).norm() / want.norm()).item()
            if not error < (2e-3 if c.type == "f16" else 1e-2):
                remark(f"WRONG: {name} {layout} {c.text} differs from plain attention by {error:.2g}")
        del out
        alone = one_call_us(call, c.n_sets)
        if alone > 8 * c.guess_us + 100:
            remark(f"slow: {name} {layout} {c.text} takes {alone:.0f} us, left out")
            return
        us = replays_us(call, c)
    print(f"{name},{c.batch},{c.n_q_heads},{c.n_kv_heads},{HEAD_DIM},{as_type},{layout},{c.n},0,"
          f"step,{us[len(us) // 2]:.3f},{us[0]:.3f},{us[-1]:.3f},{c.bytes}", flush=True)


def measure_cell(cell, deadline):
    data = Data(cell)
    for source in (sdpa_rivals, flash_attention_3_rivals, flashinfer_rivals):
        rivals = source(data)
        while True:
            if time.monotonic() > deadline:
                remark(f"time limit: left out the rest of {cell.text}")
                return
            name, layout = source.__name__, ""
            try:
                following = next(rivals, None)
                if following is None:
                    break
                name, layout, call = following
                measure(data, name, layout, call)
            except Exception as error:  # one rival's trouble is not the others'
                remark(f"failed: {name} {layout} {cell.text}: {error}")
                torch.cuda.synchronize()  # raises again where the context is lost
                if not layout:
                    break


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--time-limit", type=float, default=1e9, metavar="SECONDS")
    parser.add_argument("--no-header", action="store_true")
    parser.add_argument("cells", nargs="+")
    args = parser.parse_args()
    begin = time.monotonic()
    deadline = begin + args.time_limit
    if not args.no_header:
        print(HEADER, flush=True)
    if not torch.cuda.is_available():
        remark("failed: no CUDA device")
        return 1
    torch.manual_seed(0)
    remark(f"device={torch.cuda.get_device_name()} torch={torch.__version__} "
           f"cudnn={torch.backends.cudnn.version()}")
    for index, text in enumerate(args.cells):
        if time.monotonic() > deadline:
            remark(f"time limit: left out {text}")
            continue
        try:
            cell = Cell(text)
        except ValueError as error:
            remark(error)
            continue
        room = torch.cuda.mem_get_info()[0]
        if cell.n_sets * cell.cache_bytes + 1e9 > room:
            remark(f"does not fit: {text}")
            continue
        try:
            measure_cell(cell, deadline)
            torch.cuda.empty_cache()
        except Exception as error:
            remark(f"failed: {text}: {error}")
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except Exception:  # the context is lost: a fresh process takes the rest of the cells
                rest = args.cells[index + 1:]
                if rest:
                    os.execv(sys.executable, [sys.executable, sys.argv[0], "--no-header",
                                              "--time-limit", str(deadline - time.monotonic()),
                                              *rest])
                return 1
    remark(f"torch took {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
