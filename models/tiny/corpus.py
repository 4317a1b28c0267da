#!/usr/bin/env python3
"""Collect natural English text of permissive licence for the bundled model.

The text is the documentation of free software as Debian packages it. Packages
are fetched by name with ``apt-get download`` and unpacked with ``dpkg-deb``,
so nothing is installed. Each package's own copyright file must state the
licence expected here, otherwise the script stops. A page that quotes or
discusses a copyleft licence is left out.

Output, in the work folder:
  corpus.jsonl        one JSON string per document, in a shuffled order
  corpus_sources.json package, version, licence, documents, characters

Example:
  python corpus.py --work work
"""

import argparse
import gzip
import html.parser
import json
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """One package: where its text lies and which licence the text must have."""

    package: str
    licence: str  # SPDX identifier, or "public-domain"
    evidence: str  # regular expression that the copyright file must match
    include: tuple[str, ...]  # globs below usr/share
    exclude: str = r"$^"  # regular expression on the path
    start: str = r"<body"  # where the text of an HTML page starts
    end: str = r"</body>"


SOURCES = (
    Source(
        "python3.11-doc",
        "PSF-2.0",
        r"PYTHON SOFTWARE FOUNDATION LICENSE",
        ("doc/python3.11/html/_sources/**/*.rst.txt",),
        r"license|copyright|changelog",
    ),
    Source(
        "sqlite3-doc",
        "public-domain",
        r"Files: \*\nCopyright: D\. Richard Hipp[^\n]*\nLicense: public-domain",
        ("doc/sqlite3/**/*.html",),
        r"search\.d|toc|syntax/|keyword_index|doclist|changes|releaselog|hctree",
    ),
    Source(
        "postgresql-doc-15",
        "PostgreSQL",
        r"License: PostgreSQL\n",
        ("doc/postgresql-doc-15/html/*.html",),
        r"release|bookindex|biblio|errcodes|legalnotice|collation",
    ),
    Source(
        "rust-doc",
        "MIT OR Apache-2.0",
        r"License: MIT or Apache-2.0",
        tuple(
            f"doc/rust-doc/html/{book}/**/*.html"
            for book in (
                "book",
                "reference",
                "nomicon",
                "rust-by-example",
                "cargo",
                "rustc",
                "rustdoc",
                "edition-guide",
            )
        ),
        r"print\.html|toc\.html",
        start=r"<main>",
        end=r"</main>",
    ),
    Source(
        "python-django-doc",
        "BSD-3-Clause",
        r"License: BSD-3-Clause",
        ("doc/python-django-doc/html/**/*.html",),
        r"_modules|genindex|search|releases/[01]\.",
        start=r'<div class="yui-g"',
        end=r'<div class="yui-b" id="sidebar"',
    ),
    Source(
        "python-sqlalchemy-doc",
        "MIT",
        r"License: Expat",
        ("doc/python-sqlalchemy-doc/rst/**/*.rst", "doc/python-sqlalchemy-doc/rst/**/*.rst.gz"),
        r"changelog",
    ),
    Source(
        "python-flask-doc",
        "BSD-3-Clause",
        r"License: BSD-3-clause",
        ("doc/python-flask-doc/html/_sources/**/*.txt",),
        r"license|changes",
    ),
    Source(
        "twisted-doc",
        "MIT",
        r"License: Expat",
        ("doc/twisted-doc/html/_sources/**/*.txt",),
        r"api/",
    ),
    Source(
        "llvm-14-doc",
        "Apache-2.0 WITH LLVM-exception",
        r"License: APACHE-2-LLVM-EXCEPTIONS",
        ("doc/llvm-14-doc/html/_sources/**/*.txt",),
        r"AMDGPU|AMDGPUAsm|DeveloperPolicy",
    ),
    Source(
        "clang-14-doc",
        "Apache-2.0 WITH LLVM-exception",
        r"License: APACHE-2-LLVM-EXCEPTIONS",
        ("doc/clang-14/html/_sources/**/*.txt",),
        r"ClangCommandLineReference",
    ),
    Source(
        "python-scipy-doc",
        "BSD-3-Clause",
        r"License: BSD-3-clause",
        (
            "doc/python-scipy-doc/html/tutorial/**/*.html",
            "doc/python-scipy-doc/html/reference/**/*.html",
            "doc/python-scipy-doc/html/dev/**/*.html",
        ),
        r"release|genindex",
        start=r"<main|<article|<div [^>]*role=\"main\"",
        end=r"</main>|</article>|<footer",
    ),
    Source(
        "nodejs-doc",
        "MIT",
        r"License: Expat",
        ("doc/nodejs/api/*.md", "doc/nodejs/api/*.md.gz"),
        r"all\.",
    ),
    Source(
        "erlang-doc",
        "Apache-2.0",
        r"License: Apache-2\.0",
        ("doc/erlang-doc/**/doc/html/*.html",),
        r"wx-|notes|release_notes|index\.html",
    ),
    Source(
        "apache2-doc",
        "Apache-2.0",
        r"License: Apache-2\.0",
        ("doc/apache2-doc/manual/en/**/*.html",),
        r"license|index\.html",
    ),
)

COPYLEFT = re.compile(
    r"\b[AL]?GPL(?:v\d)?\b|General Public License|Free Documentation License"
    r"|Creative Commons|CC[- ]BY[- ]SA|Mozilla Public License"
)
BLOCK = frozenset(
    "p div section article pre ul ol li dl dt dd tr table h1 h2 h3 h4 h5 h6 br "
    "blockquote hr tbody thead main".split()
)
SKIP = frozenset("script style nav svg head footer button form".split())


class PageText(html.parser.HTMLParser):
    """Visible text of an HTML page; line breaks are kept inside <pre>."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipped = 0
        self.pre = 0

    def handle_starttag(self, tag, attrs):
        if tag in SKIP:
            self.skipped += 1
        elif tag in BLOCK:
            self.parts.append("\n")
            self.pre += tag == "pre"
            if tag == "li":
                self.parts.append("* ")
        elif tag in ("td", "th"):
            self.parts.append(" ")

    def handle_endtag(self, tag):
        if tag in SKIP:
            self.skipped = max(0, self.skipped - 1)
        elif tag in BLOCK:
            self.parts.append("\n")
            self.pre = max(0, self.pre - (tag == "pre"))

    def handle_data(self, data):
        if not self.skipped:
            self.parts.append(data if self.pre else re.sub(r"\s+", " ", data))


def page_text(page: str, source: Source) -> str:
    """Text of an HTML page between the source's start and end marks."""
    first = re.search(source.start, page)
    if not first:
        return ""
    last = re.compile(source.end).search(page, first.end())
    parser = PageText()
    parser.feed(page[first.start() : last.start() if last else len(page)])
    lines = [line.rstrip() for line in "".join(parser.parts).split("\n")]
    return "\n".join(line.lstrip(" ") if line[:2] == " *" else line for line in lines)


def read(path: Path) -> str:
    """UTF-8 text of a plain or gzip file; undecodable bytes are dropped."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="ignore") as file:
        return file.read()


def tidy(text: str) -> str:
    """Uniform line ends, no tabs, at most one empty line, no page furniture."""
    text = text.replace("\r\n", "\n").replace("\t", "    ").replace("\u00a0", " ")
    text = text.replace("\u2019", "'").replace("\u2018", "'").replace("\u00b6", "")
    text = text.replace("\u201c", '"').replace("\u201d", '"').replace("\u2014", "-")
    text = re.sub(r"[ ]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def unpack(source: Source, work: Path) -> tuple[Path, str]:
    """Download and unpack a package; returns its root and its version."""
    folder = work / "packages"
    root = folder / source.package
    found = sorted(folder.glob(f"{source.package}_*.deb"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["apt-get", "download", source.package],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        found = sorted(folder.glob(f"{source.package}_*.deb"))
        if done.returncode or not found:
            sys.exit(f"cannot download {source.package}:\n{done.stderr.strip()}")
    if not root.exists():
        subprocess.run(["dpkg-deb", "-x", found[-1], root], check=True)
    field = ["dpkg-deb", "-f", found[-1], "Version"]
    version = subprocess.run(field, check=True, capture_output=True, text=True).stdout
    return root / "usr/share", version.strip()


def check_licence(source: Source, share: Path) -> None:
    """Stop unless the package's copyright file states the expected licence."""
    path = share / "doc" / source.package / "copyright"
    if not path.is_file():
        sys.exit(f"{source.package}: no copyright file")
    if not re.search(source.evidence, read(path)):
        sys.exit(f"{source.package}: copyright file does not state {source.licence}")


def documents(source: Source, share: Path, limit: int) -> list[str]:
    """Documents of one package, shuffled, at most `limit` characters in all."""
    paths = sorted({p for glob in source.include for p in share.glob(glob)})
    paths = [p for p in paths if not re.search(source.exclude, str(p.relative_to(share)))]
    random.Random(0).shuffle(paths)
    texts, seen, total = [], set(), 0
    for path in paths:
        if total >= 2 * limit:  # twice: repeated lines and short pages go later
            break
        raw = read(path)
        if path.suffix == ".html":
            raw = page_text(raw, source)
        text = tidy(raw)
        if COPYLEFT.search(text) or text[:300] in seen:
            continue
        seen.add(text[:300])
        texts.append(text)
        total += len(text)
    # lines found on many pages are navigation, not text
    if any(path.suffix == ".html" for path in paths):
        count = Counter(line for text in texts for line in set(text.split("\n")) if line)
        common = {line for line, n in count.items() if n > max(10, 0.05 * len(texts))}
        texts = ["\n".join(x for x in t.split("\n") if x not in common) for t in texts]
    kept, total = [], 0
    for text in map(tidy, texts):
        ascii_only = sum(c > "\x7f" for c in text[:4000]) <= 80
        if len(text) >= 400 and ascii_only and total < limit:
            kept.append(text[:150_000])
            total += len(kept[-1])
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("work"), help="work folder")
    parser.add_argument(
        "--limit",
        type=int,
        default=5_000_000,
        help="most characters taken from one package (default %(default)s)",
    )
    args = parser.parse_args()

    texts, table = [], []
    for source in SOURCES:
        share, version = unpack(source, args.work)
        check_licence(source, share)
        found = documents(source, share, args.limit)
        size = sum(map(len, found))
        print(
            f"{source.package:24s} {version:28s} {len(found):5d} {size / 1e6:6.2f} MB", flush=True
        )
        if not found:
            sys.exit(f"{source.package}: no text found below {share}")
        texts += found
        table.append(
            {
                "package": source.package,
                "version": version,
                "licence": source.licence,
                "documents": len(found),
                "characters": size,
            }
        )
    random.Random(0).shuffle(texts)
    with open(args.work / "corpus.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
    (args.work / "corpus_sources.json").write_text(json.dumps(table, indent=1) + "\n")
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} MB of text")


if __name__ == "__main__":
    main()
