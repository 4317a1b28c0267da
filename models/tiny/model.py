"""The bundled model: a small Llama with tied embeddings, and its checkpoints.

Rotary embedding uses llama.cpp's interleaved layout (pairs of neighbouring
dimensions), so tensors are exported without permutation.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Config:
    vocabulary: int = 4096
    width: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 128
    feed_forward: int = 1024
    rope_base: float = 1e7
    norm_eps: float = 1e-5
    context: int = 131072


# parameter name -> (GGUF name, None for one tensor or the layer index to format in)
GGUF_NAMES = {
    "embedding": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "attention_norm": "blk.{}.attn_norm.weight",
    "query": "blk.{}.attn_q.weight",
    "key": "blk.{}.attn_k.weight",
    "value": "blk.{}.attn_v.weight",
    "output": "blk.{}.attn_output.weight",
    "ffn_norm": "blk.{}.ffn_norm.weight",
    "gate": "blk.{}.ffn_gate.weight",
    "up": "blk.{}.ffn_up.weight",
    "down": "blk.{}.ffn_down.weight",
}
MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
NORMS = ("attention_norm", "ffn_norm", "final_norm")


def rms_norm(x, weight, eps):
    """x [n, width] scaled to unit root mean square, in float32."""
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    return (y * weight).to(x.dtype)


def rotate(x, cos, sin):
    """Rotary embedding of x [n, heads, dim]; cos, sin [n, dim / 2]."""
    pairs = x.float().unflatten(-1, (-1, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    c, s = cos[:, None], sin[:, None]
    return torch.stack((even * c - odd * s, even * s + odd * c), -1).flatten(-2).to(x.dtype)


# The three functions below work on flat tokens [n, ...]: compiled once, they
# serve every context length, because a training step has a fixed token count.


def project(x, norm, query, key, value, cos, sin, head_dim, eps):
    """Normed and rotated q, k and plain v, each [n, heads, head_dim]."""
    h = rms_norm(x, norm, eps)
    q, k, v = (
        F.linear(h, w.to(h.dtype)).unflatten(-1, (-1, head_dim)) for w in (query, key, value)
    )
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def finish_block(x, attended, output, norm, gate, up, down, eps):
    """Residual stream [n, width] after the attention output and the FFN."""
    x = x + F.linear(attended, output.to(x.dtype))
    h = rms_norm(x, norm, eps)
    h = F.silu(F.linear(h, gate.to(x.dtype))) * F.linear(h, up.to(x.dtype))
    return x + F.linear(h, down.to(x.dtype))


def weighted_loss(x, norm, embedding, targets, weights, eps):
    """Weighted mean cross-entropy, and the loss of each token [n] (no gradient)."""
    logits = F.linear(rms_norm(x, norm, eps), embedding.to(x.dtype)).float()
    loss = F.cross_entropy(logits, targets, reduction="none")
    return (loss * weights).sum() / weights.sum(), loss.detach()


def causal_attention(q, k, v):
    """q [b, t, heads, dim], k and v [b, t, kv_heads, dim] -> [b, t, heads, dim]."""
    group = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if group > 1:
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


class Llama(nn.Module):
    """Weights of all layers stacked: matrices are [layers, out, in]."""

    def __init__(self, config: Config = Config()):
        super().__init__()
        self.config = c = config
        queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim

        def matrix(rows, columns, scale=1.0):
            std = scale / math.sqrt(columns)
            return nn.Parameter(torch.randn(c.layers, rows, columns) * std)

        self.embedding = nn.Parameter(torch.randn(c.vocabulary, c.width) * 0.02)
        self.query = matrix(queries, c.width)
        self.key = matrix(keys, c.width)
        self.value = matrix(keys, c.width)
        self.output = matrix(c.width, queries, 0.0)  # blocks start as the identity
        self.gate = matrix(c.feed_forward, c.width)
        self.up = matrix(c.feed_forward, c.width)
        self.down = matrix(c.width, c.feed_forward, 0.0)
        self.attention_norm = nn.Parameter(torch.ones(c.layers, c.width))
        self.ffn_norm = nn.Parameter(torch.ones(c.layers, c.width))
        self.final_norm = nn.Parameter(torch.ones(c.width))
        steps = torch.arange(0, c.head_dim, 2).double() / c.head_dim
        self.register_buffer("frequencies", c.rope_base**-steps, persistent=False)
        self.compute_type = torch.bfloat16
        self.project, self.finish, self.loss_of = project, finish_block, weighted_loss

    def compile_blocks(self):
        """Compile the parts between the attentions."""
        self.project = torch.compile(project, dynamic=False)
        self.finish = torch.compile(finish_block, dynamic=False)
        self.loss_of = torch.compile(weighted_loss, dynamic=False)

    def trunk(self, tokens, positions, attention=None, observe=None, eager=False):
        """Residual stream [b * t, width] before the final norm.

        tokens, positions: [b, t]. attention(layer, q, k, v) replaces causal
        attention; observe(layer, k, v) sees the keys and values [b, t, kv, dim].
        """
        c, (b, t) = self.config, tokens.shape
        run = (project, finish_block) if eager else (self.project, self.finish)
        angles = positions.reshape(-1).double()[:, None] * self.frequencies.double()
        cos, sin = angles.cos().float(), angles.sin().float()
        x = F.embedding(tokens.reshape(-1), self.embedding).to(self.compute_type)
        names = ("attention_norm", "query", "key", "value")
        names += ("output", "ffn_norm", "gate", "up", "down")
        stacks = [getattr(self, name).unbind(0) for name in names]
        for layer, weights in enumerate(zip(*stacks)):
            q, k, v = run[0](x, *weights[:4], cos, sin, c.head_dim, c.norm_eps)
            q, k, v = (y.view(b, t, -1, c.head_dim) for y in (q, k, v))
            if observe:
                observe(layer, k, v)
            mixed = attention(layer, q, k, v) if attention else causal_attention(q, k, v)
            x = run[1](x, mixed.reshape(b * t, -1), *weights[4:], c.norm_eps)
        return x

    def loss(self, tokens, weights, positions):
        """tokens [b, t + 1], weights and positions [b, t] -> (mean, per token)."""
        x = self.trunk(tokens[:, :-1], positions)
        targets = tokens[:, 1:].reshape(-1).long()
        eps = self.config.norm_eps
        return self.loss_of(x, self.final_norm, self.embedding, targets, weights.reshape(-1), eps)

    def logits(self, x):
        h = rms_norm(x, self.final_norm, self.config.norm_eps)
        return F.linear(h, self.embedding.to(x.dtype)).float()


def save_checkpoint(model: Llama, prefix: Path, part_bytes: int = 15 << 20) -> list[Path]:
    """Write float16 weights as PREFIX.0.npz, PREFIX.1.npz, ... of limited size."""
    parts, size = [{}], 0
    for name, parameter in model.named_parameters():
        array = parameter.detach().float().cpu().numpy().astype(np.float16)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has values that float16 cannot hold")
        if parts[-1] and size + array.nbytes > part_bytes:
            parts.append({})
            size = 0
        parts[-1][name] = array
        size += array.nbytes
    paths = [Path(f"{prefix}.{i}.npz") for i in range(len(parts))]
    for path, part in zip(paths, parts):
        np.savez(path, **part)
    return paths


def load_model(path: Path) -> Llama:
    """A model from a checkpoint prefix or from a GGUF file (dequantised)."""
    model = Llama()
    found = {}
    if str(path).endswith(".gguf"):
        import gguf

        reader = gguf.GGUFReader(path)
        tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
        for name, pattern in GGUF_NAMES.items():
            if "{}" in pattern:
                layers = [tensors[pattern.format(i)] for i in range(model.config.layers)]
                found[name] = np.stack(layers)
            else:
                found[name] = tensors[pattern]
    else:
        parts = sorted(path.parent.glob(path.name + ".*.npz"))
        if not parts:
            raise FileNotFoundError(f"no checkpoint {path}.*.npz")
        for part in parts:
            found.update(np.load(part))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(found[name].astype(np.float32)))
    return model
