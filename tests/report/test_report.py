"""The report in a browser: no errors, its charts, and the numbers of the JSON beside it.

Environment: HATA (the command), CHROMIUM (the browser; without it, a Chromium or Chrome is looked
for on the PATH, and where there is none the test is skipped: exit status 77).
"""

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HATA = os.environ["HATA"]
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Appended to copies of the page.
BROKEN = "<script>nonsense();</script>"
DARK = """
<script>
document.body.setAttribute('data-dark', matchMedia('(prefers-color-scheme: dark)').matches);
document.body.setAttribute('data-page', getComputedStyle(document.body).backgroundColor);
</script>
"""
# Appended to a copy of the page: presses keys, then notes what the page shows.
PRESS = """
<script>
const press = key => document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
const shown = () => [...document.querySelectorAll('section')].filter(s => !s.hidden).map(s => s.id);
const notes = [];
addEventListener('load', async () => {
  const settled = () => new Promise(done => setTimeout(done, 50));
  for (const key of ['2', '3', '4', '5', '1', '5']) {
    press(key);
    await settled();
    notes.push(shown().join());
  }
  const label = name => [...document.querySelectorAll('#sample label')]
    .find(l => l.textContent.startsWith(name)).querySelector('select').value;
  for (const key of [']', '[', 'm', 'n', 'p']) {
    const before = [label('Layer'), document.querySelector('.bands [aria-pressed=true]').textContent, location.hash];
    press(key);
    await settled();
    const after = [label('Layer'), document.querySelector('.bands [aria-pressed=true]').textContent, location.hash];
    notes.push(`${key}:${before.map((value, i) => value === after[i] ? 'same' : 'new').join()}`);
  }
  document.body.setAttribute('data-notes', notes.join(' '));
});
</script>
"""


class Page(html.parser.HTMLParser):
    """What the test asks of a page: elements by tag, with their attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", "parents": list(self.open), **dict(attributes)}
        self.elements.append(element)
        if tag not in ("meta", "link", "br", "input"):
            self.open.append(element)

    def handle_endtag(self, tag):
        while self.open and self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def find(self, tag, **attributes):
        names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [e for e in self.elements if e["tag"] == tag
                and all(value in (e.get(name) or "").split() if name == "class"
                        else e.get(name) == value for name, value in names.items())]


def dump(path, fragment="", dark=False):
    """The page after its script has run. Fails on any message in the console."""
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                   "--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}",
                   "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000"]
        if dark:
            command.append("--blink-settings=preferredColorScheme=0")
        result = subprocess.run([*command, f"file://{path}{fragment}"], capture_output=True,
                                text=True, timeout=120, check=True)
    console = [line for line in result.stderr.splitlines() if ":CONSOLE" in line]
    if console:
        raise AssertionError("messages in the console:\n" + "\n".join(console))
    return Page(result.stdout)


def percent(value):
    return f"{100 * value:.1f}"


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        folder = Path(cls.folder.name)
        text = "".join(f"The river number {i * 7 % 100} runs under a hill of stone.\n"
                       for i in range(400))
        (folder / "plain.txt").write_text(text)
        subprocess.run([HATA, "eval", "-c", "1024", "--task", "needle,copy", "--method",
                        "exact-prob,hata,streaming", "--budget", "32,64", "--dense-layers", "0,2",
                        "--min-ctx", "256", "--samples", "1", "--per-document", "3", "--text",
                        str(folder / "plain.txt"), "--out", f"{folder}/eval/"], check=True)
        cls.path = folder / "eval" / "eval.html"
        cls.data = json.loads((folder / "eval" / "eval.json").read_text())
        cls.page = dump(cls.path)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def cells(self, row):
        line = [e for e in self.page.find("tr") if e.get("data-row") == row]
        self.assertEqual(len(line), 1, row)
        return {e["data-key"]: e["text"] for e in self.page.find("td")
                if any(parent is line[0] for parent in e["parents"])}

    def test_numbers_are_those_of_the_json(self):
        self.assertEqual(len(self.data["rows"]), 13)
        for row in self.data["rows"]:
            cells = self.cells(row["id"])
            mean = row["mean"]
            self.assertEqual(cells["n"], str(mean["n"]))
            self.assertEqual(cells["mean"], f"{percent(mean['mean'])} [{percent(mean['low'])}, "
                                            f"{percent(mean['high'])}]")
            self.assertEqual(cells["verdict"], row["verdict"] or "")
            for task, estimate in row["tasks"].items():
                self.assertEqual(cells["task:" + task], percent(estimate["mean"]))
            if row["method"] == "dense":
                continue
            self.assertEqual(cells["kept_far"], percent(row["kept"]["far"]))
            self.assertEqual(cells["recall"], percent(row["recall"]["all"]))
            self.assertEqual(cells["share_of_bytes"], percent(row["share_of_bytes"]))

    def test_charts_hold_every_setting(self):
        charts = self.page.find("svg", class_="chart")
        names = [chart["aria-label"] for chart in charts]
        self.assertEqual(sum("Accuracy against" in name for name in names), 2, names)
        budget = next(c for c in charts if c["aria-label"].startswith("Accuracy against budget"))
        dots = [e for e in self.page.find("circle") if any(p is budget for p in e["parents"])]
        drawn = sorted(round(float(dot["data-y"]), 9) for dot in dots)
        sparse = [row for row in self.data["rows"] if row["budget"]]
        self.assertEqual(drawn, sorted(round(row["mean"]["mean"], 9) for row in sparse))
        self.assertEqual(len([c for c in charts if c["aria-label"] == "KL over position"]), 1)

    def test_heat_map(self):
        heat = self.page.find("svg", class_="heat")
        self.assertEqual(len(heat), 1)
        first = self.data["heads"][0]
        shown = [e["text"] for e in self.page.find("text") if "data-layer" in e]
        self.assertEqual(shown, [percent(value) for layer in first["layers"]
                                 for value in layer["recall"]])

    def test_plain_text(self):
        lines = {e["data-text"]: e["text"] for e in self.page.find("tr") if "data-text" in e}
        for row in self.data["text"]:
            self.assertIn(f"{row['kl']:.4f}{row['perplexity']:.3f}{percent(row['same'])}",
                          lines[row["setting"]])

    def test_a_page_a_sample(self):
        results = [json.loads(line)
                   for line in (self.path.parent / "results.jsonl").read_text().splitlines()]
        documents = [line for line in results if line.get("type") == "document"]
        self.assertEqual([d["task"] for d in documents], ["needle", "copy"])
        for number, document in enumerate(documents):
            page = dump(self.path, f"#sample-{number}")
            self.assertNotIn("hidden", page.find("section", id="sample")[0])
            text = page.find("div", id="document")[0]
            self.assertEqual(text["text"], "".join(document["pieces"]))
            marked = "".join(e["text"] for e in page.find("span", class_="evidence"))
            evidence = sorted({i for begin, end in document["evidence"] for i in range(begin, end)})
            self.assertTrue(evidence)
            self.assertEqual(marked, "".join(document["pieces"][i] for i in evidence))
            self.check_chosen(page, results, document)

    def check_chosen(self, page, results, document):
        layer = 7  # the last one is shown first, chosen by any head
        for band in page.find("svg"):
            if "data-chosen" not in band:
                continue
            index = page.elements.index(band)
            setting = next(e["data-setting"] for e in reversed(page.elements[:index])
                           if "data-setting" in e)
            record = next(r for r in results if r.get("setting") == setting
                          and r["type"] == "result" and r["task"] == document["task"])
            cells = set()
            for entry in record.get("chosen", []):
                for distances in entry["heads"] if entry["layer"] == layer else []:
                    cell = 0
                    for distance in distances:
                        cell += distance
                        cells.add(cell)
            n = len(document["pieces"])
            want = len([c for c in cells if c < n]) if cells else n
            self.assertEqual(int(band["data-chosen"]), want, setting)

    def with_script(self, script):
        copy = self.path.with_name("copy.html")
        copy.write_text(self.path.read_text().replace("</body>", script + "</body>"))
        return copy

    def test_errors_would_be_seen(self):
        with self.assertRaisesRegex(AssertionError, "nonsense is not defined"):
            dump(self.with_script(BROKEN))

    def test_dark_and_light(self):
        pages = [dump(self.with_script(DARK), dark=dark).find("body")[0] for dark in (False, True)]
        self.assertEqual([page["data-dark"] for page in pages], ["false", "true"])
        self.assertNotEqual(pages[0]["data-page"], pages[1]["data-page"])

    def test_keys(self):
        notes = dump(self.with_script(PRESS)).find("body")[0]["data-notes"].split()
        self.assertEqual(notes[:6], ["charts", "recall", "text", "sample", "summary", "sample"])
        self.assertEqual(notes[6], "]:new,same,same")
        self.assertEqual(notes[7], "[:new,same,same")
        self.assertEqual(notes[8], "m:same,new,same")
        self.assertTrue(notes[9].endswith("new") and notes[10].endswith("new"), notes)

    def test_it_stands_alone(self):
        text = self.path.read_text()
        self.assertIn("@media print", text)
        for way in ("src=", "@import", "url(", "https://", "fetch("):
            self.assertNotIn(way, text)
        self.assertEqual(re.findall(r"http://[^'\"]*", text), ["http://www.w3.org/2000/svg"])


if __name__ == "__main__":
    if CHROMIUM is None:
        print("skipped: no chromium here to open the report with (scripts/setup --browser gets it)")
        sys.exit(77)
    unittest.main()
