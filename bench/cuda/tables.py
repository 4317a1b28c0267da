#!/usr/bin/env python3
"""Markdown tables and a roofline plot of what hata-bench-cuda and run-rivals measured.

    tables.py [--svg PLOT.svg] [--bandwidth GB/S] [--title TEXT] FILE.csv...

The files are as the programs wrote them, remarks and repeated headers included; the tables go to
standard output. A measurement that occurs twice counts as its smaller median. Dense rivals are all
methods but our own ones. The rival of a contiguous cache is the fastest over any layout and both
16-bit types (they read the same bytes), that of a paged cache the fastest paged one."""

import argparse
import math
import sys
from collections import namedtuple
from xml.sax.saxutils import escape

FIELDS = ("method", "batch", "n_q_heads", "n_kv_heads", "head_dim", "type", "layout", "n_kv",
          "budget", "stage", "us", "us_min", "us_max", "bytes")
WORDS = ("method", "type", "layout", "stage")
TIMES = ("us", "us_min", "us_max", "bytes")
Row = namedtuple("Row", FIELDS)
Shape = namedtuple("Shape", "n_q_heads n_kv_heads head_dim batch n_kv")
SPARSE = ("hata", "hata:score=squares", "hata-early", "auto", "quest16", "quest32", "loki")
OURS = ("dense",) + SPARSE
NAMES = {"dense": "our dense", "hata": "HATA", "hata:score=squares": "HATA, squares",
         "hata-early": "HATA, early", "auto": "HATA, auto",
         "quest16": "Quest, 16", "quest32": "Quest, 32", "loki": "Loki"}
STAGES = ("encode", "score", "select", "attend", "step")


class Measurements:
    def __init__(self):
        self.rows = []
        self.remarks = []
        self.bandwidth = 0.0  # GB/s

    def read(self, lines, name="input"):
        """Lines that are cut off (a program that was stopped) are passed over with a remark."""
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if not line or line.startswith("method,"):
                continue
            if line.startswith("#"):
                text = line[1:].strip()
                if text.startswith("bandwidth_gbs="):
                    self.bandwidth = max(self.bandwidth, float(text.split("=", 1)[1].split()[0]))
                elif text not in self.remarks:
                    self.remarks.append(text)
                continue
            parts = line.split(",")
            try:
                if len(parts) != len(FIELDS):
                    raise ValueError
                self.rows.append(Row(**{
                    field: part if field in WORDS
                    else float(part) if field in TIMES else int(float(part))
                    for field, part in zip(FIELDS, parts)}))
                if not self.rows[-1].us > 0:
                    self.rows.pop()
                    raise ValueError
            except ValueError:
                self.remarks.append(f"{name}, line {number}: not a measurement: {line[:60]}")

    def best(self):
        """One row per measured thing."""
        found = {}
        for row in self.rows:
            key = row[:FIELDS.index("us")]
            if key not in found or row.us < found[key].us:
                found[key] = row
        return list(found.values())


def shape_of(row):
    return Shape(row.n_q_heads, row.n_kv_heads, row.head_dim, row.batch, row.n_kv)


def layout_of(row):
    return "paged" if row.layout.startswith("paged") else "contiguous"


def size(n):
    for unit, label in ((1 << 20, "M"), (1 << 10, "K")):
        if n >= unit and n % unit == 0:
            return f"{n // unit}{label}"
    return str(n)


def number(x):
    """Three digits or more."""
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def spread(row):
    return (row.us_max - row.us_min) / row.us


class Table:
    def __init__(self, *columns):
        self.columns = columns
        self.rows = []

    def add(self, *cells):
        self.rows.append([str(c) for c in cells])

    def print(self, out):
        if not self.rows:
            print("(nothing measured)", file=out)
        else:
            print("| " + " | ".join(self.columns) + " |", file=out)
            print("|" + "---|" * len(self.columns), file=out)
            for row in self.rows:
                print("| " + " | ".join(row) + " |", file=out)
        print(file=out)


class Report:
    def __init__(self, measurements):
        self.bandwidth = measurements.bandwidth
        self.remarks = measurements.remarks
        self.rows = measurements.best()
        self.steps = [r for r in self.rows if r.stage == "step"]
        self.rivals = [r for r in self.steps if r.method not in OURS]

    def rival(self, shape, layout):
        """The fastest dense rival of a cell; None where none was measured."""
        fits = [r for r in self.rivals if shape_of(r) == shape and
                (layout == "contiguous" or layout_of(r) == "paged")]
        return min(fits, key=lambda r: r.us, default=None)

    def name(self, rival, data_type):
        other = "" if rival.type == data_type else f", {rival.type}"
        layout = "" if rival.layout == "contiguous" else f", {rival.layout}"
        return f"{rival.method}{layout}{other}"

    def of(self, method, shape, data_type, layout, budget=None):
        fits = [r for r in self.steps if r.method == method and shape_of(r) == shape and
                r.type == data_type and layout_of(r) == layout and
                (budget is None or r.budget == budget)]
        return min(fits, key=lambda r: r.us, default=None)

    def cells(self):
        """(type, layout, shape, budgets) of all that we measured, in order."""
        found = {}
        for r in self.steps:
            if r.method not in OURS:
                continue
            budgets = found.setdefault((r.type, layout_of(r), shape_of(r)), set())
            if r.method != "dense":
                budgets.add(r.budget)
        order = {"f16": 0, "bf16": 1}
        return [(*key, sorted(found[key]) or [None])
                for key in sorted(found, key=lambda k: (order.get(k[0], 2), k[1], k[2]))]

    def groups(self):
        """The cells by type and layout."""
        found = {}
        for data_type, layout, shape, budgets in self.cells():
            found.setdefault((data_type, layout), []).append((shape, budgets))
        return found.items()

    def rate(self, row):
        """GB/s, and the part of the measured bandwidth."""
        gbs = row.bytes / row.us / 1e3
        part = f" ({100 * gbs / self.bandwidth:.0f} %)" if self.bandwidth else ""
        return f"{gbs:.0f}{part}"

    @staticmethod
    def ratio(rival, row):
        if row is None:
            return "-"
        return number(row.us) + (f" ({rival.us / row.us:.2f}x)" if rival else "")

    def print_main(self, out):
        print("## Attention steps, against the fastest dense rival of the cell\n", file=out)
        print("Medians in microseconds; in brackets how many times as fast as the dense rival.\n",
              file=out)
        for (data_type, layout), cells in self.groups():
            print(f"### {data_type}, {layout}\n", file=out)
            table = Table("batch", "heads", "n", "budget", "fastest dense rival", "us",
                          *(NAMES[m] for m in ("dense", "hata", "auto", "quest16", "quest32",
                                               "loki")))
            for shape, budgets in cells:
                rival = self.rival(shape, layout)
                for budget in budgets:
                    row = [self.of(m, shape, data_type, layout, budget) for m in
                           ("hata", "auto", "quest16", "quest32", "loki")]
                    dense = self.of("dense", shape, data_type, layout)
                    table.add(shape.batch, f"{shape.n_q_heads}/{shape.n_kv_heads}",
                              size(shape.n_kv), budget or "-",
                              self.name(rival, data_type) if rival else "-",
                              number(rival.us) if rival else "-",
                              *(self.ratio(rival, r) for r in [dense, *row]))
            table.print(out)

    def print_bytes(self, out):
        print("## Bytes, and how fast they are read\n", file=out)
        print("MB that a step must at least move, GB/s of these, and the part of the measured read "
              "bandwidth.\n", file=out)
        for (data_type, layout), cells in self.groups():
            print(f"### {data_type}, {layout}\n", file=out)
            table = Table("batch", "heads", "n", "budget", "dense MB", "rival GB/s",
                          "our dense GB/s", "HATA MB", "HATA GB/s", "Quest, 16 MB",
                          "Quest, 16 GB/s", "Quest, 32 MB", "Quest, 32 GB/s", "Loki MB",
                          "Loki GB/s")
            for shape, budgets in cells:
                rival = self.rival(shape, layout)
                dense = self.of("dense", shape, data_type, layout)
                for budget in budgets:
                    columns = []
                    for method in ("hata", "quest16", "quest32", "loki"):
                        row = self.of(method, shape, data_type, layout, budget)
                        columns += [number(row.bytes / 1e6), self.rate(row)] if row else ["-", "-"]
                    some = dense or rival
                    table.add(shape.batch, f"{shape.n_q_heads}/{shape.n_kv_heads}",
                              size(shape.n_kv), budget or "-",
                              number(some.bytes / 1e6) if some else "-",
                              self.rate(rival) if rival else "-",
                              self.rate(dense) if dense else "-", *columns)
            table.print(out)

    def print_sparse(self, out):
        print("## HATA against Quest and Loki, equal budget\n", file=out)
        print("Their time over HATA's: above 1, HATA is ahead.\n", file=out)
        table = Table("type", "layout", "batch", "heads", "n", "budget", "HATA us", "Quest, 16",
                      "Quest, 32", "Loki")
        for data_type, layout, shape, budgets in self.cells():
            for budget in budgets:
                hata = self.of("hata", shape, data_type, layout, budget)
                others = [self.of(m, shape, data_type, layout, budget)
                          for m in ("quest16", "quest32", "loki")]
                if hata is None or not any(others):
                    continue
                table.add(data_type, layout, shape.batch, f"{shape.n_q_heads}/{shape.n_kv_heads}",
                          size(shape.n_kv), budget, number(hata.us),
                          *(f"{r.us / hata.us:.2f}x" if r else "-" for r in others))
        table.print(out)

    def print_stages(self, out):
        print("## Stages\n", file=out)
        print("Each stage alone in a graph of its own, the gap between two kernels included, so "
              "that their sum is not the step.\n", file=out)
        table = Table("method", "type", "layout", "batch", "heads", "n", "budget", "stage", "us",
                      "MB", "GB/s")
        staged = {(r.method, r.type, layout_of(r), shape_of(r), r.budget)
                  for r in self.rows if r.stage != "step"}
        rows = [r for r in self.rows
                if (r.method, r.type, layout_of(r), shape_of(r), r.budget) in staged]
        rows.sort(key=lambda r: (r.method, r.type, layout_of(r), shape_of(r), r.budget,
                                 STAGES.index(r.stage) if r.stage in STAGES else -1))
        for r in rows:
            table.add(r.method, r.type, layout_of(r), r.batch, f"{r.n_q_heads}/{r.n_kv_heads}",
                      size(r.n_kv), r.budget, r.stage, number(r.us), number(r.bytes / 1e6),
                      self.rate(r) if r.bytes > 0 else "-")
        table.print(out)

    def print_rivals(self, out):
        print("## Dense rivals\n", file=out)
        print("All that were measured in a cell, the fastest first; microseconds.\n", file=out)
        table = Table("batch", "heads", "n", "rivals")
        for shape in sorted({shape_of(r) for r in self.rivals}):
            rivals = sorted((r for r in self.rivals if shape_of(r) == shape), key=lambda r: r.us)
            table.add(shape.batch, f"{shape.n_q_heads}/{shape.n_kv_heads}", size(shape.n_kv),
                      "; ".join(f"{r.method} {r.layout} {r.type} {number(r.us)}" for r in rivals))
        table.print(out)

    def print_spread(self, out):
        print("## Spread\n", file=out)
        if self.rows:
            worst = sorted(self.rows, key=spread)
            middle = worst[len(worst) // 2]
            print(f"(largest - smallest) / median over the replays: {100 * spread(middle):.1f} % in "
                  f"the middle measurement of {len(worst)}; the widest:\n", file=out)
            table = Table("method", "type", "layout", "batch", "heads", "n", "budget", "stage",
                          "us", "smallest", "largest")
            for r in reversed(worst[-8:]):
                table.add(r.method, r.type, r.layout, r.batch, f"{r.n_q_heads}/{r.n_kv_heads}",
                          size(r.n_kv), r.budget, r.stage, number(r.us), number(r.us_min),
                          number(r.us_max))
            table.print(out)

    def print(self, out, title):
        print(f"# {title}\n", file=out)
        if self.bandwidth:
            print(f"Measured read bandwidth: {self.bandwidth:.0f} GB/s.\n", file=out)
        for remark in self.remarks:
            print(f"- {remark}", file=out)
        print(file=out)
        self.print_main(out)
        self.print_sparse(out)
        self.print_bytes(out)
        self.print_stages(out)
        self.print_rivals(out)
        self.print_spread(out)


# --- the plot ---------------------------------------------------------------------------------

# Marker and colours (on light and on dark) of a series; the colours differ in brightness, too.
SERIES = (("fastest dense rival", "square", "#6b7280", "#9ca3af"),
          ("our dense", "diamond", "#0f766e", "#2dd4bf"),
          ("HATA", "circle", "#c2410c", "#fb923c"),
          ("Quest, 16", "up", "#1d4ed8", "#60a5fa"),
          ("Quest, 32", "down", "#6d28d9", "#a78bfa"),
          ("Loki", "cross", "#a16207", "#facc15"))

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2937; }
  .title { font-size: 15px; font-weight: 600; }
  .faint { fill: #6b7280; font-size: 11px; }
  .back { fill: #ffffff; }
  .grid { stroke: #e5e7eb; stroke-width: 1; }
  .time { stroke: #cbd5e1; stroke-width: 1; stroke-dasharray: 2 4; }
  .axis { stroke: #6b7280; stroke-width: 1; }
  .roof { stroke: #b91c1c; stroke-width: 2; }
  .rooftext { fill: #b91c1c; }
  .mark { stroke-width: 1.5; fill-opacity: 0.75; }
"""
DARK = """
    text { fill: #e5e7eb; }
    .faint { fill: #9ca3af; }
    .back { fill: #111827; }
    .grid { stroke: #263041; }
    .time { stroke: #475569; }
    .axis { stroke: #9ca3af; }
    .roof { stroke: #f87171; }
    .rooftext { fill: #f87171; }
"""


def marker(kind, x, y, r=4.5):
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    if kind == "cross":
        return (f'<path d="M{x - r:.1f} {y - r:.1f}L{x + r:.1f} {y + r:.1f}'
                f'M{x - r:.1f} {y + r:.1f}L{x + r:.1f} {y - r:.1f}"/>')
    points = {"square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
              "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
              "up": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
              "down": ((0, 1.2), (1.15, -0.9), (-1.15, -0.9))}[kind]
    path = " ".join(f"{x + a * r * 0.9:.1f},{y + b * r * 0.9:.1f}" for a, b in points)
    return f'<polygon points="{path}"/>'


def bytes_label(power):
    for unit, label in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if power >= unit:
            return f"{10 ** (power - unit)} {label}"
    return f"{10 ** power} B"


def time_label(us):
    return f"{us:g} µs" if us < 1000 else f"{us / 1000:g} ms"


def plot_points(report):
    """series -> [(bytes, GB/s, what)]"""
    points = {name: [] for name, *_ in SERIES}

    def put(series, row, more=""):
        gbs = row.bytes / row.us / 1e3
        budget = f", budget {row.budget}" if row.method in SPARSE else ""
        what = (f"{series}{more}: batch {row.batch}, {row.n_q_heads}/{row.n_kv_heads} heads, "
                f"{size(row.n_kv)} keys{budget}, {row.type}, {row.layout}: "
                f"{number(row.us)} µs, {gbs:.0f} GB/s")
        points[series].append((row.bytes, gbs, what))

    rivals = []
    for _, layout, shape, _ in report.cells():
        rival = report.rival(shape, layout)
        if rival is not None and rival not in rivals:
            rivals.append(rival)
            put("fastest dense rival", rival, f" ({rival.method})")
    for row in report.steps:
        series = NAMES.get(row.method)
        if series in points and row.bytes > 0:
            put(series, row)
    return points


def plot(report, title):
    points = plot_points(report)
    everything = [p for series in points.values() for p in series]
    if not everything:
        return None
    width, height = 860, 520
    left, right, top, bottom = 70, 200, 46, 58
    low_x = math.floor(math.log10(min(p[0] for p in everything)))
    high_x = math.ceil(math.log10(max(p[0] for p in everything)) + 1e-9)
    high_x = max(high_x, low_x + 1)
    roof = report.bandwidth
    most = max([p[1] for p in everything] + [roof])
    low_y = math.floor(math.log10(min(p[1] for p in everything)))
    high_y = math.log10(most) + 0.12
    inner_width, inner_height = width - left - right, height - top - bottom

    def at_x(value):
        return left + (math.log10(value) - low_x) / (high_x - low_x) * inner_width

    def at_y(value):
        return top + (high_y - math.log10(value)) / (high_y - low_y) * inner_height

    light = "".join(f"  .s{i} {{ fill: {a}; stroke: {a}; }}\n"
                    for i, (_, _, a, _) in enumerate(SERIES))
    dark = "".join(f"    .s{i} {{ fill: {b}; stroke: {b}; }}\n"
                   for i, (_, _, _, b) in enumerate(SERIES))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
           f'aria-label="{escape(title)}">',
           f"<style>{STYLE}{light}  @media (prefers-color-scheme: dark) {{{DARK}{dark}  }}\n</style>",
           f'<rect class="back" width="{width}" height="{height}"/>',
           f'<text class="title" x="{left}" y="24">{escape(title)}</text>',
           f'<clipPath id="inner"><rect x="{left}" y="{top}" width="{inner_width}" '
           f'height="{inner_height}"/></clipPath>']
    for power in range(low_x, high_x + 1):
        x = at_x(10.0 ** power)
        out.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" '
                   f'y2="{height - bottom}"/>')
        out.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">'
                   f"{bytes_label(power)}</text>")
    for power in range(low_y, math.floor(high_y) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0 ** power
            if not 10.0 ** low_y <= value <= 10.0 ** high_y:
                continue
            y = at_y(value)
            out.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{width - right}" '
                       f'y2="{y:.1f}"/>')
            out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    # Equal times are rising diagonals: where a kernel takes as long for few bytes, points follow one.
    for power in range(-1, 7):
        us = 10.0 ** power
        # bytes -> GB/s: bytes / us / 1000; the part of it inside the frame.
        x1 = max(low_x, low_y + math.log10(us * 1e3))
        x2 = min(high_x, high_y + math.log10(us * 1e3))
        if x2 - x1 < 0.05:
            continue
        y1, y2 = (10.0 ** x / us / 1e3 for x in (x1, x2))
        out.append(f'<line class="time" x1="{at_x(10.0 ** x1):.1f}" y1="{at_y(y1):.1f}" '
                   f'x2="{at_x(10.0 ** x2):.1f}" y2="{at_y(y2):.1f}"/>')
        out.append(f'<text class="faint" x="{at_x(10.0 ** x1) + 4:.1f}" '
                   f'y="{at_y(y1) - 6:.1f}">{time_label(us)}</text>')
    out.append(f'<path class="axis" fill="none" d="M{left} {top}V{height - bottom}H{width - right}"/>')
    if roof:
        y = at_y(roof)
        out.append(f'<line class="roof" x1="{left}" y1="{y:.1f}" x2="{width - right}" '
                   f'y2="{y:.1f}"/>')
        out.append(f'<text class="rooftext" x="{width - right - 4}" y="{y - 6:.1f}" '
                   f'text-anchor="end">measured read bandwidth, {roof:.0f} GB/s</text>')
    out.append('<g clip-path="url(#inner)">')
    for index, (name, kind, _, _) in enumerate(SERIES):
        for moved, gbs, what in points[name]:
            out.append(f'<g class="mark s{index}"><title>{escape(what)}</title>'
                       f"{marker(kind, at_x(moved), at_y(gbs))}</g>")
    out.append("</g>")
    y = top + 8
    for index, (name, kind, _, _) in enumerate(SERIES):
        if points[name]:
            out.append(f'<g class="mark s{index}">{marker(kind, width - right + 22, y)}</g>')
            out.append(f'<text x="{width - right + 36}" y="{y + 4}">{escape(name)}</text>')
            y += 22
    out.append(f'<text x="{left + inner_width / 2}" y="{height - 16}" text-anchor="middle">'
               "least bytes of a step</text>")
    out.append(f'<text transform="translate(18 {top + inner_height / 2}) rotate(-90)" '
               'text-anchor="middle">GB/s of these bytes</text>')
    out.append(f'<text class="faint" x="{width - right + 16}" y="{height - bottom}">'
               "dotted: equal times</text>")
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main(arguments=None, out=sys.stdout):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--svg", metavar="FILE", help="writes the roofline plot")
    parser.add_argument("--bandwidth", type=float, metavar="GB/S",
                        help="measured read bandwidth, in place of the files' remark")
    parser.add_argument("--title", default="Attention steps on a GPU")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args(arguments)
    measurements = Measurements()
    for name in args.files:
        with open(name, encoding="utf-8") as file:
            measurements.read(file, name)
    if args.bandwidth:
        measurements.bandwidth = args.bandwidth
    report = Report(measurements)
    report.print(out, args.title)
    if args.svg:
        picture = plot(report, args.title)
        if picture is None:
            print("nothing to plot", file=sys.stderr)
            return 1
        with open(args.svg, "w", encoding="utf-8") as file:
            file.write(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
