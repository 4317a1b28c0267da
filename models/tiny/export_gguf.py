#!/usr/bin/env python3
"""Write a checkpoint and its tokenizer as a GGUF file for llama.cpp.

Example:
  python export_gguf.py --checkpoint work/run/checkpoint --type q8_0 \\
      --out ../hata-tiny-25m-q8_0.gguf
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np

from model import GGUF_NAMES, load_model

TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def add_tokenizer(writer: gguf.GGUFWriter, path: Path, size: int) -> None:
    """Vocabulary, merges and special tokens of a byte-level BPE."""
    data = json.loads(path.read_text(encoding="utf-8"))
    special = {token["content"]: token["id"] for token in data["added_tokens"]}
    entries: list = [None] * size
    types = [gguf.TokenType.NORMAL] * size
    for entry, i in data["model"]["vocab"].items():
        entries[i] = entry
    for entry, i in special.items():
        entries[i] = entry
        types[i] = gguf.TokenType.CONTROL
    if None in entries:
        raise ValueError(f"{path} has no entry for token {entries.index(None)}")
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(entries)
    writer.add_token_types([int(kind) for kind in types])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(special["<|bos|>"])
    writer.add_eos_token_id(special["<|eos|>"])
    writer.add_pad_token_id(special["<|pad|>"])
    writer.add_add_bos_token(True)


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=here / "work" / "run" / "checkpoint")
    parser.add_argument("--tokenizer", type=Path, default=here / "tokenizer.json")
    parser.add_argument("--type", choices=sorted(TYPES), default="q8_0")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    model = load_model(args.checkpoint)
    c = model.config
    kind, file_type = TYPES[args.type]
    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_name("hata-tiny-25m")
    writer.add_license("mit")
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.feed_forward)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_vocab_size(c.vocabulary)
    writer.add_file_type(file_type)
    add_tokenizer(writer, args.tokenizer, c.vocabulary)

    def add(name: str, array: np.ndarray) -> None:
        if array.ndim == 1:  # norms stay in float32
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)

    for name, pattern in GGUF_NAMES.items():
        array = getattr(model, name).detach().numpy()
        if "{}" in pattern:
            for layer in range(c.layers):
                add(pattern.format(layer), array[layer])
        else:
            add(pattern, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
