"""What a program on llama-cpp-python does to a KV cache; prints the answers it got as JSON.

Run by test_llama_cpp_python.py, with and without hata around it.
"""

import ctypes
import json

import llama_cpp
from llama_cpp import Llama

from support import MODEL, THREADS, Document

ANSWER = 12  # tokens of an answer


def high_level():
    """save_state, load_state and reset of the class Llama."""
    document, other = Document(61, 40), Document(62, 40)
    llm = Llama(MODEL, n_ctx=1024, n_threads=int(THREADS), flash_attn=True, verbose=False)

    def answer(prompt):
        tokens = llm.generate(llm.tokenize(prompt.encode()), temp=0.0)
        text = llm.detokenize([next(tokens) for _ in range(ANSWER)]).decode(errors="replace")
        tokens.close()
        return text

    llm.eval(llm.tokenize(document.text.encode()))
    state = llm.save_state()
    answers = {"first": answer(document.question(5))}
    llm.load_state(state)
    answers["after load_state"] = answer(document.question(5))
    llm.reset()
    answers["other"] = answer(other.question(7))
    llm.load_state(state)
    answers["after another document"] = answer(document.question(5))
    llm.reset()
    answers["after reset"] = answer(document.question(5))
    llm.close()
    return answers


class Sequences:
    """Four sequences in one context, by llama.cpp's own functions."""

    def __init__(self, unified):
        model = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(MODEL.encode(), model)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = 4096
        params.n_seq_max = 4
        params.kv_unified = unified
        params.n_threads = params.n_threads_batch = int(THREADS)
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.length = [0] * 4

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def tokens(self, text, first=False):
        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), room, len(room), first, False)
        return list(room[:n])

    def text(self, tokens):
        piece = ctypes.create_string_buffer(64)
        parts = []
        for token in tokens:
            n = llama_cpp.llama_token_to_piece(self.vocab, token, piece, len(piece), 0, False)
            parts.append(piece.raw[:n])
        return b"".join(parts).decode(errors="replace")

    def decode(self, rows):
        """rows: (sequence, token); logits are asked for the last row of each sequence."""
        batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
        last = {sequence: i for i, (sequence, _) in enumerate(rows)}
        batch.n_tokens = len(rows)
        for i, (sequence, token) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = self.length[sequence]
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = last[sequence] == i
            self.length[sequence] += 1
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status}")
        n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)

        def best(row):
            logits = llama_cpp.llama_get_logits_ith(self.context, row)
            return max(range(n_vocab), key=logits.__getitem__)

        return {sequence: best(row) for sequence, row in last.items()}

    def read(self, sequence, text, first=False):
        """Adds text to a sequence; gives the token that comes next."""
        tokens = self.tokens(text, first)
        for at in range(0, len(tokens), 256):
            following = self.decode([(sequence, t) for t in tokens[at:at + 256]])
        return following[sequence]

    def answer(self, questions):
        """Reads one question per sequence, then generates all answers side by side."""
        following = {s: self.read(s, question) for s, question in questions.items()}
        said = {s: [] for s in questions}
        for _ in range(ANSWER):
            for s, token in following.items():
                said[s].append(token)
            following = self.decode(list(following.items()))
        return [self.text(said[s]) for s in questions]

    def remove(self, sequence, begin, end):
        if not llama_cpp.llama_memory_seq_rm(self.memory, sequence, begin, end):
            raise RuntimeError(f"cannot remove positions {begin} to {end}")

    def forget_after(self, sequence, length):
        self.remove(sequence, length, -1)
        self.length[sequence] = length

    def copy(self, source, target):
        self.remove(target, -1, -1)
        llama_cpp.llama_memory_seq_cp(self.memory, source, target, -1, -1)
        self.length[target] = self.length[source]

    def save(self, sequence):
        size = llama_cpp.llama_state_seq_get_size(self.context, sequence)
        data = (ctypes.c_uint8 * size)()
        written = llama_cpp.llama_state_seq_get_data(self.context, data, size, sequence)
        return data, written, self.length[sequence]

    def load(self, sequence, saved):
        data, size, length = saved
        if llama_cpp.llama_state_seq_set_data(self.context, data, size, sequence) != size:
            raise RuntimeError("the state was not restored")
        self.length[sequence] = length

    def drop_and_shift(self, sequence, begin, end):
        """Forgets some tokens in the middle and closes the gap: a context shift."""
        self.remove(sequence, begin, end)
        llama_cpp.llama_memory_seq_add(self.memory, sequence, end, -1, begin - end)
        self.length[sequence] -= end - begin

    def clear(self):
        llama_cpp.llama_memory_clear(self.memory, True)
        self.length = [0] * 4


def low_level(unified):
    document, other = Document(71, 40), Document(72, 40)
    ask = [f"get {key}: " for key, _ in document.facts]
    llm = Sequences(unified)
    llm.read(0, document.text, first=True)
    length = llm.length[0]
    for target in (1, 2, 3):
        llm.copy(0, target)
    answers = {"four copies": llm.answer({s: ask[5 + s] for s in range(4)})}
    for sequence in range(4):
        llm.forget_after(sequence, length)
    answers["same again"] = llm.answer({s: ask[5 + s] for s in range(4)})
    llm.forget_after(0, length)
    saved = llm.save(0)
    llm.clear()
    llm.read(3, other.text, first=True)
    answers["other"] = llm.answer({3: f"get {other.facts[9][0]}: "})
    llm.load(1, saved)
    answers["restored"] = llm.answer({1: ask[6]})
    llm.forget_after(1, length)
    llm.drop_and_shift(1, 1, 1 + 64)
    answers["shifted"] = llm.answer({1: ask[20]})
    llm.close()
    return answers


if __name__ == "__main__":
    llama_cpp.llama_backend_init()
    print(json.dumps({
        "class Llama": high_level(),
        "sequences, one cache": low_level(True),
        "sequences, a cache each": low_level(False),
    }))
