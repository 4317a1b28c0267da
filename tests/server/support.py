"""What the tests of other people's programs share: how to start them under hata, what hata said."""

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HATA = os.environ["HATA"]
MODEL = os.environ["HATA_MODEL"]
THREADS = str(os.cpu_count() or 2)
# The share of sparse steps that must run on a CUDA device (scripts/llama-cuda sets it).
ON_DEVICE = os.environ.get("HATA_TEST_ON_DEVICE")

# Small enough for every answer to go through sparse steps.
SPARSE = ("--budget", "32", "--min-ctx", "64", "--dense-layers", "0")
# Every key is chosen, so answers must be those of the program without hata.
FULL = ("--budget", "100%", "--min-ctx", "64", "--dense-layers", "0")

# The model's own words: those after the first 90 are single tokens that its tasks are made of.
WORDS = json.loads(Path(os.environ["HATA_WORDS"]).read_text())[90:]


def under_hata(options, command):
    """The command line that runs `command` with HATA on, verified and counted."""
    return [HATA, "exec", "--verify", "--stats", *options, "--", *command]


class Document:
    """Lines of keys and values that the model can be asked for; about ten tokens a line."""

    def __init__(self, seed, lines):
        rng = random.Random(seed)
        words = rng.sample(WORDS, 2 * lines)
        self.facts = [(f"{a} {b}", f"{rng.randrange(10**6):06d}")
                      for a, b in zip(words[::2], words[1::2])]
        self.text = "".join(f"key {key}: {value}\n" for key, value in self.facts)

    def question(self, i):
        return f"{self.text}get {self.facts[i][0]}: "

    def value(self, i):
        return self.facts[i][1]


def read_stats(log):
    """The numbers that hata printed when the program ended."""
    steps = re.search(r"^hata: .*?: (\d+) sparse and (\d+) dense steps", log, re.M)
    verify = re.search(r"^hata: verify: (\d+) sparse steps checked, (\d+) cells checked,"
                       r" (\d+) encoded again, (\d+) unseen changes, (\d+) STALE CODES", log, re.M)
    if not steps or not verify:
        raise AssertionError(f"no statistics of hata's in:\n{log}")
    names = ("sparse", "dense", "checked_steps", "cells", "encoded", "unseen", "stale")
    return dict(zip(names, map(int, steps.groups() + verify.groups())))


def check_verified(test, log, sparse_steps, cells):
    """No code was ever wrong, and at least so many sparse steps and cells were looked at."""
    stats = read_stats(log)
    test.assertEqual((stats["stale"], stats["unseen"]), (0, 0), log)
    test.assertEqual(stats["checked_steps"], stats["sparse"])
    test.assertGreaterEqual(stats["sparse"], sparse_steps)
    test.assertGreaterEqual(stats["cells"], cells)
    test.assertGreater(stats["encoded"] if cells else stats["dense"], 0)
    if ON_DEVICE and cells:  # all layers, or those that are offloaded
        on_device = re.search(r"; on CUDA (\d+) sparse steps", log)
        test.assertIsNotNone(on_device, log)
        test.assertGreaterEqual(int(on_device.group(1)), float(ON_DEVICE) * stats["sparse"])


class Server:
    """An unmodified llama-server with 4 slots, under hata where `options` are given."""

    def __init__(self, *arguments, options=None):
        self.port = free_port()
        command = [
            str(Path(os.environ["HATA_LLAMA_BIN"]) / "llama-server"),
            "--model", MODEL, "--host", "127.0.0.1", "--port", str(self.port),
            "--parallel", "4", "--threads", THREADS, "--temp", "0", "--chat-template", "chatml",
            *arguments,
        ]
        if options is not None:
            command = under_hata(options, command)
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT)

    def __enter__(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"llama-server did not start:\n{self.output()}")
            try:
                if self.get("/health")["status"] == "ok":
                    return self
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"llama-server was not ready in time:\n{self.output()}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
            return json.load(reply)

    def post(self, path, **body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error} {error.read().decode()}") from error

    def complete(self, prompt, n_predict=40, **body):
        return self.post("/completion", prompt=prompt, n_predict=n_predict, **body)

    def complete_and_cancel(self, prompt, tokens):
        """Reads some tokens of a streamed answer, then hangs up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        body = {"prompt": prompt, "n_predict": 2000, "ignore_eos": True, "stream": True}
        connection.request("POST", "/completion", json.dumps(body))
        reply = connection.getresponse()
        seen = 0
        while seen < tokens:
            line = reply.readline()
            if not line:
                raise AssertionError(f"the stream ended after {seen} tokens")
            seen += line.startswith(b"data:")
        reply.close()
        connection.close()

    def wait_until_idle(self):
        deadline = time.monotonic() + 60
        while any(slot["is_processing"] for slot in self.get("/slots")):
            if time.monotonic() > deadline:
                raise AssertionError("a cancelled request still runs after a minute")
            time.sleep(0.1)

    def stop(self):
        """Ends the server as systemd would and returns all it has printed."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        if status != 0:
            raise AssertionError(f"llama-server ended with {status}:\n{self.output()}")
        return self.output()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
