"""Measure server_state beside streamlit-server-state: `python benchmarks/run.py`, about a quarter of an hour.

Everything is measured on real servers, ours and the peer's in turn. Prints the rows, and writes `results.md`,
`results.json` and `growth.svg` beside this file. `python benchmarks/run.py calls chat` measures two groups only; the
others keep the rows of their last run.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tabs
from messages import MAKERS
from rows import HEAD, HERE, Curve, Result, Row, read_results, write_results
from tabs import PATIENCE, Followed

sys.path.insert(0, str(HERE.parent / "e2e"))
from streamlit_client import Tab, wait_for

Measured = Iterator["Row | Curve"]
Times = dict[str, dict[str, list[float]]]

NAMES = {
    "peer": "the peer",
    "peer_write": "the peer's write",
    "session_state": "`st.session_state`",
    "dict_and_lock": "a dict with a lock",
    "bare": "a bare RLock",
    "thinnest_lock": "the thinnest lock in Python that notes its holder",
    "thinnest_look": "a pickler and a digest alone",
    "streamlit": "Streamlit's part of that",
    "limit": "a digest of 64 MiB",
}


@dataclass(frozen=True)
class Call:
    """A row of single calls, by the names that `micro_app.py` gives them."""

    what: str
    measured: str
    beside: str | None = "peer"
    ratio: float | None = None
    limit: float | None = None
    ours: str = "ours"

    def row(self, times: Times) -> Row:
        some = times[self.measured]
        beside = some[self.beside] if self.beside else []
        return Row(self.what, some[self.ours], beside, NAMES[self.beside or "peer"], ratio=self.ratio, limit=self.limit)


SHORT = "a chat of 10"
STREAMLIT = "Streamlit alone"

LOOK = "the inspector looks at a chat of"
HELD = "a lock is held and released around nothing, its key a chat of"
CALLS = [
    Call("read a key in a script", "read", ratio=0.7),
    Call("read a key in a script", "read", "session_state", ratio=1.0),
    Call("read a key in a script", "read", "dict_and_lock"),
    Call("`key in server_state`", "contains", ratio=0.7),
    Call("`key in server_state`", "contains", "session_state", ratio=1.0),
    Call("write a changed int, nobody reading", "write an int", ratio=0.9),
    Call("lock and release, without a value", "lock", "bare", ratio=6),
    Call("lock and release, without a value", "lock"),
    Call("lock and release, without a value", "lock", "thinnest_lock"),
    Call("to know in which run we are", "where am I", "streamlit"),
    Call("append to a chat of 10 by assignment", "append to 10"),
    Call("append to a chat of 1,000 by assignment", "append to 1000", ratio=0.6),
    Call("append to a chat of 10,000 by assignment", "append to 10000", ratio=0.6),
    Call(f"{LOOK} 10", "look at 10", "peer_write", ratio=0.6, ours="look"),
    Call(f"{LOOK} 10", "look at 10", "thinnest_look", ours="look"),
    Call(f"{LOOK} 1,000", "look at 1000", "peer_write", ratio=0.6, ours="look"),
    Call(f"{LOOK} 10,000", "look at 10000", "peer_write", ratio=0.6, ours="look"),
    Call(f"{HELD} 10", "look at 10", "peer_write", ratio=0.6, ours="held"),
    Call(f"{HELD} 1,000", "look at 1000", "peer_write", ratio=0.6, ours="held"),
    Call(f"{HELD} 10,000", "look at 10000", "peer_write", ratio=0.6, ours="held"),
    Call("assign a 100,000-row frame with one new cell (the peer does not look)", "frame", limit=0.01),
    Call("assign an 8 MB array with one new element (the peer does not look)", "array", limit=0.01),
    Call("assign an object full of locks, generators and functions", "opaque", limit=0.001),
    Call("assign a single 1 GB array", "1 GB array", None, limit=0.001),
    Call("assign 1 GB in a thousand arrays", "1 GB in a thousand", "limit"),
]


def timed_inside(app: str) -> Times:
    """Run an app that measures single calls in its own script run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        os.environ["RESULTS"] = str(path)
        server = tabs.serve(app)
        try:
            tab = Tab(server, patience=300)
            wait_for("the measurements", lambda: "measured" in tab.text())
            tab.close()
            times: Times = json.loads(path.read_text())
            return times
        finally:
            server.stop()


def calls() -> Measured:
    times = timed_inside("micro_app.py")
    for call in CALLS:
        yield call.row(times)
    for title, grows in (
        ("a write, by items in a list", "size"),
        ("to_dict(), by keys", "keys"),
        ("lock and release, by locks held", "locks"),
    ):
        measured = {
            int(row.split()[-1]): some["ours"] for row, some in times.items() if row.startswith(f"grow {grows}")
        }
        yield Curve(title, "ours", [(size, statistics.median(some)) for size, some in sorted(measured.items())])


def messages() -> Measured:
    times = timed_inside("messages_app.py")
    ratios = dict.fromkeys(list(MAKERS)[:4], 0.4)
    for kind in MAKERS:
        some = times[f"assign {kind}"]
        what = f"assign a list of 10,001 messages: {kind}"
        if kind.startswith("plain objects"):
            yield Row(what, some["ours"], some["pickle"], "`pickle.dumps`", ratio=2)
        else:
            yield Row(what, some["ours"], some["peer"], ratio=ratios.get(kind, 1.3))
    for kind in MAKERS:
        some = times[f"read {kind}"]
        what = f"hold a lock around reading a chat of 10,000: {kind}"
        yield Row(what, some["ours"], some["short"], "a chat of 10", limit=20e-6)
    some = times["append"]
    what = "append in place under the lock to a chat of 10,000 dataclasses, now and then"
    yield Row(what, some["ours"], some["plain"], "a bare RLock and a list", limit=1e-4)


def readers() -> Measured:
    blocked: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    stale = {"ours": 0, "peer": 0}
    for count in (1, 10, 100, 300):
        kinds = ("ours", "peer") if count <= 100 else ("ours",)
        done = tabs.follow({kind: tabs.readers(kind) for kind in kinds}, count, 5)
        peer = done.get("peer", Followed())
        ratio = 0.02 if count == 100 else None
        yield Row(
            f"a write blocks the writer, tabs that follow it: {count}",
            done["ours"].blocked,
            peer.blocked,
            ratio=ratio,
            limit=1e-3,
        )
        for kind, result in done.items():
            stale[kind] += result.stale
            blocked[kind].append((count, statistics.median(result.blocked)))
        if count == 100:
            yield from following(done, "default settings", [None, 0.3, 0.3, 0.3])
    yield never_shown(stale, "default settings")
    for kind, points in blocked.items():
        yield Curve("a write blocks the writer, by tabs", kind, points)


def no_collection() -> Measured:
    how = "`postScriptGC=false`"
    servers = {kind: tabs.readers(kind, runner__postScriptGC="false") for kind in ("ours", "peer", "alone")}
    done = tabs.follow(servers, 100, 9)
    yield from following(done, how, [None, 0.9, 0.9, None])
    what = f"until the last of 100 tabs shows a write, {how}"
    yield Row(what, done["ours"].last, done["alone"].last, STREAMLIT)
    yield never_shown({kind: done[kind].stale for kind in ("ours", "peer")}, how)


def following(done: dict[str, Followed], how: str, ratios: list[float | None]) -> Iterator[Row]:
    ours, peer = done["ours"], done["peer"]
    tab = "of 100 tabs shows a write"
    yield Row(f"until the first {tab}, {how}", ours.first, peer.first, ratio=ratios[0])
    yield Row(f"until the median {tab}, {how}", ours.median, peer.median, ratio=ratios[1])
    yield Row(f"until the last {tab}, {how}", ours.last, peer.last, ratio=ratios[2])
    what = f"a bystander's click is answered while 100 tabs follow a write, {how}"
    yield Row(what, ours.bystander, peer.bystander, ratio=ratios[3])


def never_shown(stale: dict[str, int], how: str) -> Row:
    what = f"tabs that do not show a write within {PATIENCE} s, in all rounds, {how}"
    return Row(what, [stale["ours"]], [stale["peer"]], unit="tabs", limit=0)


def steady() -> Measured:
    each_second = "a change a second for 20 s, 60 tabs"
    ours, peer = (tabs.worked(kind, 60, 20, 1.0) for kind in ("ours", "peer"))
    yield Row(f"{each_second}: how far the median tab is behind", [ours.behind], [peer.behind], ratio=1)
    yield Row(f"{each_second}: most threads alive", [ours.threads], [peer.threads], unit="threads")
    storm = "50 writes a second for 10 s, 20 tabs, scripts of 0.1 s"
    ours, peer = (tabs.worked(kind, 20, 500, 0.02, sleep=0.1) for kind in ("ours", "peer"))
    yield Row(f"{storm}: runs finished", [ours.ended], [peer.ended], unit="runs", ratio=5, is_at_least=True)
    yield Row(f"{storm}: runs started", [ours.started], [ours.ended], "runs finished", unit="runs", ratio=1.1)
    yield Row(f"{storm}: CPU of the server", [ours.cpu], [peer.cpu])


def chat() -> Measured:
    lengths = {"long": 10_000, "short": 10}
    servers = {name: tabs.serve("chat_app.py", settings=f"LENGTH = {lengths[name]}") for name in lengths}
    done = tabs.follow(servers, 100, 7)
    long, short = done["long"], done["short"]
    app = "of 100 tabs that read a chat of 10,000 dataclasses under its lock shows an append in place"
    yield Row(f"until the median {app}", long.median, short.median, SHORT, ratio=1.5)
    yield Row(f"until the last {app}", long.last, short.last, SHORT, ratio=1.5)
    what = "an append in place to a chat of 10,000 dataclasses blocks the writer, 100 tabs that read it"
    yield Row(what, long.blocked, short.blocked, SHORT, limit=1e-4)
    what = "a bystander's click is answered while 100 tabs follow an append to a chat of 10,000 dataclasses"
    yield Row(what, long.bystander, short.bystander, SHORT)
    what = f"tabs that do not show an append to a chat of 10,000 dataclasses within {PATIENCE} s, in all rounds"
    yield Row(what, [long.stale], unit="tabs", limit=0)


def clock() -> Measured:
    """Streamlit alone beside it: it collects garbage after each of these runs, ten thousand messages and all."""
    ours, alone = tabs.clocked("ours", 20, 60), tabs.clocked("alone", 20, 30)
    app, beside = "20 tabs, each with a fragment that reads 10,000 messages with a `datetime` once a second", STREAMLIT
    yield Row(f"{app}: more threads than idle", [ours.threads], [alone.threads], beside, "threads", limit=4)
    yield Row(f"{app}: the slowest answer to a click", [max(ours.answers)], [max(alone.answers)], beside, limit=2)
    yield Row(
        f"{app}: the median answer", [statistics.median(ours.answers)], [statistics.median(alone.answers)], beside
    )
    yield Row(f"{app}: fragments run each second", [ours.runs], [alone.runs], beside, "runs")


def scripts() -> Measured:
    busy = tabs.follow({"ours": tabs.readers("ours", cpu=0.005)}, 100, 7)["ours"]
    what = "until the median of 100 tabs shows a write, scripts of 5 ms of CPU"
    yield Row(what, busy.median, busy.last, "the last", ratio=0.6)
    slow = tabs.follow({"ours": tabs.readers("ours", sleep=0.3)}, 100, 7)["ours"]
    yield Row("until the last of 100 tabs shows a write, scripts that sleep for 0.3 s", slow.last, limit=1)
    what = f"tabs that do not show a write within {PATIENCE} s, in all rounds, scripts that work or sleep"
    yield Row(what, [busy.stale + slow.stale], unit="tabs", limit=0)


def crowd() -> Measured:
    how = "`postScriptGC=false`"
    servers = {kind: tabs.readers(kind, runner__postScriptGC="false") for kind in ("ours", "alone")}
    done = tabs.follow(servers, 1000, 3)
    ours, alone = done["ours"], done["alone"]
    beside = STREAMLIT
    yield Row(f"until the median of 1,000 tabs shows a write, {how}", ours.median, alone.median, beside)
    yield Row(f"until the last of 1,000 tabs shows a write, {how}", ours.last, alone.last, beside, ratio=1.1)
    what = f"a bystander's click is answered while 1,000 tabs follow a write, {how}"
    yield Row(what, ours.bystander, alone.bystander, beside, limit=0.5)
    what = f"tabs of 1,000 that do not show a write within {PATIENCE} s, in all rounds, {how}"
    yield Row(what, [ours.stale], [alone.stale], beside, unit="tabs", limit=0)


def keys() -> Measured:
    """Each tab reads a thousand times, of ten keys or of a thousand."""
    counts = {"many": 1000, "few": 10}
    done = tabs.follow({name: tabs.serve("keys_app.py", settings=f"KEYS = {counts[name]}") for name in counts}, 100, 5)
    what = "until the {} of 100 tabs that read 1,000 keys shows one that has changed"
    yield Row(what.format("median"), done["many"].median, done["few"].median, "10 keys")
    yield Row(what.format("last"), done["many"].last, done["few"].last, "10 keys", ratio=1.1)
    for name, count in counts.items():
        idle, written = tabs.idly_written(tabs.serve("keys_app.py", settings=f"KEYS = {count}"), 100)
        what = f"CPU for 20 writes a second of a key that nobody reads, 100 tabs that read {count:,} others"
        limit = 2 if name == "many" else None
        yield Row(what, [100 * (written - idle)], [100 * idle], "idle", unit="%", limit=limit)


def memory() -> Measured:
    used = tabs.memory(100)
    yield Row("memory for an idle session that has read 20 keys", [used.idle], unit="bytes", limit=4096)
    what = "memory that is left of such a session when it is gone"
    yield Row(what, [used.gone], [used.idle], "while it is there", unit="bytes", ratio=0.05)


def imports() -> Measured:
    code = (
        "import sys, time; t = time.perf_counter(); import {}; "
        "print(time.perf_counter() - t, 'streamlit' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {"server_state": [], "streamlit_server_state": []}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE.parent / "server_state.py", folder)
        for round_ in range(8):
            for name, some in times.items():
                command = [sys.executable, "-c", code.format(name)]
                done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
                seconds, has_streamlit = done.stdout.split()
                assert (has_streamlit == "True") == (name != "server_state")
                if round_:  # the first compiles it
                    some.append(float(seconds))
    yield Row("import", times["server_state"], times["streamlit_server_state"], limit=0.02)


GROUPS: dict[str, tuple[str, Callable[[], Measured]]] = {
    "calls": ("Single calls in a script run", calls),
    "messages": ("Lists of 10,000 messages", messages),
    "readers": ("One write before many tabs", readers),
    "no_collection": ("One write, and no garbage collected after each run", no_collection),
    "chat": ("A long chat before 100 tabs", chat),
    "clock": ("Fragments that run by the clock", clock),
    "scripts": ("Scripts that work or wait", scripts),
    "crowd": ("One write before 1,000 tabs", crowd),
    "steady": ("Writes that go on", steady),
    "keys": ("Many keys", keys),
    "memory": ("Memory", memory),
    "imports": ("Import", imports),
}


def circumstances() -> str:
    names = ("streamlit", "streamlit-server-state")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"Python {platform.python_version()}, {versions}, {machine}"


def measure(group: str) -> Result:
    """Measure a group, and print its rows as they come."""
    title, function = GROUPS[group]
    print(f"\n{title} ({group})\n{HEAD}", flush=True)
    result = Result(datetime.date.today().isoformat(), circumstances(), 0.0)
    begun = time.monotonic()
    for found in function():
        if isinstance(found, Row):
            print(found.line(), flush=True)
            result.rows.append(found)
        else:
            result.curves.append(found)
    result.minutes = (time.monotonic() - begun) / 60
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure server_state, and write results.md.")
    parser.add_argument("groups", nargs="*", help=f"all, or some of: {' '.join(GROUPS)}")
    groups = parser.parse_args().groups or list(GROUPS)
    if unknown := [group for group in groups if group not in GROUPS]:
        parser.error(f"no such group: {', '.join(unknown)}")
    results = read_results()
    missed = []
    for group in groups:
        results[group] = measure(group)
        missed += [row.line() for row in results[group].rows if row.is_met is False]
        write_results(results, {name: title for name, (title, _) in GROUPS.items()})
    print("\nnot met:", *(missed or ["nothing"]), sep="\n")


if __name__ == "__main__":
    main()
