"""The README's figures are those of benchmarks/results.md, which `benchmarks/run.py` writes.

`python .ci/test_figures.py --write` takes them over, for the rows that the README names.
"""

from __future__ import annotations

import re
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
UNITS = {"ms": 1e-3, "µs": 1e-6, "ns": 1e-9}  # others are taken as they are


def tables(text: str) -> list[list[str]]:
    """Give the cells of each row of all tables, their heads too."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def figures() -> list[list[str]]:
    """Give the README's rows: what was measured, our time, and the ratio to the package's."""
    return tables(README.read_text().split("\n## Figures\n")[1])[1:]


def results(text: str) -> dict[str, tuple[str, str]]:
    """Give our time and the ratio of each row. Of several with one name, the first stands beside the package."""
    found: dict[str, tuple[str, str]] = {}
    for what, ours, _, ratio, *_ in tables(text):
        found.setdefault(what, (ours.split(" (")[0] + _unit_after(ours), ratio))
    return found


def _unit_after(cell: str) -> str:
    """Give the unit where it stands behind the brackets: `1.5 (1.4 to 1.6) µs`."""
    match = re.search(r"\)( \S+)$", cell)
    return match[1] if match else ""


def parse(cell: str) -> tuple[float, float]:
    """Give a figure in seconds, and the half of its last digit: what rounding may have taken from it."""
    number, _, unit = cell.replace(",", "").partition(" ")
    decimals = len(number.partition(".")[2]) if "e" not in number else 0
    scale = UNITS.get(unit, 1.0)
    return float(number) * scale, 0.5 * 10**-decimals * scale


def differ(shown: str, measured: str) -> bool:
    value, half_digit = parse(shown)
    return abs(value - parse(measured)[0]) > half_digit * 1.0001


class Figures(unittest.TestCase):
    def test_the_readme_quotes_the_results(self) -> None:
        measured = results((ROOT / "benchmarks" / "results.md").read_text())
        self.assertGreater(len(figures()), 4)
        for what, *shown in figures():
            with self.subTest(what):
                self.assertTrue(what in measured, "no such row in benchmarks/results.md")
                for ours, theirs in zip(shown, measured[what], strict=True):
                    self.assertFalse(differ(ours, theirs), f"{ours} in the README, {theirs} in the results")

    def test_this_test(self) -> None:
        """A figure may be rounded to the digits that are shown, and no more."""
        for shown, measured in (("0.05", "0.051"), ("35 µs", "34.5 µs"), ("1.5 ms", "1,480 µs"), ("3", "3.2e+00")):
            self.assertFalse(differ(shown, measured), (shown, measured))
        for shown, measured in (("0.05", "0.0551"), ("35 µs", "35.6 µs"), ("1.5 ms", "1.5 s"), ("11", "5.3")):
            self.assertTrue(differ(shown, measured), (shown, measured))
        row = "| a | 1.5 (1.4 to 1.6) µs | the peer: 3 (2 to 4) µs | 0.5 | 1 of it | yes |\n"
        other = "| b | 2.5 ms (1 to 3) | | | | |\n"
        self.assertEqual(results(row + other), {"a": ("1.5 µs", "0.5"), "b": ("2.5 ms", "")})


def write() -> None:
    measured = results((ROOT / "benchmarks" / "results.md").read_text())
    text = README.read_text()
    for what, *shown in figures():
        if what not in measured:
            sys.exit(f"no such row in benchmarks/results.md: {what}")
        text = text.replace(f"| {' | '.join((what, *shown))} |", f"| {' | '.join((what, *measured[what]))} |")
    README.write_text(text)


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        unittest.main()
