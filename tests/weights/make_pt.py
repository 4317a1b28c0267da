#!/usr/bin/env python3
"""Writes files as torch.save does, good and hostile ones, into a folder: without PyTorch, by hand.

    make_pt.py FOLDER                 every case of pt_file_test.cpp
    make_pt.py FOLDER HEADS DIM BITS LAYER[:X]...   hash_weight_layer_NN.pt, for import_test.cpp

Those of the second kind are bf16; element (h, i, j) is value(h, i, j) + LAYER, the last one X where
it is given. HEADS 0 leaves that dimension out.
"""

import struct
import sys
import zipfile
from pathlib import Path

FOLDER = Path(sys.argv[1])


def value(h, i, j):
    """Exact in bf16."""
    return ((h * 131 + i * 17 + j * 3) % 61 - 30) / 32


# --- pickles --------------------------------------------------------------------------------------

START, END = b"\x80\x02", b"."


def text(s):
    s = s.encode()
    return b"X" + struct.pack("<I", len(s)) + s


def integer(n):
    if 0 <= n < 256:
        return b"K" + bytes([n])
    if 0 <= n < 65536:
        return b"M" + struct.pack("<H", n)
    if -2**31 <= n < 2**31:
        return b"J" + struct.pack("<i", n)
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module, what):
    return f"c{module}\n{what}\n".encode()


def integers(numbers):
    return b"(" + b"".join(map(integer, numbers)) + b"t"


def contiguous(shape):
    strides, n = [], 1
    for size in reversed(shape):
        strides.insert(0, n)
        n *= size
    return strides, n


REBUILD = name("torch._utils", "_rebuild_tensor_v2")
ORDERED_DICT = name("collections", "OrderedDict") + b")R"


def tensor(shape, strides=None, offset=0, count=None, key="0", storage="FloatStorage"):
    default, n = contiguous(shape)
    saved = (b"((" + text("storage") + name("torch", storage) + text(key) + text("cpu")
             + integer(n if count is None else count) + b"tQ")
    return (REBUILD + saved + integer(offset) + integers(shape)
            + integers(default if strides is None else strides) + b"\x88" + ORDERED_DICT + b"tR")


def pairs(*items):
    """A dict of (key, value), both pickled."""
    return b"}(" + b"".join(k + v for k, v in items) + b"u"


# --- elements -------------------------------------------------------------------------------------


def f32(numbers):
    return struct.pack(f"<{len(numbers)}f", *numbers)


def f16(numbers):
    return struct.pack(f"<{len(numbers)}e", *numbers)


def f64(numbers):
    return struct.pack(f"<{len(numbers)}d", *numbers)


def bf16(numbers):
    raw = f32(numbers)
    return b"".join(raw[i + 2:i + 4] for i in range(0, len(raw), 4))


# --- files ----------------------------------------------------------------------------------------


def save(file, pickle, storages=None, method=zipfile.ZIP_STORED, byteorder=b"little"):
    """The archive's folder is called as the file is; torch.save does so, too."""
    folder = Path(file).stem
    with zipfile.ZipFile(FOLDER / file, "w", method) as archive:
        archive.writestr(f"{folder}/data.pkl", pickle)
        if byteorder:
            archive.writestr(f"{folder}/byteorder", byteorder)
        for key, content in (storages or {}).items():
            archive.writestr(f"{folder}/data/{key}", content)
        archive.writestr(f"{folder}/version", b"3\n")


def one(file, pickle, content=f32([0] * 24), **more):
    save(file, START + pickle + END, {"0": content}, **more)


def put(file, content):
    (FOLDER / file).write_bytes(content)


def good():
    n = [k / 8 for k in range(24)]
    for pack, storage in ((f32, "FloatStorage"), (f16, "HalfStorage"), (bf16, "BFloat16Storage"),
                          (f64, "DoubleStorage")):
        one(f"{pack.__name__}.pt", tensor([2, 3, 4], storage=storage), pack(n))
    one("transposed.pt", tensor([2, 4, 3], [12, 1, 4]), f32(n))
    one("view.pt", tensor([2, 2], [12, 2], 5, count=24), f32(n))
    one("expanded.pt", tensor([3, 2], [0, 1], 22, count=24), f32(n))
    one("scalar.pt", tensor([], count=24, offset=7), f32(n))
    one("one-row.pt", tensor([1, 3], [2**63 - 1, 1], count=24), f32(n))
    one("no-elements.pt", tensor([0, 3], count=24), f32(n))
    parameter = name("torch._utils", "_rebuild_parameter") + b"(" + tensor([2, 3, 4])
    one("parameter.pt", parameter + b"\x88" + ORDERED_DICT + b"tR", f32(n))
    one("no-byteorder.pt", tensor([2, 3, 4]), f32(n), byteorder=None)
    # A module's state_dict: memoized, with an attribute; and all else that needs no refusal.
    state = (ORDERED_DICT + b"q\x00(" + text("layers.2.w") + tensor([2, 3, 4])
             + text("layers.3.w") + tensor([2, 3, 4], key="1", storage="BFloat16Storage") + b"u}"
             + text("_metadata") + ORDERED_DICT + b"sb")
    save("state.pt", START + state + END, {"0": f32(n), "1": bf16(n)})
    other = (text("rbit"), integer(-128)), (text("lr"), b"G" + struct.pack(">d", 0.5))
    lists = ((text("w"), b"](N" + tensor([24]) + b"e"),
             (integer(7), b"]" + tensor([2], count=24) + b"a"), (text("big"), integer(2**40)))
    one("mixed.pt", pairs(*other, *lists), f32(n))
    one("shared.pt", b"](" + tensor([24]) + b"q\x00h\x00e", f32(n))


def hostile():
    content = f32([0] * 24)
    call = b"(" + text("touch pwned") + b"tR"
    one("os-system.pt", name("os", "system") + call)
    one("eval.pt", name("builtins", "eval") + call)
    one("long-name.pt", b"c" + b"x" * 5000 + b"\nsystem\n" + call)
    one("inst.pt", b"(" + text("touch pwned") + b"ios\nsystem\n")
    one("long-storage.pt", tensor([24], storage="LongStorage"))
    one("getattr.pt", name("torch", "load") + call)
    one("call-tensor.pt", tensor([24]) + b")R")
    one("ordered-dict.pt", name("collections", "OrderedDict") + b"(]tR")
    one("storage-call.pt", name("torch", "FloatStorage") + b")R")
    one("no-arguments.pt", REBUILD + b")R")
    one("many-arguments.pt", REBUILD + b"(" + b"N" * 17 + b"tR")
    one("strange-storage.pt", tensor([24], key="\n"))
    one("wrong-arguments.pt", REBUILD + b"(NNNNtR")
    one("parameter-of-none.pt", name("torch._utils", "_rebuild_parameter") + b"(NtR")
    one("persistent-text.pt", REBUILD + b"(" + text("storage") + b"QK\x00))tR")
    one("persistent-short.pt", REBUILD + b"((" + text("storage") + b"tQK\x00))tR")
    one("just-a-number.pt", integer(1))
    one("build-none.pt", b"N}b")
    for file, shape, strides, offset, count in (
            ("huge-size.pt", [2**40], None, 0, 24),
            ("huge-product.pt", [2**20, 2**20, 2**24], [0, 0, 0], 0, 24),
            ("huge-expand.pt", [2**26, 2**26], [0, 0], 0, 24),
            ("huge-storage.pt", [24], None, 0, 2**40),
            ("negative-storage.pt", [24], None, 0, -24),
            ("negative-size.pt", [-1], [1], 0, 24),
            ("negative-stride.pt", [24], [-1], 23, 24),
            ("negative-offset.pt", [24], None, -1, 24),
            ("offset.pt", [1], None, 24, 24),
            ("huge-offset.pt", [1], None, 2**62, 24),
            ("past-the-end.pt", [2, 3, 4], None, 1, 24),
            ("stride.pt", [2, 3, 4], [13, 4, 1], 0, 24),
            ("huge-stride.pt", [2, 2], [2**62, 2**62], 0, 24),
            ("more-than-stored.pt", [25], None, 0, 25),
            ("less-than-stored.pt", [23], None, 0, 23),
            ("few-strides.pt", [2, 3, 4], [1], 0, 24),
            ("many-dimensions.pt", [1] * 9, None, 0, 24)):
        one(file, tensor(shape, strides, offset, count), content)
    one("huge-integer.pt", b"\x8a\x09" + b"\x01" * 9)
    one("many-expands.pt", b"](" + tensor([2**26], [0], count=24) * 5 + b"e")
    one("memo.pt", b"h\x00")
    one("memo-gap.pt", b"Nr\xff\xff\xff\xff")
    one("stack.pt", b"\x85")
    one("stack-below-mark.pt", b"N(\x85")
    one("no-mark.pt", b"Nt")
    one("mark-left.pt", b"(N")
    one("two-left.pt", b"NN")
    one("empty.pt", b"")
    one("append-to-none.pt", b"NNa")
    one("odd-dict.pt", b"}(Nu")
    one("unhashable.pt", pairs((b"N", tensor([24]))))
    one("long-key.pt", pairs((text("x" * 300), tensor([24]))))
    one("strange-key.pt", pairs((text("\x1b[2J"), tensor([24]))))
    one("opcode.pt", b"\x95" + bytes(8))
    save("protocol.pt", b"\x80\x04" + tensor([24]) + END, {"0": content})
    save("not-a-pickle.pt", b"hello", {"0": content})
    save("cut-pickle.pt", (START + tensor([24]))[:45], {"0": content})
    save("no-stop.pt", START + tensor([24]), {"0": content})
    save("huge-text.pt", START + b"X\xff\xff\xff\xff" + END, {"0": content})
    save("endless-name.pt", START + b"cos", {"0": content})
    depth = 200000
    one("deep.pt", b"]" * depth + b"a" * (depth - 1))
    one("deep-tensor.pt", b"](" * 30 + tensor([24]) + b"e" * 30)
    one("cycle.pt", b"]q\x00h\x00a")
    tens = b"".join(b"](" + (b"h" + bytes([k])) * 10 + b"eq" + bytes([k + 1]) for k in range(12))
    one("billion-laughs.pt", b"](" + b"]q\x00" + tens + b"e")
    one("many-values.pt", b"](" + b"N" * (2**20 + 5) + b"e")
    one("many-marks.pt", b"(" * (2**21))
    save("big-pickle.pt", START + b"N" * (2**22 + 1) + END)
    # The container.
    save("missing-data.pt", START + tensor([24]) + END)
    one("other-key.pt", tensor([24], key="../0"))
    one("compressed.pt", tensor([24]), content, method=zipfile.ZIP_DEFLATED)
    one("bomb.pt", tensor([2**24]), bytes(2**26), method=zipfile.ZIP_DEFLATED)
    one("big-endian.pt", tensor([24]), content, byteorder=b"big")
    with zipfile.ZipFile(FOLDER / "no-pickle.pt", "w") as archive:
        archive.writestr("a/version", b"3\n")
    with zipfile.ZipFile(FOLDER / "two-pickles.pt", "w") as archive:
        archive.writestr("a/data.pkl", START + tensor([24]) + END)
        archive.writestr("b/data.pkl", START + tensor([24]) + END)
    with zipfile.ZipFile(FOLDER / "strange-folder.pt", "w") as archive:
        archive.writestr("\x1b[2J/data.pkl", START + tensor([24]) + END)
    whole = (FOLDER / "f32.pt").read_bytes()
    put("cut-zip.pt", whole[:-10])
    put("half-zip.pt", whole[:len(whole) // 2])
    at = whole.index(f32([k / 8 for k in range(24)]))
    put("flipped.pt", whole[:at + 5] + bytes([whole[at + 5] ^ 1]) + whole[at + 6:])
    put("empty-file.pt", b"")
    put("text.pt", b"just some text, no zip file")
    put("legacy.pt", bytes.fromhex("80028a0a6cfc9c46f9206aa850192e8002"))


def layers(heads, dim, bits, which):
    for layer, _, last in (argument.partition(":") for argument in which):
        elements = [value(h, i, j) + int(layer)
                    for h in range(heads or 1) for i in range(dim) for j in range(bits)]
        elements[-1:] = [float(last)] if last else elements[-1:]
        one(f"hash_weight_layer_{int(layer):02d}.pt",
            tensor([heads, dim, bits][heads == 0:], storage="BFloat16Storage"), bf16(elements))


if len(sys.argv) == 2:
    good()
    hostile()
else:
    layers(*map(int, sys.argv[2:5]), sys.argv[5:])
