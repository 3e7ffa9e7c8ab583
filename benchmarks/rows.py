"""What was measured: rows of a table and curves of a chart, kept in `results.json` between runs of some groups only."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCALES = {"s": (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))}


@dataclasses.dataclass
class Row:
    """Rounds of ours, of what stands beside it, and what is to be reached."""

    what: str
    ours: list[float]
    beside: list[float] = dataclasses.field(default_factory=list)
    beside_what: str = "the peer"
    unit: str = "s"
    ratio: float | None = None  # the target, as a part of what stands beside it
    limit: float | None = None  # the target in the row's unit
    is_at_least: bool = False  # more is better

    @property
    def reached_ratio(self) -> float | None:
        if not self.beside or not statistics.median(self.beside):
            return None
        return statistics.median(self.ours) / statistics.median(self.beside)

    @property
    def target(self) -> str:
        goals = [] if self.ratio is None else [f"{self.ratio:g} of it"]
        if self.limit is not None:
            scale, name = scale_of(self.limit, self.unit)
            goals.append(f"{self.limit / scale:,g} {name}")
        most = "at least " if self.is_at_least else ""
        return most + ", ".join(goals) if goals else ""

    @property
    def is_met(self) -> bool | None:
        """None for a row without a target."""
        pairs = [(self.reached_ratio, self.ratio), (statistics.median(self.ours), self.limit)]
        goals = [(reached, target) for reached, target in pairs if target is not None]
        if not goals:
            return None
        if self.is_at_least:
            return all(reached is not None and reached >= target for reached, target in goals)
        return all(reached is not None and reached <= target for reached, target in goals)

    def line(self) -> str:
        ratio = "" if self.reached_ratio is None else three_digits(self.reached_ratio)
        met = {None: "", True: "yes", False: "**no**"}[self.is_met]
        beside = f"{self.beside_what}: {figure(self.beside, self.unit)}" if self.beside else ""
        return f"| {self.what} | {figure(self.ours, self.unit)} | {beside} | {ratio} | {self.target} | {met} |"


HEAD = "| what | ours | beside it | ratio | target | met |\n| --- | --- | --- | --- | --- | --- |"


def scale_of(value: float, unit: str) -> tuple[float, str]:
    for name, scale in SCALES.get(unit, ()):
        if abs(value) >= scale * 0.9995 and math.isfinite(value):
            return scale, name
    return 1.0, unit


def three_digits(value: float) -> str:
    """Three significant digits, and no exponent."""
    if not math.isfinite(value):
        return "never" if value > 0 else "unknown"
    if value == 0:
        return "0"
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):,.{max(0, decimals)}f}"


def figure(values: list[float], unit: str) -> str:
    """The median, and the smallest and the largest if there are several."""
    scale, name = scale_of(statistics.median(values), unit)
    numbers = [three_digits(value / scale) for value in (statistics.median(values), min(values), max(values))]
    spread = f" ({numbers[1]} to {numbers[2]})" if len(values) > 1 else ""
    return f"{numbers[0]} {name}{spread}" if math.isfinite(statistics.median(values)) else f"{numbers[0]}{spread}"


@dataclasses.dataclass
class Curve:
    """How a cost in seconds grows."""

    title: str
    name: str
    points: list[tuple[float, float]]


@dataclasses.dataclass
class Result:
    """What a run of one group gave."""

    date: str
    circumstances: str
    minutes: float
    rows: list[Row] = dataclasses.field(default_factory=list)
    curves: list[Curve] = dataclasses.field(default_factory=list)


def read_results() -> dict[str, Result]:
    path = HERE / "results.json"
    if not path.exists():
        return {}
    results = {}
    for group, fields in json.loads(path.read_text()).items():
        fields["rows"] = [Row(**row) for row in fields["rows"]]
        fields["curves"] = [Curve(**curve) for curve in fields["curves"]]
        results[group] = Result(**fields)
    return results


def write_results(results: dict[str, Result], titles: dict[str, str]) -> None:
    """Write all groups, those of this run and of earlier ones, in the order of the titles."""
    results = {group: results[group] for group in titles if group in results}
    raw = {group: _rounded(dataclasses.asdict(result)) for group, result in results.items()}
    (HERE / "results.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    text = [
        "# Results",
        "",
        "Written by `python benchmarks/run.py`: medians of alternating rounds, the smallest and largest in brackets.",
    ]
    for group, result in results.items():
        when = f"`{group}`, {result.date}, {result.minutes:.1f} minutes: {result.circumstances}."
        text += ["", f"## {titles[group]}", "", when, "", HEAD, *(row.line() for row in result.rows)]
    notes = (HERE / "notes.md").read_text().rstrip()
    text += ["", notes, "", "![How costs grow](growth.svg)"]
    (HERE / "results.md").write_text("\n".join(text) + "\n")
    draw([curve for result in results.values() for curve in result.curves])


def _rounded(value: Any) -> Any:
    """Keep four digits: more would only be noise in the file's history."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return value


def draw(curves: list[Curve]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "growth"  # the same curves are the same file
    titles = list(dict.fromkeys(curve.title for curve in curves))
    if not titles:
        return
    figure_, axes = pyplot.subplots(1, len(titles), figsize=(3.25 * len(titles), 3), squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        for curve in curves:
            if curve.title == title:
                sizes, seconds = zip(*curve.points, strict=True)
                axis.loglog(sizes, [one * 1e6 for one in seconds], marker="o", label=curve.name)
        axis.set_title(title, fontsize=9)
        axis.set_ylabel("µs", fontsize=8)
        axis.legend(fontsize=8)
    figure_.tight_layout()
    figure_.savefig(HERE / "growth.svg", metadata={"Date": None})
