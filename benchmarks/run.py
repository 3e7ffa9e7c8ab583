"""Measure server_state beside streamlit-server-state: `python benchmarks/run.py`, some seven minutes on two cores.

Everything is measured on real servers, ours and the peer's in turn. Prints the table, and writes `results.md` and
`growth.svg` beside this file.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from streamlit_client import Server, Tab, wait_for  # noqa: E402 - it stands in e2e/

IMPORTS = {
    "ours": "from server_state import server_state",
    "peer": "from streamlit_server_state import server_state",
    "alone": "from alone import server_state",
}
ALONE = """
from streamlit.runtime import get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

class State(dict):  # what Streamlit takes for so many runs, asked for at once with nothing else done
    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        me, sessions = get_script_run_ctx().session_id, get_instance()._session_mgr.list_sessions()
        others = [info.session for info in sessions if info.session.id != me]
        if others:
            others[0]._event_loop.call_soon_threadsafe(lambda: [s.request_rerun(s._client_state) for s in others])

server_state = State()
"""
READERS = """
import json, os, sys, threading, time
import streamlit as st
{import_}
import tally

tally.started += 1
if "value" not in server_state:
    server_state["value"] = 0
if st.button("write"):
    with open("next") as file:
        value = int(file.read())
    begun = time.perf_counter()
    server_state["value"] = value
    took = time.perf_counter() - begun
    with open("took", "w") as file:
        file.write(str(took))

def work(times, pause):
    threads, cpu, written, started = [], time.process_time(), {{}}, time.time()
    for i in range(times):
        if time.time() - started > 1.2 * times * pause:
            break  # the peer blocks the writer for longer than the pause
        time.sleep(pause)
        value = 1000 + i
        written[value] = time.time()
        server_state["value"] = value
        threads.append(threading.active_count())
    time.sleep(3)
    with open("work.json", "w") as file:
        json.dump([threads, time.process_time() - cpu, tally.started, tally.ended, written], file)

if st.button("work"):
    tally.started = tally.ended = 0
    threading.Thread(target=work, args={work}).start()
st.markdown(f"value is {{server_state['value']}}.")

@st.fragment
def own():
    st.session_state.mine = st.session_state.get("mine", 0) + st.button("mine")
    st.markdown(f"mine is {{st.session_state.mine}}.")
own()
time.sleep({sleep})
tally.ended += 1
"""
MICRO_ROWS = [  # what, row, unit, ours, beside, to reach as a ratio, or as an own limit
    ("read a key in a script", "read", "µs", "ours", "peer", 0.7, None),
    ("the same beside `st.session_state`", "read", "µs", "ours", "session_state", 1.0, None),
    ("the same beside a dict with a lock", "read", "µs", "ours", "dict_and_lock", None, None),
    ("`key in server_state`", "contains", "µs", "ours", "peer", 0.7, None),
    ("the same beside `st.session_state`", "contains", "µs", "ours", "session_state", 1.0, None),
    ("write a changed int, nobody reading", "write an int", "µs", "ours", "peer", 0.9, None),
    ("lock and release, beside a bare RLock", "lock", "µs", "ours", "bare", 6, None),
    ("the same beside the peer's lock", "lock", "µs", "ours", "peer", None, None),
    ("the same beside the thinnest lock in Python that notes its holder", "lock", "µs", "ours", "thinnest", None, None),
    (
        "to know in which run we are, beside Streamlit's part of that",
        "where am I",
        "µs",
        "ours",
        "streamlit",
        None,
        None,
    ),
    ("append to a chat of 10", "append to 10", "µs", "ours", "peer", None, None),
    ("append to a chat of 1,000", "append to 1000", "µs", "ours", "peer", 0.6, None),
    ("append to a chat of 10,000", "append to 10000", "µs", "ours", "peer", 0.6, None),
    (
        "the inspector looks at a chat of 10 (beside one write)",
        "look at 10",
        "µs",
        "end_of_run",
        "peer_write",
        0.6,
        None,
    ),
    (
        "the same beside the thinnest look, a pickler and a digest",
        "look at 10",
        "µs",
        "end_of_run",
        "thinnest",
        None,
        None,
    ),
    ("the same, 1,000", "look at 1000", "µs", "end_of_run", "peer_write", 0.6, None),
    ("the same, 10,000", "look at 10000", "µs", "end_of_run", "peer_write", 0.6, None),
    ("a lock is held and released around nothing, its key a chat of 10", "look at 10", "µs", "release", "peer_write", 0.6, None),
    ("the same, 1,000", "look at 1000", "µs", "release", "peer_write", 0.6, None),
    ("the same, 10,000", "look at 10000", "µs", "release", "peer_write", 0.6, None),
    ("one cell of a 100,000-row frame (the peer does not look)", "frame", "µs", "ours", "peer", None, 10_000),
    ("one element of an 8 MB array (the peer does not look)", "array", "µs", "ours", "peer", None, 10_000),
    ("an object full of locks, generators and functions", "opaque", "µs", "ours", "peer", None, 1000),
    ("a single 1 GB array", "1 GB array", "µs", "ours", None, None, 1000),
    (
        "1 GB in a thousand arrays, beside a digest of FINGERPRINT_LIMIT",
        "1 GB in a thousand",
        "µs",
        "ours",
        "limit",
        None,
        None,
    ),
]


PATIENCE = 30  # seconds after which a tab that does not show a change is taken to be stale


class TimedTab(Tab):
    """A tab that notes when it was told a text."""

    def __init__(self, server: Server) -> None:
        self.times: dict[str, float] = {}
        super().__init__(server, patience=120)

    def draw(self, place: tuple[int, ...], element: Any, fragment: str) -> None:
        super().draw(place, element, fragment)
        self.times.setdefault(self.shown[place], time.perf_counter())


def serve(kind: str, work: str = "(20, 1.0)", sleep: float = 0.0, **options: str) -> Server:
    app = READERS.format(import_=IMPORTS[kind], work=work, sleep=sleep)
    return Server(app, {"tally.py": "started = ended = 0\n", "alone.py": ALONE}, **options)


def tabs_of(server: Server, count: int) -> list[TimedTab]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: TimedTab(server), range(count)))


def quiet(server: Server, tabs: list[TimedTab]) -> None:
    """Wait until no tab has been told anything for a second."""
    last: list[Any] = [None, time.monotonic()]

    def is_quiet() -> bool:
        now = [tab.started + tab.script_runs + tab.fragment_runs for tab in tabs]
        if now != last[0]:
            last[:] = [now, time.monotonic()]
        return time.monotonic() - last[1] > 1

    wait_for("quiet", is_quiet, 120)


def micro() -> dict[str, dict[str, list[float]]]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RESULTS"] = f"{folder}/results.json"
        server = Server((HERE / "micro_app.py").read_text())
        try:
            tab = Tab(server, patience=300)
            wait_for("the measurements", lambda: "measured" in tab.text(), 300)
            tab.close()
            return json.loads(Path(os.environ["RESULTS"]).read_text())
        finally:
            server.stop()


def one_write(
    counts: dict[str, list[int]], rounds: int, collecting: str
) -> dict[tuple[str, int], dict[str, list[float]]]:
    """How long a write blocks the writer, and until tabs show it; with a bystander's click 0.1 s later."""
    results: dict[tuple[str, int], dict[str, list[float]]] = {}
    for count in sorted({count for some in counts.values() for count in some}):
        kinds = [kind for kind in counts if count in counts[kind]]
        servers = {kind: serve(kind, runner__postScriptGC=collecting) for kind in kinds}
        try:
            tabs = {kind: tabs_of(servers[kind], count + 1) for kind in kinds}
            for round_ in range(1, rounds + 1):
                for kind in kinds:
                    writer, bystander = tabs[kind][:2]
                    quiet(servers[kind], tabs[kind])
                    shown, mine = f"value is {round_}.", f"mine is {round_}."
                    begun = time.perf_counter()
                    (servers[kind].folder / "next").write_text(str(round_))
                    writer.click("write")
                    time.sleep(0.1)
                    clicked = time.perf_counter()
                    bystander.click("mine")
                    readers = tabs[kind][1:]
                    with contextlib.suppress(AssertionError):  # the peer leaves a tab stale now and then
                        wait_for(shown, lambda r=readers, s=shown: all(s in tab.times for tab in r), PATIENCE)
                    seconds = sorted(tab.times.get(shown, float("inf")) - begun for tab in readers)
                    result = results.setdefault((kind, count), {})
                    result.setdefault("first", []).append(seconds[0])
                    result.setdefault("median", []).append(statistics.median(seconds))
                    result.setdefault("last", []).append(seconds[-1])
                    result.setdefault("stale", []).append(seconds.count(float("inf")))
                    result.setdefault("blocked", []).append(float((servers[kind].folder / "took").read_text() or "nan"))
                    while mine not in bystander.times:  # the peer loses some, and its user clicks again
                        again = time.monotonic() + 10
                        wait_for(mine, lambda b=bystander, m=mine, a=again: m in b.times or time.monotonic() > a, 120)
                        if mine not in bystander.times:
                            bystander.click("mine")
                    result.setdefault("bystander", []).append(bystander.times[mine] - clicked)
            for tab in [tab for some in tabs.values() for tab in some]:
                tab.close()
        finally:
            for server in servers.values():
                server.stop()
    return results


def worked(kind: str, count: int, work: str, sleep: float) -> dict[str, float]:
    """A thread that writes on, before so many tabs."""
    server = serve(kind, work, sleep)
    try:
        tabs = tabs_of(server, count)
        quiet(server, tabs)
        tabs[0].click("work")
        done = server.folder / "work.json"
        wait_for("the work", done.exists, 120)
        time.sleep(0.5)
        threads, cpu, started, ended, written = json.loads(done.read_text())
        offset = time.time() - time.perf_counter()
        behind = []
        for value, when in written.items():
            later = [
                {int(text.split()[-1][:-1]): at for text, at in tab.times.items() if text.startswith("value is 1")}
                for tab in tabs[1:]
            ]
            shown = [min((at for v, at in some.items() if v >= int(value)), default=float("inf")) for some in later]
            behind.append(statistics.median(shown) + offset - when)
        quiet(server, tabs)
        for tab in tabs:
            tab.close()
        return {
            "behind": statistics.median(behind),
            "threads": max(threads),
            "before": threads[0],
            "cpu": cpu,
            "started": started,
            "ended": ended,
        }
    finally:
        server.stop()


MEMORY = """
import gc, tracemalloc
import streamlit as st
from server_state import server_state
if not tracemalloc.is_tracing():
    tracemalloc.start()
for i in range(20):
    server_state.setdefault(f"key {i}", i)
if st.button("measure"):
    gc.collect()
    gc.collect()
    traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/server_state.py")])
    st.markdown(f"bytes are {sum(trace.size for trace in traces.traces)}.")
"""


def memory() -> tuple[float, float]:
    """Bytes for each idle session that has read 20 keys, and for each when all are gone."""
    server = Server(MEMORY, server__disconnectedSessionTTL="1")
    try:
        one = TimedTab(server)

        def measured() -> int:
            runs = one.script_runs
            one.click("measure")
            wait_for("the measurement", lambda: one.script_runs > runs)
            return int(one.text().split("bytes are ")[1].split(".")[0])

        measured()
        before, count = measured(), 100
        tabs = tabs_of(server, count)
        quiet(server, tabs)
        full = measured()
        for tab in tabs:
            tab.close()
        deadline = time.monotonic() + 30
        after = full
        while after - before > 0.05 * (full - before) and time.monotonic() < deadline:
            Tab(server).close()
            after = measured()
        return (full - before) / count, (after - before) / count
    finally:
        server.stop()


def import_times() -> dict[str, float]:
    """Milliseconds of an import, and whether Streamlit was imported by it."""
    code = (
        "import sys, time; t = time.perf_counter(); import {}; "
        "print((time.perf_counter() - t) * 1000, 'streamlit' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE.parent / "server_state.py", folder)
        for round_ in range(8):
            for name in ("server_state", "streamlit_server_state"):
                command = [sys.executable, "-c", code.format(name)]
                done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
                milliseconds, has_streamlit = done.stdout.split()
                assert (has_streamlit == "True") == (name != "server_state")
                if round_:  # the first compiles it
                    times.setdefault(name, []).append(float(milliseconds))
    return {name: statistics.median(some) for name, some in times.items()}


class Table:
    def __init__(self) -> None:
        self.lines = [
            "| what | ours | beside it | ratio | to reach | reached |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        self.missed: list[str] = []
        print(*self.lines, sep="\n")

    def add(
        self, what: str, ours: Any, beside: Any, unit: str, ratio: float | None, limit: float | None = None
    ) -> None:
        """Values are a number, or a list of rounds, of which the median and the spread are given."""

        def median(value: Any) -> float:
            return statistics.median(value) if isinstance(value, list) else value

        def text(value: Any) -> str:
            spread = f" ({min(value):.3g} to {max(value):.3g})" if isinstance(value, list) else ""
            return "" if value is None else f"{median(value):.3g}{spread} {unit}"

        of = None if beside is None else median(ours) / median(beside)
        reached = (ratio is None or (of is not None and of <= ratio)) and (limit is None or median(ours) <= limit)
        goals = ([f"{ratio:g} of it"] if ratio is not None else []) + (
            [f"{limit:g} {unit}"] if limit is not None else []
        )
        word = "" if not goals else "yes" if reached else "**no**"
        cells = (what, text(ours), text(beside), "" if of is None else f"{of:.2g}", ", ".join(goals), word)
        line = f"| {' | '.join(cells)} |"
        self.lines.append(line)
        if goals and not reached:
            self.missed.append(what)
        print(line, flush=True)


def chart(measured: dict[str, dict[str, list[float]]], written: dict[tuple[str, int], dict[str, list[float]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(13, 3))
    for axis, (title, name) in zip(
        axes,
        (
            ("a write, by items in a list", "size"),
            ("to_dict(), by keys", "keys"),
            ("lock and release, by locks held", "locks"),
        ),
        strict=False,
    ):
        points = sorted(
            (int(row.split()[-1]), r["ours"][0]) for row, r in measured.items() if row.startswith(f"grow {name}")
        )
        axis.loglog(*zip(*points, strict=True), marker="o")
        axis.set_title(title, fontsize=9)
        axis.set_ylabel("µs", fontsize=8)
    for kind in ("ours", "peer"):
        points = sorted(
            (count, statistics.median(r["blocked"]) * 1e6) for (k, count), r in written.items() if k == kind
        )
        axes[3].loglog(*zip(*points, strict=True), marker="o", label=kind)
    axes[3].set_title("writer blocked, by readers", fontsize=9)
    axes[3].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE / "growth.svg", metadata={"Date": None})


def main() -> None:
    begun = time.monotonic()
    table = Table()
    measured = micro()
    for what, row, unit, ours, beside, ratio, limit in MICRO_ROWS:
        values = measured[row]
        table.add(what, values[ours], values[beside] if beside else None, unit, ratio, limit)

    default = one_write({"ours": [1, 10, 100, 300], "peer": [1, 10, 100]}, 5, "true")
    for count in (1, 10, 100, 300):
        ours, peer = default["ours", count], default.get(("peer", count))
        in_ms = [seconds * 1000 for seconds in ours["blocked"]]
        peer_ms = peer and [seconds * 1000 for seconds in peer["blocked"] if seconds == seconds]
        table.add(
            f"the writer is blocked, {count} readers", in_ms, peer_ms or None, "ms", 0.02 if count == 100 else None, 1
        )
    for what, goal in (("first", None), ("median", 0.3), ("last", 0.3), ("bystander", 0.3)):
        name = "a bystander's click meanwhile" if what == "bystander" else f"until the {what} of 100 tabs shows it"
        table.add(f"{name}, default settings", default["ours", 100][what], default["peer", 100][what], "s", goal)
    without = one_write({"ours": [100], "peer": [100], "alone": [100]}, 9, "false")
    for what, goal in (("first", None), ("median", 0.9), ("last", 0.9), ("bystander", None)):
        name = "a bystander's click meanwhile" if what == "bystander" else f"until the {what} of 100 tabs shows it"
        table.add(f"{name}, `postScriptGC=false`", without["ours", 100][what], without["peer", 100][what], "s", goal)
        if what == "last":
            table.add(
                "the same beside Streamlit alone", without["ours", 100][what], without["alone", 100][what], "s", None
            )

    stale = dict.fromkeys(IMPORTS, 0.0)
    for (kind, _), result in [*default.items(), *without.items()]:
        stale[kind] += sum(result["stale"])
    what = f"tabs left stale for {PATIENCE} s in all these rounds (beside the peer's {stale['peer']:g})"
    table.add(what, stale["ours"], None, "", None, 0)

    slow = {kind: worked(kind, 60, "(20, 1.0)", 0.0) for kind in ("ours", "peer")}
    table.add(
        "a change a second for 20 s, 60 readers: median tab behind",
        slow["ours"]["behind"],
        slow["peer"]["behind"],
        "s",
        1.0,
    )
    table.add("the same: most threads alive", slow["ours"]["threads"], slow["peer"]["threads"], "", None)
    storm = {kind: worked(kind, 20, "(500, 0.02)", 0.1) for kind in ("ours", "peer")}
    ours, peer = storm["ours"], storm["peer"]
    table.add(
        "50 writes a second for 10 s, 20 tabs, scripts of 0.1 s: the peer's runs finished, beside ours",
        peer["ended"],
        ours["ended"],
        "",
        0.2,
    )
    table.add("the same: runs started, beside finished", ours["started"], ours["ended"], "", 1.1)
    table.add("the same: CPU of the server", ours["cpu"], peer["cpu"], "s", None)
    used, left = memory()
    table.add("memory for an idle session that has read 20 keys", used, None, "bytes", None, 4096)
    table.add("the same when it is gone", left, None, "bytes", None, 0.05 * used)
    imports = import_times()
    table.add("import", imports["server_state"], imports["streamlit_server_state"], "ms", None, 20)

    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("streamlit", "streamlit-server-state")
    )
    minutes = (time.monotonic() - begun) / 60
    text = [
        "# Results",
        "",
        f"Written by `python benchmarks/run.py` on {datetime.date.today()}: Python {platform.python_version()}, "
        f"{versions}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores; {minutes:.0f} minutes.",
        "Medians of alternating rounds, and the smallest and largest in brackets.",
        "",
        *table.lines,
        "",
        (HERE / "notes.md").read_text() if (HERE / "notes.md").exists() else "",
        "![How costs grow](growth.svg)",
    ]
    (HERE / "results.md").write_text("\n".join(text) + "\n")
    chart(measured, default)
    print("not reached:", *(table.missed or ["nothing"]), sep="\n  ")


if __name__ == "__main__":
    main()
