"""llama-cpp-python: states saved and loaded, sequences copied, shifted and cleared."""

import json
import subprocess
import sys
import unittest
from pathlib import Path

from support import FULL, SPARSE, Document, check_verified, under_hata

SESSION = [sys.executable, str(Path(__file__).with_name("python_session.py"))]
DIGITS = 6  # of a value; what the model writes after it is not certain enough to compare


def values(session):
    """The values in the answers: {part: {step: [digits]}}."""
    return {part: {step: [text[:DIGITS] for text in ([said] if isinstance(said, str) else said)]
                   for step, said in steps.items()}
            for part, steps in session.items()}


def expected():
    """The values that the session asks for."""
    document, other = Document(61, 40), Document(62, 40)
    llama = {step: [document.value(5)] for step in
             ("first", "after load_state", "after another document", "after reset")}
    llama["other"] = [other.value(7)]
    document, other = Document(71, 40), Document(72, 40)
    four = [document.value(i) for i in (5, 6, 7, 8)]
    sequences = {"four copies": four, "same again": four, "other": [other.value(9)],
                 "restored": [document.value(6)], "shifted": [document.value(20)]}
    return {"class Llama": llama, "sequences, one cache": sequences,
            "sequences, a cache each": sequences}


class LlamaCppPython(unittest.TestCase):
    maxDiff = None

    def run_session(self, command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        return values(json.loads(done.stdout)), done.stderr

    def test_full_budget_answers_as_without_hata(self):
        plain, _ = self.run_session(SESSION)
        full, log = self.run_session(under_hata(FULL, SESSION))
        check_verified(self, log, sparse_steps=0, cells=0)
        self.assertEqual(full, plain)
        self.assertEqual(full, expected())

    def test_sparse_steps_are_verified(self):
        sparse, log = self.run_session(under_hata(SPARSE, SESSION))
        check_verified(self, log, sparse_steps=8 * 150, cells=500_000)
        self.assertEqual(sparse, expected())


if __name__ == "__main__":
    unittest.main(verbosity=2)
