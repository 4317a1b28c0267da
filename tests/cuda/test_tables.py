"""tables.py on made-up measurements: which rival counts, ratios, cut-off lines, the plot."""

import io
import sys
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "cuda"))
import tables  # noqa: E402

HEADER = ",".join(tables.FIELDS)
OURS = f"""{HEADER}
# device=A card
# bandwidth_gbs=4000
dense,8,32,8,128,f16,contiguous,32768,32768,step,250,248,251,1073741824
hata,8,32,8,128,f16,contiguous,32768,512,step,25,24,26,54000000
hata,8,32,8,128,f16,contiguous,32768,512,encode,3,3,3,1000
hata,8,32,8,128,f16,contiguous,32768,512,attend,10,10,10,34000000
auto,8,32,8,128,f16,contiguous,32768,512,step,25.5,25,26,54000000
quest16,8,32,8,128,f16,contiguous,32768,512,step,40,39,41,100000000
loki,8,32,8,128,f16,contiguous,32768,512,step,60,59,61,160000000
hata,8,32,8,128,f16,paged16,32768,512,step,30,29,31,54000000
hata,8,32,8,128,f16,contiguous,32768,51
"""
RIVALS = f"""{HEADER}
# device=A card
torch-cudnn,8,32,8,128,f16,contiguous,32768,0,step,300,299,301,1073741824
torch-cudnn,8,32,8,128,f16,head-major,32768,0,step,240,239,241,1073741824
fa3,8,32,8,128,bf16,contiguous,32768,0,step,200,199,260,1073741824
flashinfer-tc,8,32,8,128,f16,paged16,32768,0,step,270,269,271,1073741824
flashinfer-tc,8,32,8,128,f16,paged16,32768,0,step,260,259,271,1073741824
fa3,1,32,8,128,bf16,contiguous,32768,0,step,1,1,1,134217728
# failed: torch-flash
"""


def report(*texts):
    measurements = tables.Measurements()
    for text in texts:
        measurements.read(text.splitlines(), "made-up")
    return tables.Report(measurements)


class Tables(unittest.TestCase):
    def setUp(self):
        self.report = report(OURS, RIVALS)
        out = io.StringIO()
        self.report.print(out, "Made up")
        self.text = out.getvalue()

    def row(self, *starts):
        """The first table row whose first cells are these."""
        for line in self.text.splitlines():
            cells = [c.strip() for c in line.strip("|").split("|")]
            if tuple(cells[:len(starts)]) == starts:
                return cells
        self.fail(f"no row {starts} in\n{self.text}")

    def test_the_fastest_rival_of_any_type_is_the_denominator(self):
        cells = self.row("8", "32/8", "32K", "512")
        self.assertEqual("fa3, bf16", cells[4])
        self.assertEqual("200", cells[5])
        self.assertEqual(["250 (0.80x)", "25.0 (8.00x)", "25.5 (7.84x)", "40.0 (5.00x)", "-",
                          "60.0 (3.33x)"], cells[6:])

    def test_a_paged_cache_has_paged_rivals(self):
        rival = self.report.rival(tables.Shape(32, 8, 128, 8, 32768), "paged")
        self.assertEqual(("flashinfer-tc", 260.0), (rival.method, rival.us))
        self.assertIn("30.0 (8.67x)", self.text)

    def test_quest_and_loki_over_hata(self):
        self.assertEqual(["25.0", "1.60x", "-", "2.40x"],
                         self.row("f16", "contiguous", "8", "32/8", "32K", "512")[6:])

    def test_bytes_and_bandwidth(self):
        self.assertIn("2160 (54 %)", self.text)  # 54 MB in 25 us of 4000 GB/s
        self.assertIn("Measured read bandwidth: 4000 GB/s", self.text)

    def test_stages_come_with_their_step(self):
        stages = [line for line in self.text.splitlines() if line.startswith("| hata | f16")]
        self.assertEqual(["encode", "attend", "step"],
                         [line.split("|")[8].strip() for line in stages][:3])

    def test_what_is_cut_off_or_failed_is_told(self):
        self.assertIn("made-up, line 12: not a measurement", self.text)
        self.assertIn("- failed: torch-flash", self.text)
        self.assertEqual(1, self.text.count("device=A card"))

    def test_only_our_cells_make_rows(self):
        self.assertNotIn("| 1 | 32/8 | 32K | -", self.text)

    def test_plot(self):
        picture = tables.plot(self.report, "Made <up> & more")
        root = ElementTree.fromstring(picture)
        titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
        # 7 of our steps (2 of HATA) without `auto`, and the two rivals.
        self.assertEqual(7, len(titles))
        self.assertTrue(any(t.startswith("HATA: batch 8, 32/8 heads, 32K keys, budget 512")
                            for t in titles))
        self.assertIn("prefers-color-scheme: dark", picture)
        self.assertIn("measured read bandwidth, 4000 GB/s", picture)

    def test_nothing(self):
        empty = report("")
        empty.print(io.StringIO(), "Nothing")
        self.assertIsNone(tables.plot(empty, "Nothing"))


if __name__ == "__main__":
    unittest.main()
